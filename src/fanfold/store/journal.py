"""Journals: what happened, line by line; see docs/reference/run-directory.md for the format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from zlib import crc32

from fanfold.errors import RunDamaged, RunTooNew
from fanfold.store.files import AppendFile, open_file

__all__ = ["FORMAT", "Journal", "JournalWriter", "newest", "records_from", "tail"]

FORMAT = 1
_BUFFER = 1 << 18  # bytes read at a time
_BLOCK = 1 << 15  # bytes decoded at a time, about: what comes of it stays in the processor's cache
_HEADER_LIMIT = 1 << 24  # bytes; what is longer is no header

_TALLY = b'{"is":"tally",'
_NEWEST = 1 << 14, 1 << 18  # bytes in which the last tally is looked for: first, and at most

_encode = json.JSONEncoder(separators=(",", ":")).encode

Record = dict[str, Any]


class JournalWriter:
    """Writes a new journal: the file must not exist, and nobody else writes it.

    ``header`` is the first record; what it is and its format need not be said. Raises
    FileExistsError, `NoSpace` and `RunReadOnly`.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "e0-a1.journal")
    ...     with JournalWriter(path, {"run": "7f3a"}) as journal:
    ...         journal.append([{"is": "done", "first": 0, "count": 4}])
    ...     print(path.read_text(), end="")
    42510d3c {"is":"journal","format":1,"run":"7f3a"}
    02cbbacb {"is":"done","first":0,"count":4}
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._file = AppendFile(path, _line({"is": "journal", "format": FORMAT, **header}))

    @property
    def size(self) -> int:
        """The length of the journal in bytes."""
        return self._file.size

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records, with one call to the system: all of them, or none. Raises `NoSpace`."""
        self._file.append(b"".join(map(_line, records)))

    def sync(self) -> None:
        """Have the system put it on the disk."""
        self._file.sync()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Journal:
    """Reads a journal, which may still be growing, up to ``end`` bytes (default: all).

    ``header`` is its first record. Raises `RunTooNew` when a newer fanfold wrote it, `RunDamaged`
    when it has no header that can be read.

    When `records` has come to its end, ``damage`` says in sentences what could not be read, and
    ``torn`` whether the last line was one of that: in a journal that is being written the rest of
    it may only be late.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "e0-a1.journal")
    ...     with JournalWriter(path, {"run": "7f3a"}) as writer:
    ...         writer.append([{"is": "done", "first": 0}, {"is": "end", "why": "done"}])
    ...     _ = path.write_bytes(path.read_bytes()[:-5])
    ...     journal = Journal(path)
    ...     print(journal.header["run"], list(journal.records()), journal.damage)
    7f3a [{'is': 'done', 'first': 0}] ['line 3 (byte 83), the last, is torn']
    """

    def __init__(self, path: Path, *, end: int | None = None) -> None:
        self.path = path
        self.damage: list[str] = []
        self.torn = False
        self._end = end
        with self._open() as file:
            self.header = _header(path, file.readline(_HEADER_LIMIT))

    def _open(self) -> BinaryIO:
        return os.fdopen(open_file(self.path), "rb", _BUFFER)

    def records(self) -> Iterator[Record]:
        """The records after the header, in order, without those that are damaged."""
        self.damage, self.torn = [], False
        sieve = _Sieve()
        with self._open() as file:
            sieve.skip(file.readline())
            while lines := _up_to(file.readlines(_BLOCK), sieve.position, self._end):
                records = _all_of(lines)
                if records is not None:
                    sieve.skip(*lines)
                    yield from records
                else:
                    yield from sieve.sift(lines)
        self.damage, self.torn = sieve.damage(), sieve.torn


class _Sieve:
    """Parts whole lines from damaged ones, and keeps count of where it is."""

    def __init__(self) -> None:
        self.position = 0
        self.torn = False
        self._line = 1
        self._damaged: list[tuple[int, int]] = []  # line and byte

    def skip(self, *lines: bytes) -> None:
        self._line += len(lines)
        self.position += sum(map(len, lines))

    def sift(self, lines: list[bytes]) -> Iterator[Record]:
        for line in lines:
            record = _record(line)
            if record is not None:
                yield record
            else:
                self._damaged.append((self._line, self.position))
                self.torn = not line.endswith(b"\n")
            self.skip(line)

    def damage(self) -> list[str]:
        """In sentences; one for damaged lines that follow one another."""
        damaged = self._damaged[:-1] if self.torn else self._damaged
        sentences = []
        begin = 0
        for index, (line, _) in enumerate(damaged, 1):
            if index == len(damaged) or damaged[index][0] != line + 1:
                sentences.append(_sentence(*damaged[begin], line))
                begin = index
        if self.torn:
            line, byte = self._damaged[-1]
            sentences.append(f"line {line} (byte {byte}), the last, is torn")
        return sentences


def _sentence(first: int, byte: int, last: int) -> str:
    if first == last:
        return f"line {first} (byte {byte}) is damaged: what it said is lost"
    return f"lines {first} to {last} (from byte {byte}) are damaged: what they said is lost"


def records_from(path: Path, offset: int) -> tuple[list[Record], int]:
    """The whole valid records of a growing journal from a byte on, and where the next will begin.

    Begin with 0: the first is the header then. Raises `RunDamaged` when there is no such file.
    """
    with os.fdopen(open_file(path), "rb") as file:
        file.seek(offset)
        lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()  # it is being written
    records = [record for line in lines if (record := _record(line)) is not None]
    return records, offset + sum(map(len, lines))


def tail(path: Path, size: int = 1 << 18) -> list[Record]:
    """The whole valid records among the last ``size`` bytes of a journal, in order.

    The header is one of them where the journal is so short. Costs the same for any journal.
    Raises `RunDamaged` when there is no such file.
    """
    lines, _ = _last_lines(path, size)
    return [record for line in lines if (record := _record(line)) is not None]


def newest(path: Path) -> list[Record]:
    """The whole valid records of a journal from its last tally on: what there is to add to that.

    Where there is no tally near the end they are those of the `tail`. It is for who looks often:
    no more is decoded than has to be. Raises `RunDamaged` when there is no such file.
    """
    size, most = _NEWEST
    while True:
        lines, whole = _last_lines(path, size)
        for number in reversed(range(len(lines))):
            if lines[number].startswith(_TALLY, 9) and _record(lines[number]) is not None:
                return [record for line in lines[number:] if (record := _record(line)) is not None]
        if whole or size >= most:
            return tail(path, size)
        size *= 4


def _last_lines(path: Path, size: int) -> tuple[list[bytes], bool]:
    """The lines that begin in the last bytes of a file, and whether those are all of it."""
    descriptor = open_file(path)
    try:
        begin = max(0, os.fstat(descriptor).st_size - size)
        lines = os.pread(descriptor, size + 1, max(0, begin - 1)).splitlines(keepends=True)
    finally:
        os.close(descriptor)
    return (lines[1:], False) if begin else (lines, True)  # the first lacks its begin


def _line(record: Mapping[str, Any]) -> bytes:
    body = _encode(record).encode()
    return b"%08x %b\n" % (crc32(body), body)


def _record(line: bytes) -> Record | None:
    """What a line says; None when it does not match its checksum, as no torn one does."""
    body = line[9:-1]
    try:
        if crc32(body) != int(line[:8], 16):
            return None
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _all_of(lines: list[bytes]) -> list[Record] | None:
    """What lines say, None when any of them is damaged: decoded together, which is fastest."""
    try:
        bodies = [body for line in lines if crc32(body := line[9:-1]) == int(line[:8], 16)]
        records = json.loads(b"[%b]" % b",".join(bodies))
    except (ValueError, RecursionError):
        return None
    whole = len(records) == len(lines) and all(type(record) is dict for record in records)
    return records if whole else None


def _up_to(lines: list[bytes], position: int, end: int | None) -> list[bytes]:
    """Those of the lines from ``position`` on that begin before ``end``; one that ends after it
    is cut there."""
    if end is None or position + sum(map(len, lines)) <= end:
        return lines
    kept = []
    for line in lines:
        if position >= end:
            break
        kept.append(line[: end - position])
        position += len(line)
    return kept


def _header(path: Path, line: bytes) -> Record:
    header = _record(line)
    if header is None or header.get("is") != "journal" or type(header.get("format")) is not int:
        what = "is empty" if not line else "does not begin with the header of a journal"
        raise RunDamaged(f"{path} {what}: what it said is lost")
    if header["format"] > FORMAT:
        raise RunTooNew(path, header["format"], FORMAT)
    return header
