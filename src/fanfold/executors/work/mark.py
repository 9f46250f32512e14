"""What a worker process does now, in a page that it shares with the driver."""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

from fanfold.tasks import LogRange

__all__ = ["IDLE", "LOAD", "RUN", "SEND", "Mark", "Started", "new_mark"]

IDLE, LOAD, RUN, SEND = range(4)


class Started(NamedTuple):
    """When a task began (by perf_counter), and how long its worker's log files were then."""

    began: float
    has_log: bool
    out: int
    err: int


def new_mark() -> tuple[int, Mark]:
    """A fresh page for a worker's mark: its descriptor, to be passed on, and our view of it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("fanfold-mark", os.MFD_CLOEXEC)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, mmap.PAGESIZE)
    return descriptor, Mark(descriptor)


class Mark:
    """A page shared with the driver that says what the worker does now.

    The driver reads it when the worker has died, to name the guilty task, and to time tasks. Plain
    stores, no locks: ``began`` is written before the task it belongs to.
    """

    def __init__(self, descriptor: int) -> None:
        self._fields = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("d")

    def phase(self, phase: int, shipment: int = 0) -> None:
        fields = self._fields
        fields[4] = phase
        fields[0] = shipment

    def packing(self, shipment: int) -> None:
        """The watching thread packs results of a shipment now, beside what runs; 0: it does not."""
        self._fields[5] = shipment

    def packed_now(self) -> int:
        """The shipment given to `packing`."""
        return int(self._fields[5])

    def running(self, offset: int, count: int, began: float) -> None:
        fields = self._fields
        fields[3] = began
        fields[1] = offset
        fields[2] = count
        fields[4] = RUN

    def attended(self, now: float, has_log: bool) -> None:
        """The worker begins with a shipment, whose output goes into log files, if it has them."""
        self._fields[3] = now
        self._fields[10] = has_log

    def told(self, log: LogRange) -> None:
        """A part of the log files has been told of: of the task that ran, the next one begins."""
        fields = self._fields
        fields[6], fields[8], fields[7], fields[9] = log

    def started(self) -> Started:
        """When the task that runs, or else the one whose result is sent, was begun."""
        fields = self._fields
        place = 6 if fields[4] == SEND else 8
        return Started(fields[3], bool(fields[10]), int(fields[place]), int(fields[place + 1]))

    def found(self, born: int, found: int) -> None:
        """What memory the worker was born with, and what it had when its task began, in bytes."""
        self._fields[11], self._fields[12] = born, found

    def memory_found(self) -> tuple[int, int]:
        """The two numbers given to `found`."""
        return int(self._fields[11]), int(self._fields[12])

    def close(self) -> None:
        self._fields.release()

    def read(self) -> tuple[int, int, int, float, int]:
        """(shipment, offset, count, began, phase)"""
        shipment, offset, count, began, phase = self._fields[:5]
        return int(shipment), int(offset), int(count), began, int(phase)
