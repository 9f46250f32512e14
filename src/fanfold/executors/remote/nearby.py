"""Large parts of parcels, kept where workers of the same machine find them: a copy less."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fanfold.errors import NoSpace
from fanfold.executors.remote.errand import Buffer, Parcel, copied
from fanfold.transport.pickling import THRESHOLD
from fanfold.transport.segments import Segment, attach, process_folder, release

__all__ = ["Nearby", "Stored", "fetched"]


class Stored(NamedTuple):
    """A parcel: the parts ``near`` are in segments, by their places, and ``parcel`` is the rest,
    with nothing there. ``made`` are the segments to release when the errand is done."""

    near: dict[int, Segment]
    parcel: Parcel
    made: list[Segment]


class Nearby:
    """What a driver keeps in segments for the workers of its machine."""

    def __init__(self) -> None:
        self._copies: dict[int, Segment] = {}  # by the identity of the mapping

    def copy(self, view: memoryview) -> Buffer:
        """The same bytes elsewhere: in a segment, where one can be had, which goes with them."""
        if view.nbytes >= THRESHOLD:
            with contextlib.suppress(NoSpace):
                segment = process_folder().put(view)
                copy = attach(segment)
                key = id(copy.obj)
                self._copies[key] = segment
                weakref.finalize(copy.obj, self._forget, key, os.getpid()).atexit = False
                return copy
        return copied(view)

    def _forget(self, key: int, owner: int) -> None:
        segment = self._copies.pop(key)
        if os.getpid() == owner:  # a forked process ends its copy of the mapping, and no more
            release(segment)

    def store(self, parcel: Parcel) -> Stored:
        """Put large parts where workers of this machine find them; without room they travel."""
        stored = Stored({}, list(parcel), [])
        with contextlib.suppress(NoSpace):
            for place, part in enumerate(parcel):
                view = memoryview(part)
                segment = self._copies.get(id(view.obj))
                if segment is None and view.nbytes >= THRESHOLD:
                    segment = process_folder().put(view)
                    stored.made.append(segment)
                if segment is not None:
                    stored.near[place] = segment
                    stored.parcel[place] = b""
        return stored


def fetched(near: Mapping[int, Segment], parcel: Iterable[Buffer]) -> Parcel:
    """In a worker: the parcel, whole again."""
    return [attach(near[place]) if place in near else part for place, part in enumerate(parcel)]
