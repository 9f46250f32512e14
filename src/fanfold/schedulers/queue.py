"""The queue of a scheduler: jobs are put into it, watched and cancelled.

Nothing else runs the commands of a scheduler; what they are, and what their answers mean, knows
`fanfold.schedulers.base.Scheduler`.
"""

from __future__ import annotations

import os
import random as _random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fanfold.errors import SchedulerDown, SchedulerError, SubmitUnknown, UsageError
from fanfold.resources import Resources
from fanfold.schedulers.base import Answer, Limits, Scheduler, Seen
from fanfold.schedulers.commands import TIMEOUT, ask, program
from fanfold.schedulers.known import Elements, Known, Look
from fanfold.schedulers.pace import Clock, Patience, Random, Tell
from fanfold.schedulers.sharing import Shared
from fanfold.schedulers.submission import Submission
from fanfold.units import format_duration

__all__ = ["Look", "Queue", "ask"]

_TURN = 0.05  # seconds between looks whether another process has asked


class Queue:
    """What is in the queue of a scheduler, and how it gets there.

    ``cache`` is a file in which all processes that watch the same jobs share the answers; each asks
    for itself where it is None. A command may take ``timeout`` seconds, a submission twice that.

    Where the commands of the scheduler are not installed, `submit`, `find` and `cancel` raise
    `UsageError`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        cache: Path | None = None,
        timeout: float = TIMEOUT,
        clock: Clock | None = None,
        random: Random = _random.random,
    ) -> None:
        self.name = scheduler.name
        self._scheduler = scheduler
        self._timeout = timeout
        self._clock = clock or Clock()
        self._random = random
        self._known = Known(scheduler.name)
        self._shared = None if cache is None else Shared(cache, 2 * timeout, self._clock)
        self._limits: Limits | None = None

    def submit(
        self,
        script: Path,
        name: str,
        resources: Resources | None = None,
        *,
        patience: float = 600.0,
        tell: Tell | None = None,
    ) -> str:
        """Put a job into the queue, once, and return its id.

        ``name`` is the name that the script gives the job, and no other job has; ``resources`` are
        those that it asks for, which count for more than what the environment says. Whoever submits
        the same script again, after a crash for example, gets the same job: a file beside the
        script, with the suffix ``.sent``, says that it may be there. `Submission` tells how.

        While the scheduler is down or full it is tried again, for ``patience`` seconds in all;
        ``tell`` gets a sentence before each wait. Ctrl-C lets a submission that is under way end,
        before it is heard; a second one does not.

        Raises `SubmitRefused` at once, `SchedulerDown` or `SchedulerFull` after that time: nothing
        is in the queue then. Raises `SubmitUnknown` where it cannot be told: submit it again later.
        """
        return Submission(
            name,
            script.with_suffix(".sent"),
            send=lambda: self._send(script, resources),
            search=lambda: self._search(name),
            drop=self.cancel,
            window=2 * self._timeout,
            patience=patience,
            clock=self._clock,
            random=self._random,
            tell=tell,
        ).run()

    def find(self, name: str) -> str | None:
        """The id of the job with this name; None when the scheduler says that it knows of none.

        Raises `SchedulerDown`.
        """
        return next(iter(self._search(name)), None)

    def look(self, elements: Elements, *, max_age: float = 30.0) -> Look:
        """What is known of some elements of jobs (index None: of a job without elements).

        The scheduler is asked, of all jobs at once, when its last answer is older than ``max_age``
        seconds: first its queue, then its records about those that the queue has not got. What has
        ended is not asked for again. Nothing is raised where it does not answer: see `Look`.
        """
        if self._shared is None:
            self._ask_about(elements, max_age)
        else:
            self._look_together(self._shared, elements, max_age)
        return self._known.look(elements)

    def records(self, jobs: Sequence[str]) -> list[Seen]:
        """How the elements of jobs ended, and what they used, as far as records of it are kept.

        Nothing where they cannot be read. All jobs are asked of at once.
        """
        try:
            return self._scheduler.recorded(self._ask(self._scheduler.history(jobs)))
        except (SchedulerError, UsageError):
            return []

    def elements(self, job: str) -> list[Seen]:
        """All elements that the queue or its records know of a job, or of the one element named.

        Nothing where neither knows it. Raises `SchedulerDown` and `UsageError`.
        """
        known = {seen.index: seen for seen in self.records([job])}
        for seen in self._scheduler.seen(self._ask(self._scheduler.watch([job]))):
            record = known.get(seen.index, seen)
            known[seen.index] = seen._replace(
                cpu_time=record.cpu_time, peak_memory=record.peak_memory
            )
        if len(known) > 1:
            known.pop(None, None)  # what the records say of an array as a whole
        return sorted(known.values(), key=lambda seen: seen.index or 0)

    def limits(self, tell: Tell | None = None) -> Limits:
        """The limits of this site; the usual ones where it does not tell, and ``tell`` says so."""
        if self._limits is not None:
            return self._limits
        try:
            answer = self._ask(self._scheduler.limits())
            limits, trouble = self._scheduler.read_limits(answer), answer.err.strip()
            if answer.code == 0:
                self._limits = limits
                return limits
        except (SchedulerError, UsageError) as error:
            limits, trouble = Limits(), str(error)
        if tell is not None:
            tell(
                f"{self._scheduler.name} does not tell its limits ({trouble}): job arrays of up to "
                f"{limits.elements} elements are taken for allowed"
            )
        return limits

    def cancel(
        self,
        job: str,
        indices: Sequence[int] | None = None,
        *,
        patience: float = 60.0,
        tell: Tell | None = None,
    ) -> None:
        """End a job, or some elements of it. What has ended stays as it is.

        Cancel the elements that have not ended, rather than the whole: PBS forgets how the others
        ended when their array is deleted. Raises `SchedulerDown` after ``patience`` seconds, and
        `SchedulerError` where it is not allowed.
        """
        waiting = Patience(patience, tell, self._clock, self._random)
        while True:
            try:
                self._cancel(job, indices)
                return
            except SchedulerDown as error:
                waiting.wait(error)

    def _send(self, script: Path, resources: Resources | None) -> str:
        argv = self._scheduler.submission(os.path.abspath(script), resources)
        answer = ask(argv, timeout=2 * self._timeout, finish=True)
        try:
            return self._scheduler.submitted(answer)
        except SchedulerError as error:
            if answer.code is None or answer.code < 0:  # it may have been taken before that
                raise SubmitUnknown(str(error)) from error
            raise

    def _search(self, name: str) -> Sequence[str]:
        return self._scheduler.found(self._ask(self._scheduler.search(name)))

    def _cancel(self, job: str, indices: Sequence[int] | None) -> None:
        """All commands are run, whatever the others say; then the first error is raised."""
        errors: list[SchedulerError] = []
        for argv in self._scheduler.cancel(job, indices):
            try:
                self._scheduler.cancelled(self._ask(argv))
            except SchedulerError as error:
                errors.append(error)
        if errors:
            raise min(errors, key=lambda error: not isinstance(error, SchedulerDown))

    def _look_together(self, shared: Shared, elements: Elements, max_age: float) -> None:
        while self._to_ask(shared, elements, max_age):
            if shared.take_turn():
                try:
                    if self._to_ask(shared, elements, max_age):
                        self._ask_about(elements, max_age)
                        shared.write(self._known.dump())
                finally:
                    shared.end_turn()
                return
            self._clock.sleep(_TURN)

    def _to_ask(self, shared: Shared, elements: Elements, max_age: float) -> bool:
        """Whether the scheduler has to be asked, after all that the others were told."""
        now = self._clock.time()
        told = shared.read()
        if told is not None:
            with suppress(ValueError, TypeError, KeyError, AttributeError):  # not written by us
                self._known.merge(told, now)
        return bool(self._known.to_ask(elements, now, max_age))

    def _ask_about(self, elements: Elements, max_age: float) -> None:
        now = self._clock.time()
        live = self._known.to_ask(elements, now, max_age)
        if not live:
            return
        scheduler = self._scheduler
        try:
            told = scheduler.seen(self._ask(scheduler.watch(list(live))))
            absent = self._known.queue_told(live, told, now)
            if absent:
                told = scheduler.recorded(self._ask(scheduler.history(list(absent))))
                self._known.records_told(absent, told, now)
        except (SchedulerError, UsageError) as error:
            self._known.failed(live, str(error), now)
        else:
            self._known.answered(live, now)

    def _ask(self, argv: Sequence[str]) -> Answer:
        answer = ask(argv, timeout=self._timeout)
        if answer.code is None or answer.code < 0:
            said = f": {answer.err.strip()}" if answer.err.strip() else ""
            how = (
                f"did not end within {format_duration(self._timeout)}"
                if answer.code is None
                else f"was ended by signal {-answer.code}"
            )
            raise SchedulerDown(f"{program(argv)} {how}{said}")
        return answer
