"""Packs: many payloads in one file; see docs/reference/run-directory.md for the format.

Payloads are bytes here. Whoever unpickles them has made sure whose they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, NamedTuple, Self
from zlib import crc32

from fanfold.errors import RunDamaged, RunTooNew
from fanfold.store.files import AppendFile, open_file
from fanfold.store.journal import FORMAT

__all__ = ["Frame", "PackReader", "PackWriter"]

_MAGIC = b"FFP%d" % FORMAT
_START = Struct("<4sI")  # letters, checksum of the rest
_REST = Struct("<QIIQ")  # first task, count, try, length of the payload
_OVERHEAD = _START.size + _REST.size
_READ_LIMIT = 1 << 30  # one read() moves less than 2 GiB


class Frame(NamedTuple):
    """The payload of ``count`` tasks from ``first`` on, at the ``attempt``-th try."""

    first: int
    count: int  # type: ignore[assignment]  # nobody counts in a frame with tuple.count
    attempt: int
    payload: memoryview


class PackWriter:
    """Writes a new pack: the file must not exist, and nobody else writes it.

    ``header`` says whose it is: ``run`` and more. Raises FileExistsError, `NoSpace` and
    `RunReadOnly`.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "e0-a1.pack")
    ...     with PackWriter(path, {"run": "7f3a"}) as writer:
    ...         place = writer.append(first=3, count=1, attempt=1, payload=b"nine")
    ...     with PackReader(path, run="7f3a") as reader:
    ...         bytes(reader.read(place).payload)
    b'nine'
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        payload = json.dumps(dict(header)).encode()
        self._file = AppendFile(path, _start(0, 0, 0, payload) + payload)

    @property
    def size(self) -> int:
        """The length of the pack in bytes."""
        return self._file.size

    def append(
        self, first: int, count: int, attempt: int, payload: bytes | memoryview
    ) -> tuple[int, int]:
        """Write a frame, whole or not at all; returns its place: offset and length in bytes.

        Raises `NoSpace`.
        """
        data = memoryview(payload).cast("B")
        offset = self._file.append(_start(first, count, attempt, data), data)
        return offset, _OVERHEAD + len(data)

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


class PackReader:
    """Reads a pack, from any number of threads; it may still be growing.

    ``run`` is the id of the run that it must belong to. ``descriptor`` is the file where it is
    open already (see `fanfold.store.directory.open_private`); it is closed with the reader.

    ``header`` is what the writer said. ``damage`` says in sentences what `frames` could not read.
    Raises `RunDamaged` when it is no pack of that run, `RunTooNew` when a newer fanfold wrote it.
    """

    def __init__(
        self, path: Path, *, run: str | None = None, descriptor: int | None = None
    ) -> None:
        self.path = path
        self.damage: list[str] = []
        self._descriptor = open_file(path) if descriptor is None else descriptor
        try:
            self._size = os.fstat(self._descriptor).st_size
            self.header, self._begin = self._read_header()
            if run is not None and self.header.get("run") != run:
                raise RunDamaged(
                    f"{path} belongs to the run {self.header.get('run')}, not to {run}: files of "
                    "two runs have been mixed up"
                )
        except BaseException:
            self.close()
            raise

    def read(self, place: Sequence[int], *, expect: tuple[int, int] | None = None) -> Frame:
        """The frame at a place: its offset and length in bytes.

        ``expect`` is the first task and the count that it must have. Raises `RunDamaged`.
        """
        offset, length = place
        if length < _OVERHEAD:
            raise self._damaged(offset, f"{length} bytes are too few for a frame")
        frame = self._frame(offset, self._bytes(offset, length))
        if expect is not None and (frame.first, frame.count) != expect:
            raise self._damaged(
                offset,
                f"it holds {_tasks(frame.first, frame.count)}, and should hold {_tasks(*expect)}",
            )
        return frame

    def frames(self, only: Callable[[int, int], bool] | None = None) -> Iterator[Frame]:
        """Every frame, in order. A torn one at the end ends it, and is told in ``damage``.

        ``only`` says of a first task and a count whether to read that frame.

        Raises `RunDamaged` at a frame that is damaged: where the next begins is not known then.
        """
        self.damage = []
        self._size = os.fstat(self._descriptor).st_size
        offset = self._begin
        while offset < self._size:
            length = self._length(offset)
            if offset + length > self._size:
                self.damage = [f"the frame at byte {offset}, the last, is torn"]
                return
            if only is None or only(*self._tasks(offset)):
                yield self._frame(offset, self._bytes(offset, length))
            offset += length

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read_header(self) -> tuple[dict[str, Any], int]:
        if self._size == 0:
            raise RunDamaged(f"{self.path} is empty")
        length = self._length(0)
        frame = self._frame(0, self._bytes(0, length))
        try:
            header = json.loads(bytes(frame.payload))
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            raise self._damaged(0, "it is not the header of a pack")
        return header, length

    def _length(self, offset: int) -> int:
        """How long the frame that begins there says it is; what is torn is longer than the file."""
        start = os.pread(self._descriptor, _OVERHEAD, offset)
        if not _MAGIC.startswith(start[:4]):
            self._refuse(offset, start)
        if len(start) < _OVERHEAD:
            return _OVERHEAD
        length: int = _REST.unpack_from(start, _START.size)[3]
        return _OVERHEAD + length

    def _tasks(self, offset: int) -> tuple[int, int]:
        """The first task and the count of the frame that begins there, before its check."""
        first, count, _, _ = _REST.unpack(self._bytes(offset + _START.size, _REST.size))
        return first, count

    def _refuse(self, offset: int, start: bytes) -> None:
        number = start[3:4]
        if offset == 0 and start[:3] == _MAGIC[:3] and number.isdigit() and int(number) > FORMAT:
            raise RunTooNew(self.path, int(number), FORMAT)
        raise self._damaged(offset, "no frame begins there")

    def _bytes(self, offset: int, length: int) -> bytes:
        """A part of the file, which must be there: nothing is allocated for what is not."""
        if offset < 0 or offset + length > self._size:
            self._size = os.fstat(self._descriptor).st_size
            if offset < 0 or offset + length > self._size:
                raise self._damaged(
                    offset, f"{length} bytes should be there, and the file has {self._size}"
                )
        parts = []
        while length > 0:
            part = os.pread(self._descriptor, min(length, _READ_LIMIT), offset)
            if not part:
                raise self._damaged(offset, "the file has become shorter")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _frame(self, offset: int, data: bytes) -> Frame:
        magic, checksum = _START.unpack_from(data)
        if magic != _MAGIC:
            self._refuse(offset, data)
        view = memoryview(data)
        first, count, attempt, _ = _REST.unpack_from(data, _START.size)
        if crc32(view[_START.size :]) != checksum:
            raise self._damaged(offset, "it does not match its checksum")
        return Frame(first, count, attempt, view[_OVERHEAD:])

    def _damaged(self, offset: int, reason: str) -> RunDamaged:
        return RunDamaged(f"the frame at byte {offset} of {self.path} is damaged: {reason}")


def _start(first: int, count: int, attempt: int, payload: bytes | memoryview) -> bytes:
    """All of a frame that comes before its payload."""
    rest = _REST.pack(first, count, attempt, len(payload))
    return _START.pack(_MAGIC, crc32(payload, crc32(rest))) + rest


def _tasks(first: int, count: int) -> str:
    return f"task {first}" if count == 1 else f"tasks {first} to {first + count - 1}"
