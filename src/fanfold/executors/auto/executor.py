"""``on="auto"``: begins in the caller's own thread, measures, and moves to the place that pays.

The first tasks run here and are kept. A watching thread sees meanwhile whether they use a core and
whether they hold the interpreter's lock; when workers would be worth their start it has them
started, even while a long first task still runs. Until worker processes are there, short tasks go
on here. When tasks turn out different later, new ones go to another place; what an earlier place
was sent, it ends.
"""

from __future__ import annotations

import concurrent.futures
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fanfold.errors import NotSerializable, UsageError
from fanfold.executors import registry
from fanfold.executors.auto.choice import SHORT, Choice, Facts, Place, choose
from fanfold.executors.auto.later import Later
from fanfold.executors.auto.meter import Meter
from fanfold.executors.auto.watch import WATCHING, Hurry, Watch
from fanfold.executors.base import Executor, Stream, report_of, worker_count
from fanfold.executors.pool.copied import Copied, can_copy
from fanfold.executors.work.runner import Runner
from fanfold.tasks import Activity, Call, Chunk, Report

if TYPE_CHECKING:
    from fanfold.executors.processes import ProcessExecutor

__all__ = ["AutoExecutor", "Decision", "work_at_once"]

_TURN, _LONGEST_TURN = 0.002, 0.02  # seconds of work in the caller's thread between two thoughts
_PROBE = 0.002  # seconds a task may take until it is thought about while it runs
_PIECE = 0.02  # seconds of work in what is sent at once
_LARGE_PIECE = 0.04  # to processes, where sending is cheap: each takes time from busy cores
_CHEAP = 0.05  # of the work
_BRIEF = 0.004  # seconds of a task then: a death that repeats many longer ones costs more
_AHEAD = 3  # such pieces on their way, a worker
_STOCK = 1024  # tasks in a first chunk: while a long task runs here, nobody else brings any
_SERVICE = 0.1  # seconds between two looks, of a thread that feeds the workers meanwhile
_PATIENCE = 0.02  # seconds between two looks at several places
_SOON = 0.006  # seconds a task may take until workers are not copied when it ends, but started now
_TINY = 2e-6  # seconds that a task takes, which nobody does quicker than the caller's thread
_LITTLE = 0.01  # seconds of work that are not worth a thought
_MOMENT = 2e-5  # seconds in which a place gets to tell what it has


class Decision(NamedTuple):
    """What was measured, and what was chosen, ``seconds`` after the begin."""

    seconds: float
    facts: Facts
    choice: Choice


class AutoExecutor(Executor):
    """Chooses between the caller's own thread, threads and processes, for each map anew.

    ``total`` tasks will come (None: nobody knows). ``allowed`` is a scheduler that may be used too,
    as its name or an executor of it: for work that is worth the wait in a queue. ``decisions``
    tells what was chosen for the last map, and why; it is empty when all tasks ran in the caller's
    thread.

    >>> with AutoExecutor() as place, place.open(Call(abs)) as stream:
    ...     stream.send(Chunk(0, [-1, -2]))
    ...     stream.receive().values
    [1, 2]
    """

    name = "auto"

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        total: int | None = None,
        allowed: Executor | str | None = None,
    ) -> None:
        self._wanted = None if max_workers is None else worker_count(max_workers, 1, "max_workers")
        self._total = total
        self.workers = self._wanted or os.cpu_count() or 1  # until it is worth to ask for `cores`
        self.first_chunk = 1 if total is None else _STOCK  # who counts them may have to make them
        self.decisions: list[Decision] = []
        self._place: Executor | None = None
        self._allowed = allowed

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Refused: of single calls nothing can be known before."""
        raise UsageError('"auto" chooses for a map: for submit name the place, as "processes"')

    def open(self, call: Call) -> Stream:
        self.decisions.clear()
        self.batch = False  # type: ignore[misc]  # until a scheduler is chosen
        allowed: tuple[Any, int | None] | None = None
        if isinstance(self._allowed, Executor):
            allowed = self._allowed.name, self._allowed.workers
        elif self._allowed is not None:
            allowed = self._allowed, None
        meter = Meter(call, self._total, self._wanted, allowed)
        return _AutoStream(self, call, meter)

    def activity(self) -> list[Activity]:
        return [] if self._place is None else self._place.activity()

    def make(self, choice: Choice, copied: Copied | None) -> Executor:
        """The executor to go on in; earlier ones are left to end what they have. ``copied`` starts
        worker processes."""
        if isinstance(self._allowed, Executor) and choice.place == self._allowed.name:
            self._place = self._allowed
        elif choice.place == self._allowed:
            self._place = registry.make(choice.place, elements=choice.workers)
        else:
            options = {} if copied is None else {"mp_context": copied}
            self._place = registry.make(choice.place, choice.workers, **options)
        self.workers = choice.workers
        self.batch = self._place.batch  # type: ignore[misc]  # from now on
        return self._place

    def owns(self, place: Executor) -> bool:
        """Was it made here?"""
        return place is not self._allowed

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: what a map needed ends with it."""


class _Branch:
    """A place that tasks were sent to, and how many of them have not come back; ``ours`` to end."""

    def __init__(self, place: Executor, call: Call, *, ours: bool) -> None:
        self.place = place
        self._ours = ours
        try:
            self.stream = place.open(call)
        except BaseException:
            self._end()
            raise
        self.outstanding = 0

    def send(self, chunk: Chunk) -> None:
        self.outstanding += len(chunk)
        self.stream.send(chunk)

    def close(self) -> None:
        self.stream.close()
        self._end()

    def _end(self) -> None:
        if self._ours:
            self.place.shutdown(wait=True)


class _AutoStream(Stream):
    """``_here`` is true while the caller's thread runs tasks: until workers have taken over."""

    def __init__(self, owner: AutoExecutor, call: Call, meter: Meter) -> None:
        self._owner = owner
        self._call = call
        self._begin = perf_counter()
        self._thought = 0.0  # for how long the running task had run when it was last thought about
        self._meter = meter
        self._watch = Watch(self._look)
        self._hurry = Hurry()
        self._lock = threading.RLock()
        self._taking = threading.Lock()  # who waits for reports must not wait for one that is taken
        self._waiting: deque[Chunk] = deque()
        self._reports: deque[Report] = deque()  # taken in while the caller's thread was at work
        self._runner: Runner | None = None
        self._branches: list[_Branch] = []
        self._copied: Copied | None = None
        self._later: Later | None = None
        self._woken = threading.Event()
        self._here = True
        self._piece = _PIECE
        self._when_free: Callable[[], None] | None = None  # what waits for the core of a task here
        if call.timeout is not None or call.evidence is not None:
            self._move(Choice("processes", meter.workers, {}))  # here they could not be stopped
            self._later = None

    # What dispatch calls

    def send(self, chunk: Chunk) -> None:
        with self._lock:
            self._waiting.append(chunk)
            if not self._here:
                self._feed()

    def receive(self, timeout: float | None = None) -> Report | None:
        deadline = math.inf if timeout is None else monotonic() + timeout
        while True:
            if self._reports:
                return self._reports.popleft()
            if self._woken.is_set():
                self._woken.clear()
                return None
            if self._runner is not None or (self._here and self._waiting):
                return None if timeout == 0 else self._run_here()
            left = deadline - monotonic()
            if not self._gather(left) and left <= 0:
                return None

    def awaits_before(self, index: int) -> bool:
        with self._lock:
            firsts = [chunk.first for chunk in self._waiting]
            firsts += [report.first for report in self._reports]
            if self._runner is not None:
                firsts.append(self._runner.first + self._runner.offset)
            return min(firsts, default=index) < index or any(
                branch.stream.awaits_before(index)
                if branch.place.batch
                else branch.outstanding > 0  # it is not known which
                for branch in self._branches
            )

    def wake(self) -> None:
        self._woken.set()
        for branch in list(self._branches):
            branch.stream.wake()

    def close(self) -> None:
        self._watch.stop()
        self._hurry.end()  # it may have begun just when the last task here ended
        for branch in self._branches:
            branch.close()
        self._branches.clear()
        if self._copied is not None:
            self._copied.close()

    # In the caller's own thread

    def _run_here(self) -> Report | None:
        runner = self._runner or self._next_runner()
        if runner is None:  # it was taken to the workers
            return None
        self._thought = 0.0
        self._watch.begin(runner, rarely=0 < self._meter.pace < _TINY or self._nearly_done())
        try:
            runner.run(self._turn())
        finally:
            self._watch.end()
            self._hurry.end()
        results = runner.take_all()
        if runner.offset >= runner.stop:
            self._runner = None
        report = report_of(self._call, runner.first, runner.attempt, results, worker="serial")
        with self._lock:
            if self._when_free is not None:
                self._when_free()
                self._when_free = None
            self._meter.learn(report, here=True)
        if self._branches:
            self._gather(_MOMENT)
        else:
            self._think(None)
        return report if len(report) else None

    def _turn(self) -> float:
        """For how many seconds to run tasks now: only a moment when workers may be there."""
        if self._branches:
            return _MOMENT
        if self._nearly_done():
            return _LONGEST_TURN
        return min(_LONGEST_TURN, max(_TURN, (perf_counter() - self._begin) / 4))

    def _nearly_done(self) -> bool:
        """Is so little left, if the tasks go on as they began, that it is not worth a thought?"""
        return bool(self._meter.done) and self._meter.left * self._meter.pace < _LITTLE

    def _next_runner(self) -> Runner | None:
        with self._lock:
            if not (self._here and self._waiting):
                return None
            chunk = self._waiting.popleft()
            self._meter.see_input(chunk)
            self._runner = Runner(
                self._call, chunk.first, chunk.items, attempt=chunk.attempt, worker="serial",
                escapes=(KeyboardInterrupt,),
            )  # fmt: skip
            return self._runner

    def _gather(self, seconds: float) -> bool:
        """Take in what has come from the workers; wait up to so many seconds for something."""
        if self._taking.locked():  # by the watching thread, which waits for reports
            for branch in self._branches:
                branch.stream.wake()
        with self._taking:
            return bool(self._reports) or self._gather_alone(seconds)

    def _gather_alone(self, seconds: float) -> bool:
        with self._lock:
            busy = [branch for branch in self._branches if branch.outstanding]
        if not busy:
            return self._woken.wait(max(0.0, min(seconds, _PATIENCE)))
        if len(busy) > 1:
            seconds = min(seconds, _PATIENCE)
        *others, last = busy
        return any(
            [
                *(self._take(branch, branch.stream.receive(_MOMENT)) for branch in others),
                self._take(last, last.stream.receive(None if seconds == math.inf else seconds)),
            ]
        )

    # In the caller's thread, or in the one that watches it

    def _take(self, branch: _Branch, report: Report | None) -> bool:
        if report is None:
            return False
        with self._lock:
            branch.outstanding -= len(report)
            self._meter.learn(report, here=False)
            self._reports.append(report)
            self._hand_over()  # the workers are there
        return True

    def _look(self, running: float | None) -> None:
        """What the watching thread does after each look."""
        if running is not None and not self._branches:
            self._look_at_task(running)
        elif running is not None and running > SHORT:
            with self._lock:
                self._hand_over()
            if self._taking.acquire(blocking=False):  # else the caller's thread is at it again
                try:
                    self._serve()
                finally:
                    self._taking.release()
        if self._later is not None and self._later.due():
            self._think_again(self._later)

    def _serve(self) -> None:
        """For a while, and as long as its task runs, do what the caller's thread would do."""
        end = perf_counter() + _SERVICE
        self._gather_alone(_LONGEST_TURN)
        while self._watch.running and perf_counter() < end and not self._woken.is_set():
            self._gather_alone(_LONGEST_TURN)

    def _look_at_task(self, running: float) -> None:
        self._meter.see_large_memory()
        if self._meter.imports(running):
            self._watch.renew()
            return
        running -= self._meter.importing
        if running > max(_PROBE, 1.5 * self._thought):
            self._thought = running
            self._watch.count()
            self._think(running)

    def _think(self, running: float | None) -> None:
        """Move when another place is clearly cheaper; ``running`` seconds has a task taken here."""
        with self._lock:
            movable = self._meter.left - (running is not None)
            if self._branches or movable * (running or self._meter.pace) < _LITTLE:
                return
            if not self._meter.unsure(self._watch.window):
                facts = self._meter.facts(self._watch.window, running)
                if choose(facts).place != "serial":  # who queues for a core seems to wait
                    self._watch.count_queue()
                    facts = self._meter.facts(self._watch.window, running)
                choice = choose(facts)
                soon = 0 < (running or 0) < _SOON
                if choice.place == "processes" and soon and can_copy(WATCHING):
                    self._thought = 0.0  # again at each look: no fork in the middle of a task
                    return
                self._follow(facts, choice)

    def _think_again(self, later: Later) -> None:
        with self._lock:
            facts = later.facts(self._meter, self._watch.window)
            if facts is not None:
                self._follow(facts, choose(facts, later.place, later.workers))
            self._watch.renew()

    def _follow(self, facts: Facts, choice: Choice) -> None:
        """Go to the place of the choice; where that does not do, to the next best."""
        kept: tuple[Place, int] = ("serial", 1)
        if self._later is not None:
            kept = self._later.place, self._later.workers
        while choice[:2] != kept:
            if self._meter.check(choice.place):
                self._piece = work_at_once(choice.place, facts)
                try:
                    self._move(choice, facts.busy)
                except (NotSerializable, OSError, RuntimeError) as error:  # no thread, no process
                    self._meter.bar(choice.place, str(error))
                else:
                    self._owner.decisions.append(
                        Decision(perf_counter() - self._begin, facts, choice)
                    )
                    return
            facts = self._meter.barring(facts)
            choice = choose(facts, *kept)

    def _move(self, choice: Choice, busy: float = 0.0) -> None:
        """What has not begun goes to the new place, and what is sent from now on.

        The task that runs here meanwhile keeps so many cores ``busy``.
        """
        if choice.place == "processes":
            if self._watch.running:
                self._hurry.begin()
            elif self._copied is None:
                self._copied = Copied.made(WATCHING)
        if choice.place == "threads":
            self._watch.calm()
            self._watch.resting = False
        place = self._owner.make(choice, self._copied if choice.place == "processes" else None)
        if self._watch.running and choice.place == "processes" and busy > 0.5:
            self._leave_core(place, choice.workers)
        branch = _Branch(place, self._call, ours=self._owner.owns(place))  # may raise
        for earlier in self._branches:
            earlier.stream.wake()  # the caller's thread may wait there, and is wanted here as well
        self._branches.append(branch)
        self._later = None if place.batch else Later(place, choice, self._meter)
        self._watch.renew()
        self._waiting.extendleft(self._rest())
        self._feed()
        if choice.place != "processes" or not 0 < self._meter.pace < SHORT:
            self._hand_over()

    def _leave_core(self, place: Executor, workers: int) -> None:
        """The last worker begins when the task here has ended: on one core both would be late."""
        if workers > 1 and workers >= self._meter.cores:
            processes = cast("ProcessExecutor", place)
            processes.resize(max(1, self._meter.cores - 1))
            self._when_free = partial(processes.resize, workers)

    def _hand_over(self) -> None:
        """The caller's thread begins no more tasks."""
        if self._here:
            self._here = False
            self._waiting.extendleft(self._rest())
            self._watch.resting = self._branches[-1].place.name != "threads"
        self._feed()

    def _rest(self) -> list[Chunk]:
        """Of the chunk that runs here what has not begun."""
        runner = self._runner
        if runner is None:
            return []
        before, end = runner.stop, runner.cut()
        if end >= before:
            return []
        return [Chunk(runner.first + end, runner.items[end:before], runner.attempt)]

    def _feed(self) -> None:
        """Send the newest place what it needs to be busy, and no more: inputs may be large."""
        branch, workers = self._branches[-1], self._owner.workers
        if branch.place.batch:  # in as few job arrays as can be
            while self._waiting:
                branch.send(self._waiting.popleft())
            return
        stock = sum(map(len, self._waiting))
        ahead, parts = (2, 4) if self._here else (_AHEAD, 2)  # half is for here until they work
        size = min(self._piece / max(1e-6, self._meter.pace), math.ceil(stock / (parts * workers)))
        size = max(1, int(size))
        while self._waiting and branch.outstanding < ahead * workers * size:
            chunk = self._waiting.popleft()
            if len(chunk) > size:
                rest = Chunk(chunk.first + size, chunk.items[size:], chunk.attempt)
                self._waiting.appendleft(rest)
                chunk = Chunk(chunk.first, chunk.items[:size], chunk.attempt)
            branch.send(chunk)


def work_at_once(place: Place, facts: Facts) -> float:
    """How many seconds of work to send there at once."""
    brief = facts.pace < _BRIEF and facts.sending < _CHEAP * facts.pace
    return _LARGE_PIECE if brief and place == "processes" else _PIECE
