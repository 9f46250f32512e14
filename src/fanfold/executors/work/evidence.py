"""What is known of tasks beside their results: when they ran, what they used, what they printed.

A `Tracker` goes with a `Runner` and makes a piece of `Evidence` of what has run since the last
one: a task, or a slice of tiny ones. A `Log` is where a worker's output goes meanwhile: see
`fanfold.executors.work.capture` for processes, and `fanfold.executors.work.streams` for threads.
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import get_ident
from time import perf_counter, thread_time, time
from typing import Protocol

from fanfold.executors.work.mark import Started
from fanfold.tasks import Evidence, LogRange, log_paths

__all__ = ["LOG_FORMAT", "Log", "Meter", "Tracker", "thread_meter", "unfinished"]

#: How log records look where the user has not configured logging.
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


_TINY = 5e-5  # seconds; shorter tasks that print nothing are told together
_UNSEEN = 5e-6  # seconds; until one has printed, nobody looks whether shorter ones do, one by one
_TOGETHER = 1e-3  # seconds that tiny tasks take together, at most about


class Meter(Protocol):
    """CPU time so far in seconds, and the peak memory since the last call in bytes.

    None is not known; ``inside`` is false in another thread than the one that runs the tasks.
    """

    def __call__(self, inside: bool) -> tuple[float | None, int | None]: ...


class Log:
    """A worker's two log files, and what of them has been told. Raises `OSError`.

    ``printed`` says whether any task has printed something.
    """

    def __init__(self, prefix: str, worker: str) -> None:
        self.printed = False
        out, err = log_paths(prefix, worker)
        self.out = _open(out)
        try:
            self.err = _open(err)
        except OSError:
            os.close(self.out)
            raise
        self._told = self._ends()

    def _ends(self) -> tuple[int, int]:
        """How long they are."""
        return os.lseek(self.out, 0, os.SEEK_END), os.lseek(self.err, 0, os.SEEK_END)

    def settle(self) -> None:
        """Have in them what has been printed, and make ready for the next task."""

    def grown(self) -> bool:
        """Is there more than has been told?"""
        with suppress(OSError):  # a task has closed what was not its own
            return self._ends() != self._told
        return False

    def tell(self, inside: bool) -> LogRange:
        """What has not been told; ``inside`` as for a `Meter`."""
        part = self.so_far()
        self._told = part.out_end, part.err_end
        return part

    def nothing(self) -> LogRange:
        """A part without a byte, where the next one begins."""
        out, err = self._told
        return LogRange(out, out, err, err)

    def so_far(self) -> LogRange:
        """What `tell` would tell now."""
        (out, err), (out_end, err_end) = self._told, self._ends()
        return LogRange(out, max(out, out_end), err, max(err, err_end))

    def close(self) -> None:
        for descriptor in (self.out, self.err):
            with suppress(OSError):
                os.close(descriptor)


def _open(path: str) -> int:
    """A descriptor that appends to a file, which is made where there is none."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o600)
    with suppress(OSError):  # somebody else's, but we may write
        os.fchmod(descriptor, 0o600)  # whatever the umask
    return descriptor


class Tracker:
    """Records the tasks of a runner, from task ``first`` on.

    A task has a piece of its own, unless it is tiny and prints nothing: such ones are told
    together. But for `begin`, only one thread may call at a time: the runner sees to that.
    """

    def __init__(self, first: int, meter: Meter, log: Log | None = None) -> None:
        self._meter = meter
        self._log = log
        self._pieces: list[Evidence] = []
        self._next = first  # no piece tells of it, nor of those after it
        self._quiet = first  # those between ``_next`` and it were tiny, and wait to be told of
        self._unseen = False  # nobody has looked whether they printed something
        self._thread = 0

    @property
    def printed(self) -> bool:
        """Has any task of the call printed something here?"""
        return self._log is not None and self._log.printed

    def begin(self) -> None:
        """The next task is about to run, in this thread."""
        self._thread = get_ident()
        self._cpu, _ = self._meter(True)
        self._start()

    def _start(self) -> None:
        self._began = time()
        self._since = self._last = perf_counter()  # the last time a task is known to have ended

    def end(self, stop: int) -> None:
        """A task has run, the one before ``stop``."""
        now = perf_counter()
        seconds = now - self._last
        unseen = seconds < _UNSEEN and not self.printed
        printed = not unseen and self._settle()
        if seconds >= _TINY or printed:
            if not (printed and self._unseen):
                self._tell_quiet()
            self._tell(stop, now)
            return
        self._quiet, self._last, self._unseen = stop, now, unseen
        if now - self._since >= _TOGETHER:
            self._tell(stop, now)

    def end_slice(self, stop: int) -> None:
        """Tasks have run, up to ``stop``, so tiny that they were not looked at one by one."""
        if stop > self._next:
            self._unseen = True
            self._tell(stop, perf_counter())

    def _settle(self) -> bool:
        """Has something been printed? It is in the log then."""
        if self._log is None:
            return False
        self._log.settle()
        return self._log.grown()

    def _tell_quiet(self) -> None:
        """A piece for the quiet ones alone: what they used cannot be told from what came after."""
        if self._quiet > self._next:
            log = None
            if self._log is not None and not (self._unseen and self._log.grown()):
                log = self._log.nothing()
            count, seconds = self._quiet - self._next, self._last - self._since
            self._pieces.append(Evidence(self._next, count, self._began, seconds, None, None, log))
            self._next, self._began, self._since = self._quiet, self._began + seconds, self._last
            self._unseen = False

    def _tell(self, stop: int, now: float) -> None:
        """A piece for all of which none tells, up to ``stop``; the last of them ended ``now``."""
        inside = get_ident() == self._thread
        if inside and self._unseen:
            self._settle()
        self._unseen = False
        cpu, peak = self._meter(inside)
        used = None if cpu is None or self._cpu is None else cpu - self._cpu
        log = self._part(inside)
        count, seconds = stop - self._next, now - self._since
        self._pieces.append(Evidence(self._next, count, self._began, seconds, used, peak, log))
        self._next = self._quiet = stop
        self._cpu = cpu
        self._start()

    def _part(self, inside: bool) -> LogRange | None:
        if self._log is None:
            return None
        try:
            part = self._log.tell(inside)
        except OSError:
            self._log = None
            return None
        self._log.printed |= part.out_end > part.out or part.err_end > part.err
        return part

    def take(self, stop: int) -> list[Evidence]:
        """The pieces that have not been taken; together they tell of the tasks up to ``stop``."""
        if stop > self._quiet:  # it is asked in the middle of a slice
            self._tell(stop, perf_counter())
        elif get_ident() != self._thread:  # another task runs
            self._tell_quiet()
        elif stop > self._next:
            self._tell(stop, self._last)
        taken, self._pieces = self._pieces, []
        return taken

    def unfinished(self, index: int) -> Evidence:
        """The evidence, so far, of the task that runs now; for another thread."""
        began, seconds = self._began + self._last - self._since, perf_counter() - self._last
        log = None if self._log is None else self._log.so_far()
        return Evidence(index, 1, began, seconds, None, None, log)


def thread_meter(inside: bool) -> tuple[float | None, int | None]:
    """The `Meter` of tasks that share their process with others."""
    return (thread_time() if inside else None), None


def unfinished(
    index: int, started: Started, prefix: str, worker: str, peak_memory: int | None
) -> Evidence:
    """The evidence of a task whose worker ended before it did: the rest of the log is its own."""
    seconds = perf_counter() - started.began
    log = None
    if started.has_log:
        with suppress(OSError):
            out_end, err_end = (os.stat(path).st_size for path in log_paths(prefix, worker))
            log = LogRange(started.out, out_end, started.err, err_end)
    return Evidence(index, 1, time() - seconds, seconds, None, peak_memory, log)
