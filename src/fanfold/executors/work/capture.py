"""What the tasks of a worker process print goes into the log files of their call.

Descriptors 1 and 2 lead there while a shipment of the call runs, so what C code, crash handlers
and started programs write is caught too. What a task does to them (it may close them, or lead them
elsewhere) is mended before the next task.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import sys
import warnings
from contextlib import suppress
from time import perf_counter
from typing import TextIO

from fanfold.executors.work.evidence import LOG_FORMAT, Log, Tracker
from fanfold.executors.work.mark import Mark
from fanfold.executors.work.memory import ProcessMeter
from fanfold.executors.work.standard import fill_standard_descriptors, flush
from fanfold.tasks import LogRange

__all__ = ["Inherited", "Witness", "Witnesses"]

#: The ``sys.stdout`` and ``sys.stderr`` that a worker began with.
Inherited = tuple[TextIO | None, TextIO | None]

_formatter = logging.Formatter(LOG_FORMAT)


class Witness:
    """Takes the evidence of a call in a worker process.

    Where the log cannot be opened the tasks run all the same, and their output goes where it goes
    without.
    """

    def __init__(self, prefix: str, worker: str, mark: Mark, inherited: Inherited) -> None:
        self._mark = mark
        self._capture: _Capture | None = None
        with suppress(OSError):
            fill_standard_descriptors()
            self._capture = _Capture(prefix, worker, mark, inherited)
        self._meter = ProcessMeter()

    def tracker(self, first: int) -> Tracker:
        """The tracker of a runner whose first task has the index ``first``."""
        return Tracker(first, self._meter, self._capture)

    def enter(self) -> None:
        """From now on, output goes to the log."""
        if self._capture is not None:
            self._capture.enter()

    def attend(self) -> None:
        """A shipment begins: what it prints, while it is loaded too, is of its first task."""
        if self._capture is not None:
            with suppress(OSError):  # a task has closed what was not its own
                self._capture.tell(inside=False)  # what was there before is of no task
        self._mark.attended(perf_counter(), self._capture is not None)

    def leave(self) -> None:
        """Output goes where it went before."""
        if self._capture is not None:
            self._capture.leave()

    def close(self) -> None:
        self._meter.close()
        if self._capture is not None:
            self._capture.close()


class Witnesses:
    """The witnesses of all calls that a worker knows. At most one is there: it stays, for the next
    shipment of its call, until there is one of another call."""

    def __init__(self, worker: str, mark: Mark, inherited: Inherited) -> None:
        self._of_this_worker = worker, mark, inherited
        self._known: dict[int, Witness] = {}
        self._there: Witness | None = None

    def attend(self, call: int, prefix: str | None) -> Witness | None:
        """A shipment of a call begins; its witness. None where the call asks for no evidence."""
        witness = None
        if prefix is not None:
            witness = self._known.get(call)
            if witness is None:
                witness = self._known[call] = Witness(prefix, *self._of_this_worker)
        if witness is not self._there:
            self._switch_to(witness)
        if witness is not None:
            witness.attend()
        return witness

    def _switch_to(self, witness: Witness | None) -> None:
        if self._there is not None:
            self._there.leave()
        if witness is not None:
            witness.enter()
        self._there = witness

    def forget(self, call: int) -> None:
        """The call is over."""
        witness = self._known.pop(call, None)
        if witness is not None:
            if witness is self._there:
                self._switch_to(None)
            witness.close()


class _Capture(Log):
    """The log of a worker process, and its output led there from `enter` to `leave`."""

    def __init__(self, prefix: str, worker: str, mark: Mark, inherited: Inherited) -> None:
        super().__init__(prefix, worker)
        self._mark = mark
        self._streams = (
            _Stream(1, "stdout", self.out, inherited[0]),
            _Stream(2, "stderr", self.err, inherited[1]),
        )

    def enter(self) -> None:
        _flush_c_output()
        for stream in self._streams:
            stream.enter()
        _format_last_resort(_formatter)
        _show_warnings_again()

    def leave(self) -> None:
        _flush_c_output()
        _format_last_resort(None)
        for stream in self._streams:
            stream.leave()

    def settle(self) -> None:
        _flush_c_output()
        for stream in self._streams:
            stream.mend()

    def tell(self, inside: bool) -> LogRange:
        part = super().tell(inside)
        self._mark.told(part)
        if inside:
            _show_warnings_again()
        return part


class _Stream:
    """A standard stream: descriptor ``number``, and ``sys.<name>``, which should write there."""

    def __init__(self, number: int, name: str, log: int, inherited: TextIO | None) -> None:
        self._number = number
        self._name = name
        self._log = log
        self._inherited = inherited
        self._file = _identity(log)
        self._own: TextIO | None = None
        self._before = -1  # the descriptor's copy while it leads to the log

    def enter(self) -> None:
        stream = getattr(sys, self._name)
        flush(stream)
        self._before = _duplicate(self._number)
        if self._before < 0:
            return
        _lead(self._number, self._log)
        self._stream_before = stream
        if not self._writes_here(stream):
            self._use_own()
        # A task that is killed flushes nothing: its last lines should be in the log.
        self._in_lines = isinstance(stream, io.TextIOWrapper) and not stream.line_buffering
        if self._in_lines:
            _buffer_lines(stream, True)

    def leave(self) -> None:
        if self._before < 0:
            return
        stream = getattr(sys, self._name)
        flush(stream)
        if self._in_lines:
            _buffer_lines(self._stream_before, False)
        if stream is self._own:
            setattr(sys, self._name, self._stream_before)
        _lead(self._number, self._before)
        with suppress(OSError):
            os.close(self._before)

    def mend(self) -> None:
        """Flush, and undo what a task has done to the descriptor, or that it closed the stream."""
        if not flush(getattr(sys, self._name)):
            self._use_own()
        if self._before >= 0 and _identity(self._number) != self._file:
            _lead(self._number, self._log)

    def _writes_here(self, stream: TextIO | None) -> bool:
        """Another than the inherited one is what the user's code has put there: so be it."""
        if stream is None or not flush(stream):
            return False
        if stream is not self._inherited:
            return True
        with suppress(OSError, ValueError):
            return bool(stream.fileno() == self._number)
        return False

    def _use_own(self) -> None:
        if self._own is None or self._own.closed:
            self._own = open(  # noqa: SIM115 - it is used until the worker ends
                self._number, "w", 1, "utf-8", "backslashreplace", closefd=False
            )
        setattr(sys, self._name, self._own)


def _buffer_lines(stream: io.TextIOWrapper, lines: bool) -> None:
    with suppress(Exception):  # it has been closed or detached meanwhile; or the disk is full
        stream.reconfigure(line_buffering=lines)


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Which file it leads to; None when it is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _lead(number: int, descriptor: int) -> None:
    """Have descriptor ``number`` lead to the same file as another."""
    with suppress(OSError):  # a task has closed what was not its own
        os.dup2(descriptor, number)


def _duplicate(number: int) -> int:
    """Another descriptor for the same file; -1 where there can be no more."""
    with suppress(OSError):
        if _identity(number) is None:
            fill_standard_descriptors()
        return os.dup(number)
    return -1


def _format_last_resort(formatter: logging.Formatter | None) -> None:
    """How log records look that no handler of the user's takes; set to None, as always."""
    handler = logging.lastResort
    if handler is not None and handler.formatter in (None, _formatter):
        handler.setFormatter(formatter)


def _show_warnings_again() -> None:
    """Show warnings that have been shown: each once a task and place, not once a process."""
    with warnings.catch_warnings():
        pass  # to enter and leave makes Python forget what it has shown, and changes nothing else


_libc = ctypes.CDLL(None)


def _c_output() -> ctypes.c_void_p | None:
    for name in ("stdout", "__stdoutp"):  # as Linux, as macOS names it
        with suppress(ValueError):
            return ctypes.c_void_p.in_dll(_libc, name)
    return None


_c_stdout = _c_output()


def _flush_c_output() -> None:
    """Flush C's standard output; its standard error is not buffered."""
    if _c_stdout is not None:
        _libc.fflush(_c_stdout)
