"""The queue of this machine: what waits, what may start, what has to end."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty

from fanfold.errors import UsageError
from fanfold.mailbox import Mailbox
from fanfold.schedulers.base import ENDED, JobState
from fanfold.schedulers.local.dialect import Begin
from fanfold.schedulers.local.dialects import DIALECTS
from fanfold.schedulers.local.job import LocalElement, LocalJob, Submitted
from fanfold.schedulers.local.process import Ending, look
from fanfold.schedulers.local.running import NotStartedError, Running

__all__ = ["LocalQueue"]

_FIRST_LOOK = 0.1  # seconds after a start; short jobs have a peak of memory, too
_NEXT_LOOK = 1.0
_CLOSING = 10.0  # seconds for killed processes to go

Indices = Sequence[int | None]


class LocalQueue:
    """Runs jobs as processes of this machine, ``workers`` elements at a time.

    Nothing happens by itself: `step` starts, ends and reports. One thread calls the methods,
    but for `wake`.
    ``jobs`` are those submitted, by number. ``host`` is the server in the ids of PBS, ``nodes`` are
    names given to the elements, ``first`` is the number of the first job, ``grace`` the seconds
    between TERM and KILL. Private copies of the scripts, and output that waits, lie in ``folder``
    until `close`.

    Methods raise `UsageError` for jobs and elements that there are not.

    >>> job = LocalJob("#!/bin/sh\\necho $SLURM_ARRAY_TASK_ID\\n", "demo", "slurm", "/", "/",
    ...                indices=(1, 2), output="/dev/null")
    >>> with LocalQueue(workers=2) as queue:
    ...     number = queue.submit(job)
    ...     while not queue.ended(number):
    ...         for _, element in queue.step(timeout=60):
    ...             pass
    >>> [element.state for element in queue.jobs[number].elements.values()]
    ['done', 'done']
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        host: str = "local",
        nodes: Sequence[str] = (),
        first: int = 1,
        grace: float = 10.0,
    ) -> None:
        self.jobs: dict[int, Submitted] = {}
        self.folder = tempfile.mkdtemp(prefix=f"fanfold-jobs-{os.getpid()}-")
        self._host = host
        self._grace = grace
        self._next = first
        nodes = nodes or (os.uname().nodename.split(".")[0],)
        self._free = [nodes[place % len(nodes)] for place in range(workers)]
        self._waiting: dict[int, dict[int | None, LocalElement]] = {}
        self._running: dict[LocalElement, Running] = {}
        self._endings: Mailbox[Ending | None] = Mailbox()
        self._woken = False
        self._changed: dict[LocalElement, int] = {}
        self._begins: set[float] = set()
        self._look_at = 0.0

    def __enter__(self) -> LocalQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Asking --------------------------------------------------------------------------------------

    def id(self, number: int, index: int | None = None) -> str:
        """The id as the dialect spells it: ``12``, ``12_4``, ``12[].local``, ``12[4].local``."""
        submitted = self._submitted(number)
        return DIALECTS[submitted.job.dialect].id(submitted, index, self._host)

    def ended(self, number: int) -> bool:
        """Whether every element of the job has ended."""
        self._submitted(number)
        return not (self._waiting[number] or self._active(number))

    def why(self, number: int, index: int | None) -> str:
        """Why an element waits: "held", "dependency", "never" (the job it waits for has ended
        otherwise), "begin" (its time has not come), "at once" or "workers"; "" when it does not."""
        (element,) = self._chosen(number, [index])
        if element.state not in ("waiting", "held"):
            return ""
        if element.state == "held":
            return "held"
        if element.not_before > time.time():
            return "begin"
        return self._blocked(number) or "workers"

    def missing_folders(self, number: int) -> list[str]:
        """The folders that output of the job goes to and that are not there: nobody makes them."""
        submitted = self._submitted(number)
        dialect = DIALECTS[submitted.job.dialect]
        begins = (Begin(submitted, each, self._host, "") for each in submitted.elements.values())
        paths = (path for begin in begins for path in dialect.paths(begin))
        folders = dict.fromkeys(os.path.dirname(path) for path in paths)
        return [folder for folder in folders if not os.path.isdir(folder)]

    def _submitted(self, number: int) -> Submitted:
        if number not in self.jobs:
            raise UsageError(f"there is no job {number} in this queue")
        return self.jobs[number]

    def _chosen(self, number: int, indices: Indices | None) -> list[LocalElement]:
        elements = self._submitted(number).elements
        if indices is None:
            return list(elements.values())
        strange = [index for index in indices if index not in elements]
        if strange:
            raise UsageError(f"job {number} has no element {strange[0]}")
        return [elements[index] for index in indices]

    # Doing ---------------------------------------------------------------------------------------

    def submit(self, job: LocalJob) -> int:
        """Take a job; it may start in the next `step`. Returns its number."""
        for _, earlier in job.after:
            self._submitted(earlier)
        number, self._next = self._next, self._next + 1
        state: JobState = "held" if job.held else "waiting"
        elements = {
            index: LocalElement(index, state, not_before=job.begin) for index in job.indices
        }
        os.mkdir(self._folder(number), 0o700)
        script = os.open(self._script(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
        with open(script, "wb") as file:
            file.write(job.script.encode("utf-8", "surrogateescape"))
        self.jobs[number] = Submitted(number, job, time.time(), elements)
        self._waiting[number] = dict(elements)
        self._begins.add(job.begin)
        return number

    def _folder(self, number: int, *names: str) -> str:
        return os.path.join(self.folder, str(number), *names)

    def _script(self, number: int) -> str:
        return self._folder(number, "script")

    def cancel(
        self, number: int, indices: Indices | None = None, state: JobState = "cancelled"
    ) -> None:
        """End a job, or some elements of it, with TERM and after the grace with KILL.

        ``state`` is what they end in: "cancelled", "preempted", or "node", which is KILL at once.
        What has ended stays as it is.
        """
        for element in self._chosen(number, indices):
            if element.state in ("waiting", "held"):
                del self._waiting[number][element.index]
                element.state, element.ended = state, time.time()
                self._changed[element] = number
            elif element in self._running:
                self._stop(element, state)

    def _stop(self, element: LocalElement, state: JobState) -> None:
        running = self._running[element]
        if element.state == "running":
            running.stop(state, 0.0 if state == "node" else self._grace)
            self._changed[element] = running.begin.submitted.number
        elif running.again is not None:  # it is ending, and will not begin again
            running.state, running.again = state, None

    def requeue(self, number: int, index: int | None, delay: float = 0.0) -> None:
        """End an element, and let it wait to begin again, in ``delay`` seconds at the earliest."""
        (element,) = self._chosen(number, [index])
        if element.state == "running":
            self._running[element].stop(None, self._grace, again=delay)
            self._changed[element] = number
        elif element.state in ENDED:
            self._wait_again(number, element, delay)

    def _wait_again(self, number: int, element: LocalElement, delay: float) -> None:
        element.state, element.reason = "waiting", ""
        element.pid = element.began = element.ended = None
        element.exit_status = element.signal = element.cpu_time = element.peak_memory = None
        element.restarts += 1
        element.not_before = time.time() + delay
        self._begins.add(element.not_before)
        self._waiting[number][element.index] = element

    def hold(self, number: int, indices: Indices | None = None) -> None:
        """Keep waiting elements from starting."""
        for element in self._chosen(number, indices):
            if element.state == "waiting":
                element.state = "held"

    def release(self, number: int, indices: Indices | None = None) -> None:
        """Let held elements wait for their turn again."""
        for element in self._chosen(number, indices):
            if element.state == "held":
                element.state = "waiting"

    def signal(
        self,
        number: int,
        signum: int,
        indices: Indices | None = None,
        *,
        script_only: bool = False,
    ) -> None:
        """Send a signal to all processes of the elements that run, or to their scripts only."""
        for element in self._chosen(number, indices):
            if element in self._running:
                self._running[element].process.signal(signum, script_only=script_only)

    def close(self) -> None:
        """Cancel everything, end every process with KILL, and remove the folder."""
        for waiting in self._waiting.values():
            for element in waiting.values():
                element.state, element.ended = "cancelled", time.time()
            waiting.clear()
        for running in self._running.values():
            running.state = running.state or "cancelled"
            running.again = None
            running.kill()
        deadline = time.monotonic() + _CLOSING
        while self._running and time.monotonic() < deadline:
            self._reap(deadline - time.monotonic())
        shutil.rmtree(self.folder, ignore_errors=True)

    # Going on ------------------------------------------------------------------------------------

    def step(self, timeout: float = 0.0) -> list[tuple[int, LocalElement]]:
        """Start what may start, end what is over its walltime, and note what has ended.

        Waits up to ``timeout`` seconds for something to happen. Returns the elements whose state
        has changed, with the numbers of their jobs, in order.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._reap(0.0)
            self._end_overdue()
            self._look()
            self._start()
            left = deadline - time.monotonic()
            if self._changed or self._woken or left <= 0:
                changed, self._changed, self._woken = self._changed, {}, False
                return [(number, element) for element, number in changed.items()]
            self._reap(min(left, self._next_event()))

    def wake(self) -> None:
        """Make `step` return soon; another thread may call it, and a signal handler."""
        self._endings.put(None)

    def _next_event(self) -> float:
        """Seconds until there is something to do, whatever ends before."""
        now, clock = time.monotonic(), time.time()
        times = [each.next_event - now for each in self._running.values()]
        if self._running:
            times.append(self._look_at - now)
        self._begins = {begin for begin in self._begins if begin > clock}
        times += [begin - clock for begin in self._begins]
        return max(min(times, default=float("inf")), 0.0)

    def _reap(self, timeout: float) -> None:
        """Note what has ended, after ``timeout`` seconds at the latest."""
        with suppress(Empty):
            self._finish(self._endings.get(timeout=min(timeout, 3600.0)))
            while True:
                self._finish(self._endings.get_nowait())

    def _finish(self, ending: Ending | None) -> None:
        if ending is None:
            self._woken = True
            return
        element, running = next(
            (element, running)
            for element, running in self._running.items()
            if running.process is ending.process
        )
        running.finish(ending)
        del self._running[element]
        number = running.begin.submitted.number
        self._free.append(element.node)
        if not element.undelivered:
            shutil.rmtree(running.begin.folder, ignore_errors=True)
        if running.again is not None:
            self._wait_again(number, element, running.again)
        self._changed[element] = number

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for element, running in self._running.items():
            if running.warn_at <= now:
                running.warn()
            if running.over <= now:
                self._stop(element, "walltime")
            if running.kill_at <= now:
                running.kill()

    def _look(self) -> None:
        if self._running and self._look_at <= time.monotonic():
            look([running.process for running in self._running.values()])
            self._look_at = time.monotonic() + _NEXT_LOOK

    def _start(self) -> None:
        """Start elements while workers are free."""
        for number, element in self._startable():
            submitted = self.jobs[number]
            del self._waiting[number][element.index]
            element.node = self._free.pop(0)
            element.raw = element.raw or self._raw(number)
            element.began = time.time()
            self._changed[element] = number
            folder = self._folder(number, f"{element.index}.{element.restarts}")
            os.mkdir(folder, 0o700)
            begin = Begin(submitted, element, self._host, folder)
            try:
                running = Running(begin, self._script(number), self._endings.put)
            except NotStartedError as problem:
                self._free.append(element.node)
                element.state, element.reason = "failed", str(problem)
                element.exit_status, element.ended = problem.status, time.time()
                shutil.rmtree(folder, ignore_errors=True)
                continue
            element.state, element.pid = "running", running.process.pid
            self._running[element] = running
            self._look_at = min(self._look_at, time.monotonic() + _FIRST_LOOK)

    def _raw(self, number: int) -> int:
        """A number for an element; the last one of a job has that of the job, as on Slurm."""
        if not self._waiting[number]:
            return number
        raw, self._next = self._next, self._next + 1
        return raw

    def _startable(self) -> Iterator[tuple[int, LocalElement]]:
        """The elements that may start now, one after the other, as long as a worker is free."""
        now = time.time()
        for number, waiting in self._waiting.items():
            for element in list(waiting.values()) if self._free else ():
                if not self._free or self._blocked(number):
                    break
                if element.state == "waiting" and element.not_before <= now:
                    yield number, element

    def _blocked(self, number: int) -> str:
        """What keeps a whole job from starting another element."""
        job = self.jobs[number].job
        for kind, earlier in job.after:
            blocked = self._depends(kind, earlier)
            if blocked:
                return blocked
        full = job.at_once is not None and self._active(number) >= job.at_once
        return "at once" if full else ""

    def _active(self, number: int) -> int:
        return sum(each.begin.submitted.number == number for each in self._running.values())

    def _depends(self, kind: str, number: int) -> str:
        states = [element.state for element in self.jobs[number].elements.values()]
        if kind == "after":
            return "dependency" if {"waiting", "held"} & set(states) else ""
        if not ENDED.issuperset(states):
            return "dependency"
        good = set(states) == {"done"}
        return "never" if (kind, good) in (("afterok", False), ("afternotok", True)) else ""
