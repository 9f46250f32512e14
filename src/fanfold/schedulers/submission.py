"""Submission of a job once, whatever becomes of the replies and of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fanfold.errors import SchedulerDown, SchedulerError, SchedulerFull, SubmitUnknown, UsageError
from fanfold.schedulers.pace import Clock, Patience, Random, Tell, growing
from fanfold.units import format_duration

__all__ = ["Submission"]

_SENDINGS = 3  # whose reply was lost and that were not found: then it is not bad luck


class Submission:
    """One job, known by its name, and how it comes to be in the queue exactly once.

    ``send`` submits it, ``search`` tells the jobs of its name, ``drop`` cancels one. ``mark`` is a
    file that is there before the job is sent, and stays: the next process that submits this job
    knows from it that the job may be in the queue, and from its time since when. After ``window``
    seconds a job that was taken is sure to be seen.

    - *Not marked*: nobody has sent it. It is marked and **sent**.
    - *Marked*, or *lost* (below): it is **looked for** until it is found, or was not found by a
      search that began ``window`` seconds after it was sent. Found, it is adopted. Not found, it
      is marked anew and **sent**.
    - *Sent* and accepted: that is the job. If any reply had been lost before, its name is looked
      for once more: where an earlier copy has come late, that is the job and this one is dropped.
    - *Sent* and refused: the mark is removed, and the error raised.
    - *Sent*, and the scheduler is down or full: it waits, longer and longer, **looks** once, and
      **sends** it again; when ``patience`` is over the mark is removed and the error raised.
    - *Sent*, and nobody knows (no reply, no sense in it, cut off): *lost*. After the third one
      that was not found either, `SubmitUnknown` is raised, and the mark stays.
    - A search that fails is tried again while there is patience. It never counts as "not found":
      then `SubmitUnknown` is raised, and the mark stays.
    - This process dies anywhere: the mark is there, or nothing has been sent.
    """

    def __init__(
        self,
        name: str,
        mark: Path,
        *,
        send: Callable[[], str],
        search: Callable[[], Sequence[str]],
        drop: Callable[[str], None],
        window: float,
        patience: float,
        clock: Clock,
        random: Random,
        tell: Tell | None,
    ) -> None:
        self._name = name
        self._mark = mark
        self._send = send
        self._search = search
        self._drop = drop
        self._window = window
        self._clock = clock
        self._random = random
        self._tell = tell or (lambda sentence: None)
        self._patience = Patience(patience, tell, clock, random)
        self._lost = 0
        self._doubt = False  # whether it may be in the queue, for all that is known
        self._until: float | None = None  # what was sent is sure to be seen; None: nothing was

    def run(self) -> str:
        """The id of the job. Raises what `fanfold.schedulers.queue.Queue.submit` says."""
        age = _age(self._mark, self._clock.time())
        if age is not None:
            self._in_doubt(self._window - age)
        while True:
            job = self._found() or self._sent()
            if job is not None:
                return self._first(job) if self._lost or age is not None else job

    def _in_doubt(self, seconds: float) -> None:
        self._doubt = True
        self._until = self._clock.monotonic() + max(0.0, seconds)

    def _found(self) -> str | None:
        """The job, if it was sent before and turns up; None when it is sure that there is none."""
        if self._until is None:
            return None
        for number, delay in enumerate(growing(0.5, 15.0, self._random)):
            left = self._until - self._clock.monotonic()
            jobs = self._searched()
            if jobs:
                return self._kept(jobs[0], jobs)
            if left <= 0:
                break
            if number == 0:
                self._tell(
                    f"{self._name} may have been submitted: looking for it in the queue, for up to "
                    f"{format_duration(left)}"
                )
            self._clock.sleep(min(delay, left))
        self._doubt = False
        if self._lost == _SENDINGS:
            raise self._unknown("the scheduler did not answer, and has no such job, three times")
        return None

    def _searched(self) -> Sequence[str]:
        while True:
            try:
                return self._search()
            except SchedulerError as error:
                self._wait(error)

    def _sent(self) -> str | None:
        """The job, or None when it has to be looked for."""
        _touch(self._mark, self._clock.time())
        try:
            return self._send()
        except UsageError:  # refused, or there is no such command: nothing has been sent
            self._mark.unlink(missing_ok=True)
            raise
        except (SchedulerDown, SchedulerFull) as error:
            self._until = self._clock.monotonic()
            self._wait(error)
        except SchedulerError as error:
            self._lost += 1
            self._in_doubt(self._window)
            _touch(self._mark, self._clock.time())
            self._tell(str(error))
        return None

    def _wait(self, error: SchedulerError) -> None:
        try:
            self._patience.wait(error)
        except BaseException as stopped:  # Ctrl-C, too
            if not self._doubt:
                self._mark.unlink(missing_ok=True)
            elif stopped is error:
                raise self._unknown(str(error)) from error
            raise

    def _unknown(self, why: str) -> SubmitUnknown:
        return SubmitUnknown(
            f"the scheduler may have taken the job {self._name}, or not ({why}): submit it again "
            "later, then it is looked for by its name first"
        )

    def _first(self, job: str) -> str:
        """The job that is to live: another, where an earlier copy came late."""
        try:
            jobs = self._search()
        except SchedulerError:
            return job
        earlier = [other for other in jobs if other != job]
        return self._kept(earlier[0], [*earlier, job]) if earlier else job

    def _kept(self, job: str, jobs: Sequence[str]) -> str:
        for other in jobs:
            if other != job:
                with suppress(SchedulerError):
                    self._drop(other)
        return job


def _age(mark: Path, now: float) -> float | None:
    """How many seconds ago the job was sent; None when it was not."""
    try:
        return max(0.0, now - mark.lstat().st_mtime)
    except FileNotFoundError:
        return None


def _touch(mark: Path, now: float) -> None:
    """Have the mark on the disk, with this time: before the job is sent, whatever comes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(mark, flags, 0o600)
    try:
        os.utime(descriptor, (now, now))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(mark.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems cannot
            os.fsync(folder)
    finally:
        os.close(folder)
