"""What is submitted to this machine, and what became of it: records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fanfold.schedulers.base import JobState
from fanfold.schedulers.scripts.dialect import Layout

__all__ = ["LocalElement", "LocalJob", "Submitted"]


class LocalJob(NamedTuple):
    """A job script as it is submitted, from `fanfold.schedulers.local.read_job` or made by hand.

    ``indices`` are those of its elements, in order; ``(None,)`` is a plain job. ``step`` is what
    Slurm calls the step between them. It starts in ``folder``, with ``environment`` and the
    variables of the ``dialect``, and may run for ``walltime`` seconds (None: as long as it likes).
    ``warning`` is a signal, how many seconds before that it is sent, and whether to the script
    only. ``login`` is the login shell that PBS starts it with ("": the user's).

    ``output`` and ``error`` are paths as the dialect writes them, "" is the default name; ``join``
    is as ``-j`` of PBS has it: both into the output ("oe") or into the error ("eo"). ``keep`` is as
    ``-k`` of PBS has it: with "d" files are written in their place, and else put there when the
    element has ended. ``append`` adds to what is there. A ``umask`` of None is that of the queue.

    ``after`` holds pairs of a kind (after, afterok, afternotok, afterany) and the number of a job;
    ``begin`` is the time before which nothing starts, in seconds since 1970.
    """

    script: str
    name: str
    dialect: Literal["slurm", "pbs"]
    submit_folder: str
    folder: str
    indices: Sequence[int | None] = (None,)
    step: int = 1
    at_once: int | None = None
    walltime: float | None = None
    warning: tuple[int, float, bool] | None = None
    output: str = ""
    error: str = ""
    join: Literal["", "oe", "eo"] = ""
    keep: str = ""
    append: bool = False
    input: str = os.devnull
    arguments: Sequence[str] = ()
    login: str = ""
    environment: Mapping[str, str] = {}
    umask: int | None = None
    after: Sequence[tuple[str, int]] = ()
    held: bool = False
    begin: float = 0.0
    queue: str = "local"
    account: str = ""
    layout: Layout = Layout()

    @property
    def is_array(self) -> bool:
        return self.indices[0] is not None


@dataclass(slots=True, eq=False)
class LocalElement:
    """One element of a job on this machine, or a plain job (index None): what became of it so far.

    ``raw`` is the number that Slurm gives each element when it starts. ``exit_status`` or
    ``signal`` say how its script ended; with neither, ``reason`` says why it was not started, or
    it was cancelled before. Times are in seconds since 1970, ``cpu_time`` in seconds of the script
    and what it waited for, ``peak_memory`` in bytes of its processes together (None: it ended
    before anybody looked). ``output`` and ``error`` are where they go; ``undelivered`` are files
    that could not be put there, where they lie until the queue is closed. ``restarts`` counts how
    often it was begun again, ``not_before`` is the time it may start at.
    """

    index: int | None
    state: JobState = "waiting"
    raw: int = 0
    pid: int | None = None
    node: str = ""
    began: float | None = None
    ended: float | None = None
    exit_status: int | None = None
    signal: int | None = None
    reason: str = ""
    cpu_time: float | None = None
    peak_memory: int | None = None
    output: str = ""
    error: str = ""
    undelivered: tuple[str, ...] = ()
    restarts: int = 0
    not_before: float = 0.0


class Submitted(NamedTuple):
    """A job of a queue: its number, what was submitted, when, and its elements by index."""

    number: int
    job: LocalJob
    since: float
    elements: dict[int | None, LocalElement]
