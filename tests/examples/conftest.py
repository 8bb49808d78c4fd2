import importlib.util
import sys
from pathlib import Path

import pytest

APPS = Path(__file__).parents[2] / "examples" / "apps"


@pytest.fixture
def load_app(monkeypatch):
    """→ a function that imports an example anew, from its file."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", APPS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
