"""Which apps there are, where their files lie, and whether these have changed.

An app is known by what it is loaded from, not by its name: two files called `counter.py` are two apps. Names come
from `serve`, and from every path that is used; a name that nobody claimed leads to its latest use. Of two apps that are
served under one name the first has it, and the other goes by its path. A module is no such name: `main:App` is another
app in each directory where it is said.

Whether an app has been edited is asked at every open, by a stat of each of its source files; only if one differs is
it read, and only if its text differs is that a new edition. That it is to run under another interpreter counts as an
edit, too. Between two opens nobody looks.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ..checks import shorten
from ..discovery import app_files, is_for_tests, text_of, texts_in
from ..errors import AppNotFoundError, InvalidRequestError
from ..facts import fact
from ..paths import is_text, working_directory
from ..policy.events import AppEdition
from ..wire.references import PRIMED, AppReference, parse
from .interpreters import Interpreter, interpreter_for
from .log import Log


@fact
class FileMark:
    changed_ns: int
    """Its ctime: an mtime can be kept or set back, as archives and `rsync -a` do."""
    size: int
    digest: str
    """SHA-256 of the text; empty for a directory."""


@dataclass(slots=True)
class AppEntry:
    """Where one app is loaded from, and its files as they were last read."""

    key: str
    name: str
    root: str
    module: str
    file: str | None
    class_name: str | None
    primed: bool = False
    revision: int = 1
    files: dict[str, FileMark] = field(default_factory=dict)
    interpreter: Interpreter = field(init=False)

    def __post_init__(self) -> None:
        self.interpreter = interpreter_for(self.root)

    @property
    def place(self) -> str:
        """The file or the directory that it is."""
        return self.file or os.path.join(self.root, *self.module.split("."))

    def edition(self) -> AppEdition:
        """The app as its files are now. Looks at all of them, so that each edit counts once."""
        changed = [path for path in list(self.files) if not self._is_unchanged(path)]
        interpreter, before = interpreter_for(self.root), self.interpreter
        self.interpreter = interpreter
        self.revision += bool(changed) or interpreter != before
        return AppEdition(self.key, self.name, self.revision)

    def move_to(self, other: AppEntry) -> None:
        """A link that leads elsewhere by now is an edit, too."""
        if (self.root, self.module, self.file) != (other.root, other.module, other.file):
            self.root, self.module, self.file = other.root, other.module, other.file
            self.revision += 1

    def note(self, source: Sequence[Any]) -> None:
        """A template has read this file, and may never come to say so of all of them."""
        path, changed_ns, size, digest = source
        self.files[path] = FileMark(changed_ns, size, digest)

    def note_late(self, source: Sequence[Any]) -> None:
        """A worker has. Another one may have read it before, and as it was then."""
        if source[0] not in self.files:
            self.note(source)

    def remember(self, sources: Iterable[Sequence[Any]]) -> None:
        """These are all that a template read, and no others."""
        self.files = {}
        for source in sources:
            self.note(source)

    def watch_directories(self) -> None:
        """Of what it read, since the import failed and a file that is added may mend it."""
        for directory in {self.root, *map(os.path.dirname, self.files)}:
            with suppress(OSError):
                status = os.stat(directory)
                self.files[directory] = FileMark(status.st_ctime_ns, status.st_size, "")

    def _is_unchanged(self, path: str) -> bool:
        mark = self.files[path]
        try:
            status = os.stat(path)
            if (status.st_ctime_ns, status.st_size) == (mark.changed_ns, mark.size):
                return True
            digest = hashlib.sha256(text_of(path)).hexdigest()
        except OSError:
            self.files.pop(path)  # it is gone, or no file: once counts
            return False
        self.files[path] = FileMark(status.st_ctime_ns, status.st_size, digest)
        return digest == mark.digest


class Catalog:
    def __init__(self) -> None:
        self._untold: list[str] = []
        self._log: Log = self._untold.append
        self._entries: dict[str, AppEntry] = {}
        self._names: dict[str, str] = {}
        self._served_keys: set[str] = set()
        self._claimed: set[str] = set()
        """Names of what was served. They lead nowhere else, so of some that are served there is only the key to say."""
        self._modules: dict[tuple[str, str], AppEntry] = {}
        """By the directory they were seen from, and how they are called there."""
        self._directories: list[Path] = []

    def log_to(self, log: Log) -> None:
        """`log` is told of apps that are served and whose name is another's: of those that there are, and will be."""
        for line in self._untold:
            log(line)
        self._log = log

    def serve(self, paths: Iterable[str]) -> list[AppEntry]:
        """Registers apps, and directories of apps. Raises APP_NOT_FOUND for what is neither."""
        found: list[AppEntry] = []
        for text in paths:
            try:
                found += self._served(text)
            except OSError as error:
                raise AppNotFoundError(f"there is no app at {shorten(text)}: {error.strerror}") from error
        return found

    def _served(self, text: str) -> list[AppEntry]:
        path = Path(working_directory(), text)
        if (named := _class_in_path(text)) is not None:
            return [self._claim(self.resolve(named, working_directory()))]
        if path.is_dir() and not (path / "__init__.py").exists():
            self._directories.append(path)
            return self._scan(path)
        return [self._claim(_entry_of_path(path, None))]

    def entries(self) -> list[tuple[str, AppEntry]]:
        """Names and their apps, by name. One that is served, and whose name is another's, is listed by its path."""
        self._scan_all()
        named = [(name, self._entries[key]) for name, key in self._names.items()]
        others = [(key, self._entries[key]) for key in self._served_keys.difference(self._names.values())]
        seen = [(name, entry) for (_, name), entry in self._modules.items()]
        return sorted(named + others + seen, key=lambda item: item[0])

    def by_key(self, key: str) -> AppEntry:
        return self._entries[key]

    def resolve(self, reference: AppReference, cwd: str) -> AppEntry:
        """The app that is meant. Raises APP_NOT_FOUND, with the names there are."""
        if reference.is_path:
            return self._of_path(_joined(cwd, reference.target), reference.class_name)
        name = reference.qualified
        if name not in self._claimed and reference.is_module and (entry := self._of_module(reference, cwd)):
            return entry
        if name not in self._names:
            self._scan_all()
        elif self._directories and not os.path.lexists(self._entries[self._names[name]].place):
            self._look_for_successor(name)
        if name in self._names:
            return self._entries[self._names[name]]
        known = ", ".join(sorted(self._names)) or "none"
        raise AppNotFoundError(
            f"there is no app {shorten(name)}; known by name: {known}. Name one by its path, as in ./apps/counter.py, "
            "or start the daemon with `warmpool serve DIRECTORY`",
            details={"apps": sorted(self._names)},
        )

    def key_of(self, reference: AppReference, cwd: str) -> str:
        """The key of the app that is meant, also if there is none any more: of that which was there."""
        try:
            return self.resolve(reference, cwd).key
        except AppNotFoundError:
            if not reference.is_path:
                return reference.qualified
            return _key_of_path(_joined(cwd, reference.target), reference.class_name)

    def _look_for_successor(self, name: str) -> None:
        """The app of this name is gone. Perhaps a file has become a package."""
        directory = Path(self._entries[self._names[name]].place).parent
        if directory in self._directories:
            self._scan(directory)

    def primed(self, entry: AppEntry) -> AppEntry:
        """The same app, loaded a second time and set up in its template. It has no name of its own."""
        key = entry.key + PRIMED
        if key not in self._entries:
            self._entries[key] = replace(entry, key=key, files={}, primed=True)
        self._entries[key].move_to(entry)
        return self._entries[key]

    def _of_path(self, path: str, class_name: str | None) -> AppEntry:
        known = self._entries.get(_key_of_path(path, class_name))
        if known is not None and _is_no_link(path):
            return self._register(known)
        try:
            return self._register(_entry_of_path(Path(path), class_name))
        except OSError as error:
            raise AppNotFoundError(f"there is no app at {shorten(path)}: {error.strerror}") from error

    def _of_module(self, reference: AppReference, cwd: str) -> AppEntry | None:
        """Looked for once: that takes longer than all else of an open."""
        seen = cwd, reference.qualified
        if seen not in self._modules and (entry := _entry_of_module(reference, cwd)) is not None:
            self._modules[seen] = self._entries[entry.key] = entry
        return self._modules.get(seen)

    def _register(self, entry: AppEntry) -> AppEntry:
        known = self._entries.setdefault(entry.key, entry)
        if known is not entry:
            known.move_to(entry)
        if known.name not in self._claimed:
            self._names[known.name] = known.key
        return known

    def _claim(self, entry: AppEntry) -> AppEntry:
        """An app that is served: its name is its own from now on, unless another one has it that is served. If that was
        in the same directory and is gone, this is what has become of it.
        """
        known = self._register(entry)
        self._claimed.add(known.name)
        holder = self._entries[self._names[known.name]]
        if holder is not known:
            is_beside = os.path.dirname(holder.place) == os.path.dirname(known.place)
            if is_beside and not os.path.lexists(holder.place):
                self._names[known.name] = known.key
                self._served_keys.discard(holder.key)
            elif known.key not in self._served_keys:
                self._log(f"{known.name} is the name of {holder.key}; name {known.key} by its path")
        self._served_keys.add(known.key)
        return known

    def _scan_all(self) -> None:
        for directory in self._directories:
            self._scan(directory)

    def _scan(self, directory: Path) -> list[AppEntry]:
        """Every file and package of a directory that holds an app."""
        texts: dict[Path, bytes] = {}
        try:
            paths = sorted(directory.iterdir())
        except OSError:
            return []  # it was there when the daemon was told of it
        for path in paths:
            if path.name.startswith(("_", ".")) or is_for_tests(path.stem) or not is_text(str(path)):
                continue
            with suppress(OSError):  # not ours to read
                if path.is_dir() and (path / "__init__.py").exists():
                    texts[path] = b"\n".join(texts_in(path).values())
                elif path.suffix == ".py":
                    texts[path] = text_of(str(path))
        return [self._claim(_entry_of_path(path, None)) for path in app_files(texts)]


_joined = lru_cache(maxsize=128)(os.path.join)
"""For each open anew it would take longer than to look at the file."""


def _class_in_path(text: str) -> AppReference | None:
    """`file.py:Class`, where there is no file of that whole name."""
    if os.path.exists(text):
        return None
    with suppress(InvalidRequestError):
        reference = parse(text)
        if reference.is_path and reference.class_name is not None:
            return reference
    return None


def _is_no_link(path: str) -> bool:
    """Whether a file lies there, or a directory, and not a link to one."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _key_of_path(path: str, class_name: str | None) -> str:
    return path if class_name is None else f"{path}:{class_name}"


def _entry_of_path(path: Path, class_name: str | None) -> AppEntry:
    if not is_text(str(path)):
        raise AppNotFoundError(f"{str(path)!r} cannot be an app: its path is not UTF-8")
    if path.is_dir():
        if not (path / "__init__.py").exists():
            raise AppNotFoundError(
                f"{path} is a directory without __init__.py, so no app; name a file in it, or `warmpool serve` it"
            )
        parts, root = [path.name], path.parent
    elif path.is_file():
        place = path.resolve() if path.is_symlink() else path  # as Python does with a script
        parts, root = [place.stem], place.parent
    else:
        raise AppNotFoundError(f"there is no file {shorten(str(path))}")
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    alone = path.is_file() and len(parts) == 1
    return AppEntry(
        key=_key_of_path(str(path), class_name),
        name=_key_of_path(path.name.removesuffix(".py"), class_name),
        root=str(root),
        module=".".join(parts),
        file=str(path) if alone else None,
        class_name=class_name,
    )


def _entry_of_module(reference: AppReference, cwd: str) -> AppEntry | None:
    """A module as Python would find it from `cwd`; its parents are not imported for that. What another interpreter
    would find, only that can tell, by importing it.
    """
    if interpreter_for(cwd).is_ours and not _can_find(reference.target, [cwd, *sys.path]):
        return None
    name = reference.qualified
    return AppEntry(
        key=f"{cwd}:{name}", name=name, root=cwd, module=reference.target, file=None, class_name=reference.class_name
    )


def _can_find(module: str, path: Sequence[str]) -> bool:
    """Whether Python would find the module, with this `path`. Each part is asked for by itself: with its whole name
    Python looks for its parents among the modules that are loaded, if these have no `__init__.py`.
    """
    for part in module.split("."):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            return False
        path = list(spec.submodule_search_locations or ())
    return True
