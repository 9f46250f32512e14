"""Messages between ranks: a header and a parcel, sent without waiting.

A message of MPI with the header tells the lengths of the parts that follow, each for itself, from
memory into memory. MPI moves nothing while nobody calls it, so whoever has letters under way keeps
calling `poll`; and nobody may sleep in MPI's own waits, most of which burn a core.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fanfold.executors.remote.errand import Buffer, Parcel

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm, Request

__all__ = ["Letter", "Mail", "pause"]

_HEAD, _BODY = 1, 2  # tags
_SMALL = 1 << 14  # bytes; smaller parts travel in the header
_PIECE = 1 << 30  # bytes in one message of MPI, whose counts may have 32 bits

Letter = tuple[int, Any, Parcel]


def pause(idle: float) -> float:
    """How long to sleep after ``idle`` seconds in which nothing came: none at first, and 5 ms in
    the end, which costs under a hundredth of a core.

    >>> pause(0.0), pause(0.02), pause(60.0)
    (0.0, 0.001, 0.005)
    """
    return min(0.005, idle / 20)


class Mail:
    """What one rank sends to others, and what comes for it."""

    def __init__(self, world: Intracomm) -> None:
        self._world = world
        self._under_way: list[tuple[Request, Buffer]] = []  # a buffer lives until it has left

    def send(self, rank: int, header: object, parcel: Parcel) -> None:
        """Send a letter to a rank; returns at once."""
        large = [part for part in parcel if len(part) >= _SMALL]
        small = [None if len(part) >= _SMALL else bytes(part) for part in parcel]
        head = pickle.dumps((header, small, [len(part) for part in large]), 5)
        self._post(rank, head, _HEAD)
        for part in large:
            for piece in _pieces(part):
                self._post(rank, piece, _BODY)

    def _post(self, rank: int, buffer: Buffer, tag: int) -> None:
        self._under_way.append((self._world.Isend(buffer, rank, tag), buffer))

    def poll(self) -> Letter | None:
        """The next letter, with the rank it is from; None when there is none."""
        self._under_way = [pair for pair in self._under_way if not pair[0].Test()]
        from mpi4py import MPI

        status = MPI.Status()
        if not self._world.Iprobe(tag=_HEAD, status=status):
            return None
        rank = status.Get_source()
        head = bytearray(status.Get_count())
        self._world.Recv(head, rank, _HEAD)
        header, small, lengths = pickle.loads(head)
        large = iter([self._receive(rank, length) for length in lengths])
        return rank, header, [next(large) if part is None else part for part in small]

    def _receive(self, rank: int, length: int) -> bytearray:
        part = bytearray(length)
        for piece in _pieces(part):
            self._world.Recv(piece, rank, _BODY)
        return part

    @property
    def busy(self) -> bool:
        """Are letters under way, which only `poll` moves?"""
        return bool(self._under_way)


def _pieces(part: Buffer) -> Iterator[memoryview]:
    view = memoryview(part)
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]
