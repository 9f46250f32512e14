"""A run at work on a scheduler: submitted, and followed until its elements have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from fanfold.dispatch import Listener
from fanfold.errors import FanfoldError, RunError, UsageError
from fanfold.progress import listener as progress_listener
from fanfold.runs.cluster import Submission
from fanfold.runs.elements import Watch, Watched, find_job, is_over, open_arrays, queue_of
from fanfold.runs.follow import Follower
from fanfold.runs.jobscript import unseen
from fanfold.runs.state import State
from fanfold.schedulers.pace import Pace
from fanfold.schedulers.queue import Queue
from fanfold.store.directory import RunDirectory
from fanfold.tasks import MapFinished, MapStarted, Report

__all__ = ["Remote", "Waiting", "cancel", "wait_for"]

_ALIKE = 3  # elements that could not begin, until the others are spared it
_LAST_LINES = 5
_LATE = 60.0  # seconds
_SHORTEST, _LONGEST = 0.1, 2.0  # seconds between looks at what the elements wrote
_SHARE = 0.01  # of the time since an element began or ended: so long is the next look put off


class Remote:
    """Drives a run on a scheduler: `submit`, and `follow` what comes of it.

    Without a ``submission`` it follows what was submitted before. ``state`` is how the run stood
    then, ``notes`` are sentences about what is damaged.
    """

    def __init__(
        self,
        directory: RunDirectory,
        run: str,
        submission: Submission | None,
        state: State,
        *,
        progress: bool | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.state = state
        self.notes = state.damage
        self._directory = directory
        self._run = run
        self._submission = submission
        shown = [] if progress is False else [progress_listener(progress)]
        self._listeners = [*listeners, *shown]

    def submit(self) -> None:
        """Raises `SubmitRefused`; nothing is left of the submission then."""
        if self._submission is not None:
            self._submission.submit()
            self._submission = None

    def drive(self) -> None:
        """Submit it, and tell the listeners what comes until all has ended."""
        self.submit()
        arrays = open_arrays(self._directory)
        if not arrays:
            return
        interrupted = True
        tasks = sum(array.tasks for array in arrays)
        workers = sum(
            len(array.shares) * (array.options["workers"] or array.resources.workers)
            for array in arrays
        )
        try:
            self._tell(MapStarted(tasks, workers, arrays[0].scheduler))
            with Follower(self._directory, self._run, arrays, trust=False) as follower:
                for _ in wait_for(self._directory):
                    for report in follower.reports():
                        self._tell(report)
                    self._tell(Report(0, []))
            interrupted = False
        finally:
            self._tell(MapFinished(interrupted))

    def _tell(self, event: MapStarted | MapFinished | Report) -> None:
        for listener in self._listeners:
            listener(event)


class Waiting:
    """Looks at the elements that were submitted last, until all have ended.

    What they write is looked at often, and the scheduler is asked less and less often. ``pause`` is
    how many seconds to wait until the next look.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.pause = _SHORTEST
        self._directory = directory
        arrays = open_arrays(directory)
        self._queue = queue_of(directory, arrays[0].scheduler) if arrays else None
        self._watch = Watch(directory, self._queue)
        self._pace = Pace()
        self._interval = 0.0
        self._ask_at = 0.0
        self._late_since = 0.0
        self._before: list[tuple[str, int]] = []
        self._changed_at = time.monotonic()
        self._given_up: set[int] = set()

    def look(self) -> tuple[list[Watched], bool]:
        """The elements, and whether all of them have ended.

        When the first of them all end before they can begin, the others are cancelled, and
        `RunError` is raised, with the reason.
        """
        asks = time.monotonic() >= self._ask_at
        now = self._watch.look(self._interval / 2 if asks else None)
        over = all(is_over(one.state) for one in now) and not self._is_late(now)
        states: list[tuple[str, int]] = [(one.state, one.attempt) for one in now]
        changed = states != self._before
        if changed:
            self._changed_at = time.monotonic()
        if self._queue is not None:
            _check_begin(self._directory, self._queue, now)
            self._give_up(self._queue, now)
        if asks:
            self._interval = self._pace.wait(changed)
            self._ask_at = time.monotonic() + self._interval
        calm = time.monotonic() - self._changed_at
        self.pause = min(_LONGEST, max(_SHORTEST, _SHARE * calm))
        self._before = states
        return now, over

    def _give_up(self, queue: Queue, now: list[Watched]) -> None:
        """Have the scheduler end those that are stalled, so that they do not come to life again;
        what they would still write counts for nothing once their tasks are submitted again."""
        for one in now:
            if one.state == "stalled" and one.job is not None and one.number not in self._given_up:
                self._given_up.add(one.number)
                with suppress(FanfoldError):  # its node hangs: that may be all that can be had
                    queue.cancel(one.job, self._watch.indices(one), patience=0.0)

    def _is_late(self, now: list[Watched]) -> bool:
        """What ended elements wrote is waited for, for a minute: nodes and login nodes see a shared
        file system at different times."""
        if not any(one.late for one in now):
            return False
        self._late_since = self._late_since or time.monotonic()
        return time.monotonic() - self._late_since < _LATE


def wait_for(directory: RunDirectory, timeout: float | None = None) -> Iterator[list[Watched]]:
    """Look at the elements that were submitted last until all have ended; yields what it sees.

    Raises `RunError` when none of them can begin, and `TimeoutError` after ``timeout`` seconds.
    """
    waiting = Waiting(directory)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        now, over = waiting.look()
        yield now
        if over:
            return
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"the run in {directory.path} has not ended in {timeout:g} s")
        time.sleep(waiting.pause)


def _check_begin(directory: RunDirectory, queue: Queue, now: list[Watched]) -> None:
    """Where no element can begin there is no use in trying the others."""
    lost = [one for one in now if one.state == "failed" and not _has_begun(one)]
    if not lost or len(lost) < min(_ALIKE, len(now)) or any(map(_has_begun, now)):
        return
    for job in {one.job for one in now if one.job is not None and not is_over(one.state)}:
        with suppress(FanfoldError):  # why they cannot begin is what is to be told
            queue.cancel(job)
    raise RunError("\n".join(_why_lost(directory, lost[0])))


def _has_begun(one: Watched) -> bool:
    return one.attempt > 0 and (one.why != "error" or one.done + one.failed > 0)


def _why_lost(directory: RunDirectory, one: Watched) -> Iterator[str]:
    if one.message:
        yield (
            f"element {one.number} (job {one.job}, index {one.index}) could not begin: "
            f"{one.message}; the others are cancelled"
        )
        return
    status = None if one.seen is None else one.seen.exit_status
    known = unseen(status)
    yield (
        f"element {one.number} (job {one.job}, index {one.index}) ended before its Python could "
        f"begin, with exit status {status}{f': {known}' if known else ''}; the others are cancelled"
    )
    path = directory.path / "logs" / f"array-{one.array}.{one.index}"
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        yield f"there is no log at {path}"
        return
    yield f"the last lines of {path}:"
    yield from (f"    {line}" for line in lines[-_LAST_LINES:])


def cancel(directory: RunDirectory, element: int | None = None) -> None:
    """Have the scheduler end the elements that were submitted last, or one; what is done stays.

    Raises `UsageError` when there is no such element, and `SchedulerError`.
    """
    arrays = {array.number: array for array in open_arrays(directory)}
    numbers = [number for array in arrays.values() for number in array.elements]
    if element is not None and element not in numbers:
        known = f"they are {numbers[0]} to {numbers[-1]}" if numbers else "it has none"
        raise UsageError(f"the run has no element {element} at work: {known}")
    wanted = numbers if element is None else [element]
    for number, array in arrays.items():
        queue = queue_of(directory, array.scheduler)
        seen = [one for one in Watch(directory, queue).look() if one.array == number]
        left = [one for one in seen if one.number in wanted and not is_over(one.state)]
        job = find_job(directory, array, queue)
        if job is not None and left:
            whole = len(left) == len(array.shares)
            queue.cancel(job, None if whole else [one.index for one in left])
