"""The README's map is the tree."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_map_names_every_module_and_no_other():
    text = (ROOT / "README.md").read_text()
    drawn = text.split("```\nwarmpool/\n")[1].split("```")[0]
    named = re.findall(r"^  (\S+\.py)\s+\S", drawn, re.MULTILINE)
    modules = {str(path.relative_to(ROOT / "warmpool")) for path in (ROOT / "warmpool").rglob("*.py")}
    packages = {name for name in modules if name.endswith("/__init__.py")}
    assert sorted(named) == sorted(modules - packages)
    assert len(named) == len(set(named))


def test_the_documents_it_points_to_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
