"""What the tasks of a run printed: parts of the log files of their workers."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fanfold.runs.state import journals
from fanfold.store.directory import RunDirectory

__all__ = ["LogFiles", "Printed", "follow", "printed"]

_PAUSE = 0.2  # seconds between looks at files that grow
_LOGS = "e*-a*-w*.*"  # those of the workers
_NUMBER = re.compile(r"\d+$")

Record = dict[str, Any]


class Printed(NamedTuple):
    """What some tasks printed, in bytes: one task, unless they are tiny and ran together."""

    first: int
    count: int  # type: ignore[assignment]
    attempt: int
    writer: str
    worker: str
    ok: bool
    out: bytes
    err: bytes


class LogFiles:
    """The log files of one driver's workers."""

    def __init__(self, directory: RunDirectory, element: int, attempt: int) -> None:
        self._directory = directory
        self._key = element, attempt

    def read(self, record: Record) -> Iterator[tuple[int, int, bytes, bytes]]:
        """(first, count, standard output, standard error) of each piece of a record."""
        first = record["first"]
        for count, *_, out, out_end, err, err_end in record["ran"]:
            if out is not None:
                files = self._files(record["worker"])
                parts = ((out, out_end), (err, err_end))
                texts = [_part(path, *part) for path, part in zip(files, parts, strict=True)]
                yield first, count, texts[0], texts[1]
            first += count

    def last_lines(self, record: Record, count: int) -> Iterator[str]:
        """The last lines of a task's standard output, and those of its standard error."""
        for _, _, out, err in self.read(record):
            for text in (out, err):
                yield from text.decode(errors="backslashreplace").splitlines()[-count:]

    def _files(self, worker: str) -> tuple[Path, Path]:
        found = _NUMBER.search(worker)
        return self._directory.log(*self._key, int(found[0]) if found else 0)


def _part(path: Path, begin: int, end: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)
    except OSError:
        return b""


def printed(
    directory: RunDirectory, wanted: Callable[[Record], bool] = lambda _: True
) -> Iterator[Printed]:
    """What the tasks of the records that are wanted printed, in the order of the journals."""
    for header, journal in journals(directory, []):
        writer = f"e{header.element}-a{header.attempt}"
        files = LogFiles(directory, header.element, header.attempt)
        for record in journal.records():
            if record["is"] not in ("done", "failed") or not wanted(record):
                continue
            for first, count, out, err in files.read(record):
                if out or err:
                    yield Printed(
                        first, count, record["try"], writer, record["worker"],
                        record["is"] == "done", out, err,
                    )  # fmt: skip


def follow(directory: RunDirectory, driven: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
    """(worker, whole lines) as the log files grow, from their ends now, while it is driven."""
    folder = directory.path / "logs"
    read = {path.name: path.stat().st_size for path in folder.glob(_LOGS)}
    while True:
        last_look = not driven()
        for path in sorted(folder.glob(_LOGS)):
            begin = read.get(path.name, 0)
            new = _part(path, begin, path.stat().st_size)
            new = new if last_look else new[: new.rfind(b"\n") + 1]
            if new:
                read[path.name] = begin + len(new)
                yield os.path.splitext(path.name)[0], new
        if last_look:
            return
        time.sleep(_PAUSE)
