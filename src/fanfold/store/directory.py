"""The folder of a run: what is where in it, and whether it is safe to unpickle what it holds."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fanfold.errors import RunDamaged, RunNotFound, RunUntrusted, UnsafeFolder, UsageError
from fanfold.store.files import open_file, replace, sync_folder, writing

__all__ = ["RunDirectory", "next_name", "open_private", "run_directories", "safe_name"]

_SUBFOLDERS = ("arrays", "leases", "journals", "results", "logs")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_NUMBER = "(0|[1-9][0-9]*)"
_WRITER = re.compile(rf"e{_NUMBER}-a{_NUMBER}")
_ARRAY = re.compile(rf"{_NUMBER}\.(json|sh|sent|job|closed)")

_LONGEST_NAME = 80
_NAME = re.compile(rf"(?![.-])[A-Za-z0-9._-]{{1,{_LONGEST_NAME}}}(?<!\.)", re.ASCII)
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


class RunDirectory:
    """The folder of one run. ``path`` is where it is.

    `create` makes a new one and `open` finds one; ``RunDirectory(path)`` looks at nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = RunDirectory.create(Path(folder, "fanfold-runs"), "pi-1")
    ...     made.write_text("run.json", '{"name": "pi-1"}')
    ...     found = RunDirectory.open(Path(folder, "fanfold-runs", "pi-1"))
    ...     found.read_json("run.json")["name"], found.journal(0, 1).name
    ('pi-1', 'e0-a1.journal')
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @classmethod
    def create(cls, parent: Path, name: str) -> RunDirectory:
        """Make the folder of a new run in ``parent``, private whatever the umask.

        Raises `UsageError` when a folder cannot or should not have that name, FileExistsError when
        there is one, `UnsafeFolder` when others could replace it, `RunReadOnly` and `NoSpace`.
        """
        if not _is_safe(name):
            raise UsageError(
                f"{name!r} cannot be the name of a run's folder: use letters, digits, '.', '_' and "
                f"'-', at most {_LONGEST_NAME}, such as {safe_name(name)!r}"
            )
        path = parent / name
        with writing(path):
            _make_parent(parent)
            _check_parents(path.resolve())
            for folder in (path, *(path / name for name in _SUBFOLDERS)):
                _make_private(folder)
            sync_folder(path)
            sync_folder(parent)
        return cls(path.resolve())

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """The run in a folder; anybody's whose files can be read.

        Raises `RunNotFound`, with the names that come close.
        """
        try:
            if (path / "run.json").is_file():
                return cls(path.resolve())
        except PermissionError:
            raise RunNotFound(
                f"you may not read {path}: ask its owner for the permission"
            ) from None
        raise RunNotFound(f"there is no run in {path}{_suggestion(path)}")

    # Where things are

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def function(self) -> Path:
        return self.path / "function.pickle"

    def inputs(self, generation: int) -> Path:
        return self.path / f"inputs-{generation}.pack"

    def lease(self, element: int, attempt: int) -> Path:
        return self.path / "leases" / f"e{element}-a{attempt}.json"

    def beat(self, element: int, attempt: int) -> Path:
        return self.path / "leases" / f"e{element}-a{attempt}.beat"

    def journal(self, element: int, attempt: int) -> Path:
        return self.path / "journals" / f"e{element}-a{attempt}.journal"

    def pack(self, element: int, attempt: int) -> Path:
        return self.path / "results" / f"e{element}-a{attempt}.pack"

    def array(self, number: int, kind: str) -> Path:
        """A file about a job array: ``kind`` is "json", "sh", "sent", "job" or "closed"."""
        return self.path / "arrays" / f"{number}.{kind}"

    def arrays(self) -> list[int]:
        """The numbers of the job arrays, in order: of those that any file is about."""
        names = os.listdir(self.path / "arrays") if (self.path / "arrays").is_dir() else []
        found = map(_ARRAY.fullmatch, names)
        return sorted({int(match[1]) for match in found if match})

    def log(self, element: int, attempt: int, worker: int) -> tuple[Path, Path]:
        """Where a worker's standard output and standard error go."""
        stem = f"e{element}-a{attempt}-w{worker}"
        return self.path / "logs" / f"{stem}.out", self.path / "logs" / f"{stem}.err"

    def writers(self) -> list[tuple[int, int]]:
        """Element and attempt of each journal, in order."""
        return sorted(self._writers("journals", ".journal"))

    def attempts(self, element: int) -> list[int]:
        """The attempts at an element that were begun, by a lease or a journal, in order."""
        return self.all_attempts().get(element, [])

    def all_attempts(self) -> dict[int, list[int]]:
        """The same of every element."""
        begun = {*self._writers("leases", ".json"), *self._writers("journals", ".journal")}
        found: dict[int, list[int]] = {}
        for element, attempt in sorted(begun):
            found.setdefault(element, []).append(attempt)
        return found

    def _writers(self, folder: str, suffix: str) -> Iterator[tuple[int, int]]:
        with suppress(FileNotFoundError):
            for name in os.listdir(self.path / folder):
                stem, dot, rest = name.partition(".")
                match = _WRITER.fullmatch(stem)
                if match and dot + rest == suffix:
                    yield int(match[1]), int(match[2])

    # What is in the text files

    def write_text(self, name: str, text: str) -> None:
        """Give a file new content, at once and for good: it is on the disk when this returns.

        Raises `NoSpace`, `RunReadOnly`, and `RunDamaged` when the folder is gone.
        """
        replace(self.path / name, text.encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """The object that a file holds. Raises `RunDamaged`, naming the file."""
        path = self.path / name
        with os.fdopen(open_file(path), "rb") as file:
            content = file.read()
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RunDamaged(f"{path} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise RunDamaged(f"{path} holds no JSON object")
        return value

    # Whom it belongs to

    def check_private(self, trust: bool) -> None:
        """Make sure that only this user can have written what is to be unpickled.

        Nothing is checked with ``trust``. Raises `RunUntrusted` when something is somebody else's,
        `UnsafeFolder` when others may write it or replace it.
        """
        if trust:
            return
        path = self.path.resolve()
        _check_parents(path)
        for folder in (path, *(path / name for name in _SUBFOLDERS)):
            _check_entry(folder, stat.S_IFDIR)
        for file in (path / "function.pickle", *path.glob("inputs-*.pack")):
            _check_entry(file, stat.S_IFREG)
        for file in (path / "results").glob("*.pack"):
            _check_entry(file, stat.S_IFREG)


def open_private(path: Path, trust: bool) -> int:
    """A descriptor to read a file that is to be unpickled: what is checked is what is read.

    Raises as `RunDirectory.check_private`, and `RunDamaged` when there is no such file.
    """
    descriptor = open_file(path)
    try:
        if not trust:
            _check(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_entry(path: Path, kind: int) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return  # nothing is read from there
    if stat.S_IFMT(status.st_mode) != kind:
        what = "a folder" if kind == stat.S_IFDIR else "a file"
        raise UnsafeFolder(
            f"{path} is not {what} but a link or something else, which may lead to somebody "
            "else's data: remove it, or say --trust (trust=True)"
        )
    _check(path, status)


def _check(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise RunUntrusted(path, _user(status.st_uid))
    if status.st_mode & _OTHERS_WRITE:
        raise UnsafeFolder(
            f"others may write {path}, and to load what they write would run it: forbid it "
            f"(chmod go-w {path}), make sure that all is as you left it, and try again"
        )


def _check_parents(path: Path) -> None:
    """Nobody may put another folder in the place of this one."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UnsafeFolder(
                f"everybody may replace what is in {parent}, and so the run in {path}: forbid it "
                f"(chmod o-w {parent}, or chmod +t {parent}), or choose another folder with --dir"
            )


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _make_parent(path: Path) -> None:
    """Make a folder for runs, and those above it, where they are missing."""
    if not path.exists():
        _make_parent(path.parent)
        with suppress(FileExistsError):  # another was faster
            _make_private(path)
            sync_folder(path.parent)
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder: choose another with --dir")


def _make_private(path: Path) -> None:
    os.mkdir(path, 0o700)
    os.chmod(path, 0o700)  # whatever the umask


# Names


def safe_name(text: str) -> str:
    """A name for a folder, anywhere, from any text; a name that is safe already stays as it is.

    Letters and digits of ASCII, ``.``, ``_`` and ``-`` are kept. Where anything had to go, a digest
    of the text ends the name, so that different texts have different names.

    >>> safe_name("pi.count_inside"), safe_name("../größer")
    ('pi.count_inside', '_._gr__er-aaf423968d')
    """
    if _is_safe(text):
        return text
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=5).hexdigest()
    kept = re.sub(r"[^A-Za-z0-9._-]", "_", text)
    kept = re.sub(r"^[.-]", "_", kept)[: _LONGEST_NAME - len(digest) - 2]
    return f"{'_' if not kept or _RESERVED.match(kept) else ''}{kept}-{digest}"


def _is_safe(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and _RESERVED.match(name) is None


def next_name(parent: Path, stem: str) -> str:
    """The first name of ``stem-1``, ``stem-2`` ... that is free in a folder.

    >>> next_name(Path("no-such-folder"), "pi")
    'pi-1'
    """
    number = 1
    while os.path.lexists(parent / (name := safe_name(f"{stem}-{number}"))):
        number += 1
    return name


def run_directories(parent: Path) -> list[Path]:
    """The folders of the runs in a folder, the newest last."""
    made = []
    for path in parent.iterdir() if parent.is_dir() else ():
        with suppress(OSError):  # no run, or not to be seen
            made.append(((path / "run.json").lstat().st_mtime_ns, path))
    return [path for _, path in sorted(made)]


def _suggestion(path: Path) -> str:
    """The runs that may have been meant."""
    try:
        names = [found.name for found in run_directories(path.parent)]
    except PermissionError:
        return ""
    if not names:
        return f": {path.parent} has no runs at all"
    close = difflib.get_close_matches(path.name, names, n=3)
    if close:
        return f": did you mean {' or '.join(close)}?"
    return f": the last ones there are {', '.join(names[-3:])}"
