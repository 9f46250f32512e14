"""A scheduler as somebody at a login node uses it: what `SchedulerTests` is made of."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fanfold.errors import SubmitRefused
from fanfold.resources import Resources
from fanfold.schedulers.base import ENDED, Answer, Job, Limits, Scheduler, Seen
from fanfold.schedulers.commands import ask
from fanfold.testing.functions import Gate, until

__all__ = ["Desk", "Elements", "Index"]

Index = int | None
Elements = dict[Index, Seen]

_PAUSE = 0.1  # seconds between two looks


class Desk:
    """Jobs are handed in here, watched and cancelled.

    ``folder`` is for the scripts, for what they print, and for the `gate` that they wait at. Every
    wait ends after ``patience`` seconds.
    """

    def __init__(self, scheduler: Scheduler, folder: Path, patience: float) -> None:
        self.scheduler = scheduler
        self.folder = folder
        self.gate = Gate(folder)
        self._patience = patience
        self._jobs: dict[str, list[Index]] = {}  # by id: the indices of their elements

    @property
    def index(self) -> str:
        """What a shell reads as the index of its element, or ``none``."""
        return f"${{{self.scheduler.variables['index']}-none}}"

    @property
    def wait_at_gate(self) -> str:
        """The shell commands to say that an element came, and to wait until the gate is open."""
        place = shlex.quote(str(self.folder))
        came = f'touch {place}/"{self.index}".came'
        return f"{came}; until test -e {place}/open; do sleep 0.1; done"

    def mark(self, name: str) -> str:
        """The shell command that leaves a file of that name (and index): proof that it was run."""
        return f'touch {shlex.quote(str(self.folder))}/"{name}-{self.index}".mark'

    def marks(self) -> set[str]:
        """The names that were left."""
        return {path.stem for path in self.folder.glob("*.mark")}

    def describe(self, *, last: int = 0, **given: Any) -> Job:
        """A job of the elements 0 ... ``last``, with a name that no other has."""
        name = f"kit-{secrets.token_hex(4)}"
        asked = {"name": name, "resources": Resources(), "output": str(self.folder / name), **given}
        return Job(first=0, last=last, **asked)

    def hand_in(self, job: Job, body: str) -> Answer:
        """Submit a script with these shell commands; what the scheduler says to that."""
        script = self.folder / f"{secrets.token_hex(4)}.sh"
        script.write_text("\n".join(["#!/bin/sh", *self.scheduler.header(job), body, ""]))
        answer = ask(self.scheduler.submission(str(script)))
        with suppress(SubmitRefused):
            indices: list[Index] = list(range(job.last + 1)) if job.last else [None]
            self._jobs[self.scheduler.submitted(answer)] = indices
        return answer

    def submit(self, body: str, last: int = 0, **given: Any) -> str:
        """Submit a script, and return the id of the job."""
        return self.scheduler.submitted(self.hand_in(self.describe(last=last, **given), body))

    def printed(self, output: str) -> list[str]:
        """The lines in a file of that name, which may come a while after its job has ended."""
        path = self.folder / output
        until(path.exists, f"the file {output!r}", self._patience)
        return path.read_text().splitlines()

    def find(self, name: str) -> list[str]:
        return self.scheduler.found(ask(self.scheduler.search(name)))

    def watch(self, *jobs: str) -> list[Seen]:
        return self.scheduler.seen(ask(self.scheduler.watch(jobs)))

    def history(self, *jobs: str) -> list[Seen]:
        return self.scheduler.recorded(ask(self.scheduler.history(jobs)))

    def limits(self) -> Limits:
        return self.scheduler.read_limits(ask(self.scheduler.limits()))

    def cancel(self, job: str, indices: Sequence[int] | None = None) -> None:
        for command in self.scheduler.cancel(job, indices):
            self.scheduler.cancelled(ask(command))

    def elements(self, job: str) -> Elements:
        """What the queue says of the elements of a job, and the records of those that left it."""
        seen = {one.index: one for one in self.watch(job)}
        if all(index in seen for index in self._jobs[job]):
            return seen
        return {one.index: one for one in self.history(job)} | seen

    def wait(self, job: str, what: str, holds: Callable[[Elements], bool]) -> Elements:
        """Wait until that holds for what is seen of a job, and return it."""
        deadline = time.monotonic() + self._patience
        while not holds(elements := self.elements(job)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {self._patience:g} s for {what}: {elements}")
            time.sleep(_PAUSE)
        return elements

    def wait_for(self, job: str, state: str, *indices: Index) -> None:
        """Wait until these elements are seen in that state."""
        self.wait(
            job,
            f"{indices} to be {state}",
            lambda seen: all(index in seen and seen[index].state == state for index in indices),
        )

    def end_of(self, job: str) -> Elements:
        """Wait until all elements have ended; what is said of them then."""
        expected = self._jobs[job]
        return self.wait(
            job,
            "its end",
            lambda seen: all(index in seen and seen[index].state in ENDED for index in expected),
        )

    def close(self) -> None:
        """Cancel what has not ended, and wait until it has."""
        for job in reversed(self._jobs):  # those that wait for others first
            if any(map(_live, self.watch(job))):
                self.cancel(job)
        self.gate.open()
        for job in self._jobs:
            self.wait(job, "its end", lambda seen: not any(map(_live, seen.values())))


def _live(seen: Seen) -> bool:
    return seen.state not in ENDED and seen.state != "vanished"
