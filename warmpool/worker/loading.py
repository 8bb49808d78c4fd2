"""Importing an app: its class, its version, and exactly which source files that is.

The app's own files are read and compiled afresh, never taken from `__pycache__`: a cached file is trusted by its
second and its size, so an edit within a second could be missed. What is read is also what is hashed. Nothing is
written beside the user's files.

The version is the class's own, else the first 8 hex digits of the SHA-256 of the source files one after another, in
the order of their paths: for an app of one file, what `sha256sum` says of it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ..app import BaseApp
from ..discovery import app_files, holds_packages, is_for_tests, text_of, texts_in
from ..launch import PACKAGE
from ..paths import is_text
from ..wire.process_messages import Load, SourceRead

_LIBRARIES: Final = frozenset({"site-packages", "dist-packages"})


class AppLoadError(Exception):
    """The files import, but do not make an app."""


class AppImporter:
    """Imports one app, once, and remembers what it read, also when the import fails."""

    def __init__(self, load: Load, tell: Callable[[SourceRead], None]) -> None:
        """`tell` is called with each source file before it runs: also with those that are imported later, in a worker,
        which puts another one in its place.
        """
        self._load = load
        self.tell = tell
        self._root = Path(load.root)
        self._sources: dict[str, SourceRead] = {}
        self._texts: dict[str, bytes] | None = {}
        """Of the sources, until the version is known."""

    def import_app(self) -> type[BaseApp]:
        """The app's class. Raises what its code raises, and AppLoadError if there is no class, or not one."""
        sys.path_hooks.insert(0, self._finder)
        sys.path_importer_cache.clear()
        sys.path.insert(0, self._load.root)
        module = self._import_module()
        self._note_what_others_have_found()
        name = self._load.class_name
        if name is None:
            return self._only_class(module)
        for one in self._with_submodules(module):
            found: Any = one
            for part in name.split("."):
                found = getattr(found, part, None)
            if isinstance(found, type) and issubclass(found, BaseApp):
                return found
        raise AppLoadError(f"{module.__name__} has no subclass of warmpool.BaseApp that is called {name}")

    def version(self, app: type[BaseApp]) -> str:
        """To be asked once, when all has been read that makes the version: the texts are let go of."""
        texts, self._texts = self._texts, None
        assert texts is not None
        if app.version:
            return checked_version(app)
        digest = hashlib.sha256()
        for _, text in sorted(texts.items()):
            digest.update(text)
        return digest.hexdigest()[:8]

    def sources(self) -> list[list[Any]]:
        return [list(source) for source in self._sources.values()]

    # --- reading ----------------------------------------------------------------------------------------------

    def _finder(self, directory: str) -> FileFinder:
        """A path hook for the directories of the user's own code."""
        if not self._is_users(directory):
            raise ImportError
        return FileFinder(
            directory,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (self._loader_class(), SOURCE_SUFFIXES),
            (self._noting(SourcelessFileLoader), BYTECODE_SUFFIXES),
        )

    def _is_users(self, directory: str) -> bool:
        """Whether it is neither Python's, nor its libraries', nor ours. Libraries lie in directories of certain names,
        or where pip has left word of what it has put there.
        """
        path = Path(directory)
        if path.is_relative_to(PACKAGE) or not path.is_dir():
            return False
        of_the_app = path.is_relative_to(self._root)
        elsewhere = [entry for entry in sys.path if not Path(entry).is_relative_to(self._root)]
        if any(path.is_relative_to(entry) and _holds_packages(entry) for entry in elsewhere):
            return False
        if _LIBRARIES.intersection(path.relative_to(self._root).parts if of_the_app else path.parts):
            return False
        return not any(  # of an environment beside the app, or of Python itself below it
            path.is_relative_to(prefix) and not (of_the_app and self._root.is_relative_to(prefix))
            for prefix in (sys.prefix, sys.base_prefix)
        )

    def _loader_class(self) -> type[SourceFileLoader]:
        class FreshLoader(self._noting(SourceFileLoader)):  # type: ignore[misc]
            def path_stats(self, path: Any) -> Any:
                raise OSError  # makes the import system compile the text, and write nothing

        return FreshLoader

    def _noting(self, kind: type[Any]) -> type[Any]:
        """A kind of loader that takes note of what it reads."""
        importer = self

        class NotingLoader(kind):  # type: ignore[misc]
            def get_data(self, path: Any) -> bytes:
                return importer._note(path)

        return NotingLoader

    def _note(self, path: str) -> bytes:
        """Its text."""
        status = os.stat(path)
        data = text_of(path)
        digest = hashlib.sha256(data).hexdigest()
        self._sources[path] = source = SourceRead(path, status.st_ctime_ns, status.st_size, digest)
        if self._texts is not None:
            self._texts[path] = data
        self.tell(source)
        return data

    def _note_what_others_have_found(self) -> None:
        """Import hooks, as those of packages that are installed for development."""
        modules = [module for name, module in list(sys.modules.items()) if name != "__main__"]  # which is ours
        loaders = [getattr(module, "__loader__", None) for module in modules]
        files = {loader.path for loader in loaders if isinstance(loader, SourceFileLoader)} - self._sources.keys()
        directories = set(filter(self._is_users, set(map(os.path.dirname, files))))
        for file in files:
            if os.path.dirname(file) in directories:
                with suppress(OSError):  # it is gone by now
                    self._note(file)

    def _import_module(self) -> ModuleType:
        file, name = self._load.file, self._load.module
        if file is None:
            return importlib.import_module(name)
        if name in sys.modules:
            name = f"app_{name}"  # a file may be called like a module that Python has loaded already
        spec = importlib.util.spec_from_file_location(name, file, loader=self._loader_class()(name, file))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    # --- finding the class ------------------------------------------------------------------------------------

    def _only_class(self, module: ModuleType) -> type[BaseApp]:
        """The app that no other derives from, of the module or, if it has none, of what is in the package."""
        found = leaves = _leaves(_classes_in(module))
        if not leaves:
            found = set[type[BaseApp]]().union(*map(_classes_in, self._with_submodules(module)))
            leaves = _leaves(found)
        if len(leaves) == 1:
            return leaves.pop()
        where = self._load.file or module.__name__
        names = sorted(kind.__name__ for kind in leaves or found)
        if leaves:
            raise AppLoadError(f"{where} has {len(names)} apps, {', '.join(names)}: name one, as in {where}:{names[0]}")
        if found:
            raise AppLoadError(f"{where} has no app but what is abstract: {', '.join(names)}")
        raise AppLoadError(f"{where} has no subclass of warmpool.BaseApp")

    @staticmethod
    def _with_submodules(module: ModuleType) -> Iterator[ModuleType]:
        """A module, and if it is a package, the modules right in it that hold apps."""
        yield module
        texts: dict[Path, bytes] = {}
        for directory in getattr(module, "__path__", ()):
            texts |= texts_in(Path(directory))
        for file in app_files(texts):
            if not file.stem.startswith("__") and not is_for_tests(file.stem):
                yield importlib.import_module(f"{module.__name__}.{file.stem}")


_holds_packages = cache(holds_packages)


def checked_version(app: type[BaseApp]) -> str:
    """What a class says that its version is. Raises ValueError if nobody could ask for that."""
    version: object = app.version
    text = str(version)
    if not isinstance(version, str | int | float) or {*text} & {*"@:/#"} or not is_text(text):
        raise ValueError(f"{app.__name__}.version must be a string without @, :, / and #, not {version!r}")
    return text


def _leaves(apps: set[type[BaseApp]]) -> set[type[BaseApp]]:
    concrete = {kind for kind in apps if not inspect.isabstract(kind)}
    return {kind for kind in concrete if not any(kind in other.__mro__[1:] for other in concrete)}


def _classes_in(module: ModuleType) -> set[type[BaseApp]]:
    """The apps that a module defines, or, if none, those that it imports."""
    apps = {
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseApp) and value is not BaseApp
    }
    return {kind for kind in apps if kind.__module__ == module.__name__} or apps
