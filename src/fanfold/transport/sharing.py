"""The same array passed to many tasks is stored once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import cache
from pickle import PickleBuffer
from typing import Any

from fanfold.transport.segments import Segment, attach, release

__all__ = ["SharedBuffers"]


class _Entry:
    """An array that has been stored: how often, by how many that still travel, and where."""

    __slots__ = ("owner", "segment", "users", "uses")

    def __init__(
        self, owner: weakref.ref[Any], users: int = 0, segment: Segment | None = None
    ) -> None:
        self.owner = owner
        self.uses = 0
        self.users = users
        self.segment = segment


class SharedBuffers:
    """The segments of arrays that may be passed again.

    An array seen once is freed with its last user. One seen twice stays while it lives, so that
    many tasks over it share one copy. A change to it between two uses is noticed (the copy is
    compared) unless ``stable`` promises that there is none.
    """

    def __init__(self, put: Callable[[memoryview], Segment], *, stable: bool = False) -> None:
        self._put = put
        self._stable = stable
        self._lock = threading.RLock()
        self._entries: dict[int, _Entry] = {}
        self._users: dict[str, _Entry] = {}

    def share(self, buffer: PickleBuffer) -> Segment:
        """The segment of a buffer, now or earlier stored; `done` takes it back."""
        raw = buffer.raw()
        with self._lock:
            entry = self._entry(memoryview(buffer).obj)
            if entry is None:
                return self._put(raw)
            if entry.segment is not None and not (self._stable or _equal(raw, entry.segment)):
                self._retire_copy(entry)
            if entry.segment is None:
                entry.segment = self._put(raw)
            entry.uses += 1
            entry.users += 1
            self._users[entry.segment.path] = entry
            return entry.segment

    def _entry(self, owner: Any) -> _Entry | None:
        key = id(owner)
        known = self._entries.get(key)
        if known is not None and known.owner() is owner:
            return known
        try:
            reference = weakref.ref(owner, lambda _: self._owner_died(key))
        except TypeError:  # bytes and the like cannot be followed
            return None
        self._entries[key] = entry = _Entry(reference)
        return entry

    def _owner_died(self, key: int) -> None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.owner() is None:
                del self._entries[key]
                if not entry.users:
                    self._forget(entry)

    def _retire_copy(self, entry: _Entry) -> None:
        """The array has changed: its old copy stays for those who travel with it, no longer."""
        old = _Entry(entry.owner, users=entry.users, segment=entry.segment)
        entry.segment, entry.users = None, 0
        if old.users and old.segment is not None:
            self._users[old.segment.path] = old
        else:
            self._forget(old)

    def _forget(self, entry: _Entry) -> None:
        """Drop the name of the stored copy; who has it mapped keeps it."""
        if entry.segment is not None:
            self._users.pop(entry.segment.path, None)
            release(entry.segment)
            entry.segment, entry.users = None, 0

    def done(self, segment: Segment) -> None:
        """One user of a segment has finished."""
        with self._lock:
            entry = self._users.get(segment.path)
            if entry is None:
                release(segment)
                return
            entry.users -= 1
            if not entry.users and (entry.uses < 2 or entry.owner() is None):
                self._forget(entry)

    def close(self) -> None:
        """Free everything."""
        with self._lock:
            for entry in [*self._entries.values(), *self._users.values()]:
                self._forget(entry)
            self._entries.clear()


@cache
def _memcmp() -> Any:
    import ctypes

    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return compare


def _equal(raw: memoryview, segment: Segment) -> bool:
    import numpy as np

    if raw.nbytes != segment.size:
        return False
    arrays = [np.frombuffer(view, np.uint8) for view in (raw, attach(segment))]
    return bool(_memcmp()(arrays[0].ctypes.data, arrays[1].ctypes.data, segment.size) == 0)
