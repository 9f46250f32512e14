"""What tasks print that share their process with others: threads, or the caller's own.

While a call with evidence runs, ``sys.stdout`` and ``sys.stderr`` are streams that look who writes:
what the thread of a task writes goes to its log, everything else where it went before. Only what
goes through these two names is caught. Descriptors 1 and 2 belong to the whole process: what C code
and started programs write there is not, nor what threads print that a task has started.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from fanfold.executors.work.evidence import LOG_FORMAT, Log, Tracker, thread_meter
from fanfold.executors.work.standard import flush

__all__ = ["ThreadWitness", "ThreadWitnesses", "routed"]


class ThreadWitness:
    """Takes the evidence of a worker's tasks; what this thread prints goes to the log while it is
    entered.

    Where the log cannot be opened the tasks run all the same, and print as they would without.
    """

    def __init__(self, prefix: str, worker: str) -> None:
        self._log: _ThreadLog | None = None
        self._outer: _ThreadLog | None = None
        with suppress(OSError):
            self._log = _ThreadLog(prefix, worker)

    def tracker(self, first: int) -> Tracker:
        """The tracker of a runner whose first task has the index ``first``."""
        return Tracker(first, thread_meter, self._log)

    def __enter__(self) -> None:
        self._outer, _here.log = _here.log, self._log

    def __exit__(self, *error: object) -> None:
        _here.log = self._outer

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


class ThreadWitnesses:
    """The witnesses of a call's workers; their logs stay open until it is over."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._idle: dict[str, ThreadWitness] = {}
        self._closed = False

    @contextmanager
    def of(self, worker: str) -> Iterator[ThreadWitness]:
        """The witness of a worker, entered."""
        with self._lock:
            witness = self._idle.pop(worker, None)
        witness = witness or ThreadWitness(self._prefix, worker)
        try:
            with witness:
                yield witness
        finally:
            with self._lock:
                over = self._closed
                if not over:
                    self._idle[worker] = witness
            if over:  # a task that was left behind has ended
                witness.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle = list(self._idle.values())
            self._idle.clear()
        for witness in idle:
            witness.close()


class _ThreadLog(Log):
    def __init__(self, prefix: str, worker: str) -> None:
        super().__init__(prefix, worker)
        self.streams = {"stdout": _stream(self.out), "stderr": _stream(self.err)}

    def settle(self) -> None:
        for stream in self.streams.values():
            flush(stream)

    def close(self) -> None:
        for stream in self.streams.values():
            with suppress(OSError):  # the disk is full
                stream.close()


def _stream(descriptor: int) -> TextIO:
    return open(descriptor, "w", 1, "utf-8", "backslashreplace")


class _Here(threading.local):
    """The log of the task that this thread runs."""

    log: _ThreadLog | None = None


_here = _Here()


class _Router:
    """Stands for a standard stream. It is never cut off: who keeps it finds the way as before."""

    def __init__(self, name: str, original: TextIO) -> None:
        self._name = name
        self.original = original

    def _now(self) -> TextIO:
        log = _here.log
        return self.original if log is None else log.streams[self._name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now(), name)

    def close(self) -> None:
        """As in a process: a task that closes its output must not close that of the next one."""
        if _here.log is None:
            self.original.close()


class _Formatter(logging.Formatter):
    """Of log records that no handler of the user's takes: as always, but for those of tasks."""

    def format(self, record: logging.LogRecord) -> str:
        return _plain.format(record) if _here.log is None else super().format(record)


_plain = logging.Formatter()
_formatter = _Formatter(LOG_FORMAT)
_lock = threading.Lock()
_users = 0


@contextmanager
def routed() -> Iterator[None]:
    """While it is entered, what tasks print goes to their logs; by several threads at once."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _install()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _restore()


def _install() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:  # a program without a console
            setattr(sys, name, _Router(name, stream))
    handler = logging.lastResort
    if handler is not None and handler.formatter is None:
        handler.setFormatter(_formatter)


def _restore() -> None:
    """As it was before, except where somebody else has put something there meanwhile."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Router):
            setattr(sys, name, stream.original)
    handler = logging.lastResort
    if handler is not None and handler.formatter is _formatter:
        handler.setFormatter(None)
