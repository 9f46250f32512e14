"""What is measured of the tasks of a map: of the first of them, and of those that follow."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from fanfold.executors.auto.belongings import Belongings
from fanfold.executors.auto.choice import Facts, Place, Start
from fanfold.executors.auto.sizes import loading_time, sending_time, why_not_sent
from fanfold.executors.auto.watch import WATCHING, Window, programs_since
from fanfold.executors.pool.copied import can_copy
from fanfold.executors.work.memory import own_memory, peak_memory
from fanfold.resources import cores as cores_here
from fanfold.tasks import Call, Chunk, Report

__all__ = ["Meter"]

_SURE = 0.03  # seconds of work, after which it is decided also if no look has counted
_BRIEF = 1e-3  # seconds, of which nothing can be said
_LARGE = 1 << 28  # bytes of a task, below which memory is no matter


class Meter:
    """Fed by whoever runs the tasks; makes `Facts` of it.

    ``total`` tasks are to be run (None: nobody knows), on ``wanted`` workers (None: as pays).
    ``allowed`` is that of `Facts`.
    """

    def __init__(
        self,
        call: Call,
        total: int | None,
        wanted: int | None,
        allowed: tuple[Place, int | None] | None = None,
    ) -> None:
        self._call = call
        self._total = total
        self._wanted = wanted
        self._allowed = allowed
        self._belongings = Belongings(call.func)
        self._barred: dict[Place, str] = {}
        self._began = time.time()
        self._modules = len(sys.modules)
        self._own_memory = own_memory(os.getpid())
        self._input: Any = None
        self._result: Any = None
        self.importing = 0.0  # seconds of the first task that went to imports
        self.pace = 0.0
        self.memory = 0  # bytes that the program grew by, at most, since the tasks began
        self.done = 0
        self.worked = 0.0  # seconds that all tasks took

    @cached_property
    def cores(self) -> int:
        return int(cores_here())  # reads a dozen files: some tasks end before they are needed

    @property
    def workers(self) -> int:
        """How many there are unless something speaks against it."""
        return self._wanted or self.cores

    @property
    def left(self) -> float:
        """How many tasks have not ended; infinite where nobody knows."""
        return math.inf if self._total is None else max(0, self._total - self.done)

    def see_input(self, chunk: Chunk) -> None:
        self._input = chunk.items[0]

    def learn(self, report: Report, *, here: bool) -> None:
        """Of the tasks of a report, which ran in the caller's thread (``here``) or elsewhere."""
        count = len(report)
        if not count:
            return
        worked = report.work_time
        if not self.done:
            worked = max(0.0, worked - self.importing)
        self.pace = worked / count if not self.done else (self.pace + worked / count) / 2
        self.done += count
        self.worked += worked
        if here:
            self._result = None if report.folded else report.values[0]

    def imports(self, running: float) -> bool:
        """Has a first task, which runs for so long, imported anything since this was last asked?"""
        before, self._modules = self._modules, len(sys.modules)
        if self.done or self._modules == before:
            return False
        self.importing = running
        return True

    def see_memory(self) -> None:
        """Note how much larger the program is than before the tasks."""
        self.memory = max(self.memory, own_memory(os.getpid()) - self._own_memory)

    def see_large_memory(self) -> None:
        """The same, if it may be so much that it matters: that is quickly told, without files."""
        if peak_memory() - self._own_memory > _LARGE:
            self.see_memory()

    def bar(self, place: Place, reason: str) -> None:
        """A place has turned out to be of no use."""
        self._barred[place] = reason

    def barring(self, facts: Facts) -> Facts:
        """The facts with what has turned out since."""
        return facts._replace(barred=tuple(self._barred.items()))

    def check(self, place: Place) -> bool:
        """May tasks run there, as far as that is quickly seen? What forbids it is noted."""
        reasons: Iterable[str | None] = ()
        if place == "threads":
            changed = self._belongings.changed()
            reasons = [changed and f"tasks change {changed}, which threads have in common"]
        elif place != "serial":
            values = {"an input": self._input, "a result": self._result}
            said = ((name, why_not_sent(value)) for name, value in values.items())
            reasons = (why and f"{name} cannot be sent: {why}" for name, why in said)
        reason = next(filter(None, reasons), None)
        if reason is not None:
            self.bar(place, reason)
        return reason is None

    def facts(self, window: Window, running: float | None = None) -> Facts:
        """From what ran in the caller's thread, where a task runs for ``running`` seconds now."""
        if running is not None:
            self.pace = max(self.pace, running)
        busy = 1.0
        if window.wall > _BRIEF:
            used = window.cpu / window.wall  # more than 1 where it has threads of its own
            busy = max(used, min(1.0, used + window.queued / window.wall))
        held = window.late / window.looks if window.looks else min(1.0, busy)
        if busy < 0.5 and programs_since(self._began):
            busy, held = 1.0, 0.0  # what a task waits for computes
        return self._facts(self.pace, busy, min(held, busy))

    def unsure(self, window: Window) -> bool:
        """Is it too early to say anything?"""
        waits = window.wall > _BRIEF and window.cpu + window.queued < window.wall / 2
        looked = window.late or window.looks > 1  # once it may be free by chance
        return not (looked or waits or window.wall > _SURE)

    def facts_of_workers(self, worked: float, done: int, cpu: float, held: float) -> Facts:
        """From ``done`` tasks that took ``worked`` seconds and ``cpu`` seconds of cores there."""
        if held > 0.5:  # they mostly waited for the lock
            return self._facts(cpu / done, 1.0, held)
        return self._facts(worked / done, cpu / worked, held)

    def _facts(self, pace: float, busy: float, held: float) -> Facts:
        left = None if self._total is None else int(self.left)
        sending = sending_time(self._input) + sending_time(self._result)
        start = _start()
        loading = 0.0 if start == "copied" else max(self.importing, self._loading)
        return Facts(
            left, pace, busy, held, sending, self._function, self.done, self.cores,
            self._wanted, start, loading, self._room(), tuple(self._barred.items()), self._allowed,
        )  # fmt: skip

    @cached_property
    def _function(self) -> float:
        return sending_time(self._call.func)

    @cached_property
    def _loading(self) -> float:
        return loading_time(self._call.func)

    def _room(self) -> int | None:
        """How many tasks find memory at a time."""
        if self.memory < _LARGE:
            return None
        import psutil  # late: it is needed only here

        return max(1, int(psutil.virtual_memory().available / self.memory))


def _start() -> Start:
    """How worker processes would be started by the thread that asks."""
    if threading.current_thread() is threading.main_thread() and can_copy(WATCHING):
        return "copied"
    return "warm" if "fanfold.executors.pool.starter" in sys.modules else "cold"
