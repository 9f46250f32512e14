"""A thread that looks how tasks use the machine: cores, and the interpreter's lock."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from resource import RUSAGE_CHILDREN, getrusage
from time import perf_counter
from typing import ClassVar

from fanfold.executors.work.joining import join
from fanfold.executors.work.runner import Runner

__all__ = ["WATCHING", "Hurry", "Watch", "Window", "programs_since", "wanted_time"]

WATCHING = "fanfold-auto"  # the name of the thread
_TICK, _LONGEST = 0.001, 0.02  # seconds between two looks: ever more
_IDLE_TICK = 0.1  # where there is nothing to see
_SWITCH = 2e-4  # seconds after which a thread lets another have the lock, in a hurry
_LOOKING = 0.003  # the same while a look waits: usually 5 ms, and it has seen enough before
_BUSY = 0.7  # of the time between two looks
_LATE = 0.002  # seconds by which a look is late when somebody holds the interpreter's lock


class Window:
    """What was seen in a while: ``wall`` seconds of ``cpu`` seconds of work, in which the caller's
    thread ``queued`` for a core; ``late`` of so many ``looks`` found the lock held."""

    def __init__(self) -> None:
        self.wall = self.cpu = self.queued = 0.0
        self.looks = self.late = 0


class Watch:
    """Looks at the thread that calls `begin` and `end`, and calls ``turn`` after each look with
    the seconds that the task there has taken so far (None: none runs).

    It is ``resting`` while all tasks run in other programs: a look would only take a core from
    them, and slow what runs there next."""

    def __init__(self, turn: Callable[[float | None], None]) -> None:
        self.window = Window()
        self._turn = turn
        self._running: Runner | None = None
        self._turns = 0  # in which it ran, and that have ended
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._caller = _ThreadClock()
        self._own: _ThreadClock | None = None
        self._lock = threading.Lock()
        self._counted = (0.0, 0.0, 0.0)
        self._queued = self._caller.times()[1]
        self._began = perf_counter()
        self._rarely = False
        self.resting = False
        self._hurry = Hurry()  # but for the moment in which a look waits
        self._looking = Hurry(_LOOKING)  # while the caller's thread runs tasks

    def begin(self, runner: Runner, *, rarely: bool = False) -> None:
        """A runner begins to run in the thread that calls; a look costs it some 0.1 ms, so that
        ``rarely`` only long tasks are looked at."""
        self._rarely = rarely
        self._running = runner  # the first look counts
        self._looking.begin()
        if self._thread is None:
            self._hurry.begin()
            self._thread = threading.Thread(target=self._main, name=WATCHING, daemon=True)
            self._thread.start()
            self._queued = self._caller.times()[1]  # to start it may have taken a while
        self._counted = self._times()

    def end(self) -> None:
        """It runs no more."""
        self._looking.end()
        self._running = None
        self._turns += 1
        self.count()

    @property
    def running(self) -> bool:
        """Does the caller's thread run tasks?"""
        return self._running is not None

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            join(self._thread)
        self._hurry.end()  # the thread does it, if it has begun
        self._looking.end()
        self._caller.close()

    def calm(self) -> None:
        """The rest of this look is in no hurry: many threads would take turns too often."""
        self._hurry.end()

    def renew(self) -> None:
        """Forget what was seen: something else begins now."""
        self._queued = self._caller.times()[1]
        self.window = Window()

    def count(self) -> None:
        """Bring the window up to now.

        Nothing here lets go of the interpreter's lock: a look that waits for it must not find it
        free only because a turn is over.
        """
        with self._lock:
            now = self._times()
            wall, program, caller = (new - old for new, old in zip(now, self._counted, strict=True))
            self.window.wall += wall
            self.window.cpu += max(program, caller)
            self._counted = now

    def _times(self) -> tuple[float, float, float]:
        """What time it is, and how much the program, without this watch, and the caller's thread
        have used: the kernel brings the first up to date at each tick, some milliseconds late."""
        watching = 0.0 if self._own is None else self._own.used()
        return perf_counter(), cpu_time() - watching, self._caller.used()

    def count_queue(self, queued: float | None = None) -> None:
        """Bring the time in which the caller's thread queued up to now."""
        with self._lock:
            queued = self._caller.times()[1] if queued is None else queued
            self.window.queued += queued - self._queued
            self._queued = queued

    def _main(self) -> None:
        try:
            with closing(_ThreadClock()) as self._own:
                while not self._stopped.is_set():
                    self._look(self._own)
        finally:
            self._hurry.end()

    def _look(self, own: _ThreadClock) -> None:
        self._hurry.begin()
        runner, turns = self._running, self._turns
        before, began = self._caller.times(), perf_counter()
        tick = min(_LONGEST, max(_TICK, (perf_counter() - self._began) / 16))
        tick = _LONGEST if self._rarely else tick
        tick = _IDLE_TICK if self.resting and runner is None else tick
        late = self._lateness(own, tick) > _LATE
        since = 0.0 if runner is None or runner is not self._running else runner.began
        running = perf_counter() - since if since else None
        if self._stopped.is_set() or (self._rarely and (running or 0.0) < _LONGEST):
            return
        after = self._caller.times()
        used, queued = (now - then for now, then in zip(after, before, strict=True))
        busy = used / (perf_counter() - began)
        self.count_queue(after[1])
        # A task that waits for a core lets go of no lock, and takes none: it says nothing. Nor is
        # the lock free for others because who wants it again has to queue, or has ended a turn.
        same = turns == self._turns
        elsewhere = same and runner is None
        if elsewhere or (used > max(queued, tick) / 4 if late else same and busy > _BUSY):
            self.window.looks += 1
            self.window.late += late
        self._turn(running)

    def _lateness(self, own: _ThreadClock, tick: float) -> float:
        """Wait so long; how many seconds longer it waited for the interpreter's lock."""
        busy, began = sum(own.times()), perf_counter()
        self._hurry.end()
        self._stopped.wait(tick)
        longer = perf_counter() - began - tick
        self._hurry.begin()
        if longer > _LATE:  # other programs may have had the core: that is no lock
            longer -= sum(own.times()) - busy
        return longer


class Hurry:
    """Lets other threads have the interpreter's lock after ``interval`` seconds, while the caller's
    thread runs tasks: to look at them, and to start workers, takes dozens of steps that wait for
    it, by default 5 ms each. It is as it was when nobody is in a hurry any more."""

    _lock = threading.Lock()
    _all: ClassVar[set[Hurry]] = set()
    _usual: ClassVar[float] = 0.0

    def __init__(self, interval: float = _SWITCH) -> None:
        self._interval = interval

    def begin(self) -> None:
        with Hurry._lock:
            if not Hurry._all:
                Hurry._usual = sys.getswitchinterval()
            Hurry._all.add(self)
            Hurry._set()

    def end(self) -> None:
        with Hurry._lock:
            if self in Hurry._all:
                Hurry._all.remove(self)
                Hurry._set()

    @classmethod
    def _set(cls) -> None:
        sys.setswitchinterval(min([cls._usual, *(one._interval for one in cls._all)]))

    @classmethod
    def end_in_child(cls) -> None:
        """In a fork nobody is in a hurry, and whoever held the lock is not there."""
        cls._lock = threading.Lock()
        for one in list(cls._all):
            one.end()


os.register_at_fork(after_in_child=Hurry.end_in_child)


class _ThreadClock:
    """Tells any thread how many seconds the one that made it has used a core, and queued for one
    (on Linux; elsewhere nobody knows)."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._clock = time.CLOCK_PROCESS_CPUTIME_ID
        if hasattr(time, "pthread_getcpuclockid"):
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        with suppress(OSError):
            path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def times(self) -> tuple[float, float]:
        queued = 0.0
        if self._file is not None:
            with suppress(OSError):  # that thread has ended
                queued = int(os.pread(self._file, 100, 0).split()[1]) * 1e-9
        return self.used(), queued

    def used(self) -> float:
        """The first of them, found without letting go of the interpreter's lock."""
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # that thread has ended
            return 0.0

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def cpu_time() -> float:
    """Seconds of cores that this program, and programs that it has waited for, have used."""
    others = getrusage(RUSAGE_CHILDREN)
    return time.process_time() + others.ru_utime + others.ru_stime


def wanted_time(process: int | str = "self") -> float | None:
    """Seconds that a process's threads have used cores or queued for them; None: it is gone, or
    the system does not say. Who queues computes too: on a busy machine nearly all do."""
    with suppress(OSError):
        return sum(_schedstat(f"/proc/{process}/task/{one}") for one in _threads(process))
    return None


def _threads(process: int | str) -> list[str]:
    return os.listdir(f"/proc/{process}/task")


def _schedstat(folder: str) -> float:
    with suppress(FileNotFoundError), open(f"{folder}/schedstat", "rb", buffering=0) as file:
        used, queued, _ = file.read().split()
        return (int(used) + int(queued)) * 1e-9
    return 0.0  # it has ended


def programs_since(moment: float) -> bool:
    """Does a program run that this one has started since then (in seconds since 1970)?"""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # it has none
        return False
    import psutil  # late: it is needed only here

    with suppress(psutil.Error):
        return any(child.create_time() > moment for child in psutil.Process().children())
    return False
