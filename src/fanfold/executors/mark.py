"""What a worker process does now, in a page that it shares with the driver."""

from __future__ import annotations

import mmap
import os

__all__ = ["IDLE", "LOAD", "RUN", "SEND", "Mark", "new_mark"]

IDLE, LOAD, RUN, SEND = range(4)


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

    def close(self) -> None:
        self._fields.release()

    def read(self) -> tuple[int, int, int, float, int]:
        """(shipment, offset, count, began, phase)"""
        shipment, offset, count, began, phase = self._fields[:5]
        return int(shipment), int(offset), int(count), began, int(phase)
