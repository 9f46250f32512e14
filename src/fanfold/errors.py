"""Every exception of fanfold.

What your own function raises comes back as itself. The rest is here:

    FanfoldError
    ├── UsageError (ValueError)          the call or the command was wrong; nothing has run
    │   └── RunNotFound                  there is no run of that name
    ├── PoolClosed (RuntimeError)        work was given to an executor after its shutdown
    ├── StartupFailed (BrokenExecutor)   workers could not be started, or their initializer failed
    ├── EngineLost                       a cluster is gone or cannot be reached: MPI, Dask, IPython
    ├── NoSpace (OSError)                shared memory, the temporary folder or a disk is full
    ├── SharedGone                       a shared array or value is not there, or not any more
    ├── SourceChanged                    a file was cut or replaced while it was read
    ├── RunError                         a run cannot be read, or not be worked on
    │   ├── RunBusy                      another driver works on it
    │   ├── RunCancelled                 somebody cancelled it
    │   ├── RunChanged                   its function is not the one that it was begun with
    │   ├── RunDamaged                   a file of it is missing or does not hold what it should
    │   ├── RunReadOnly                  its folder cannot be written
    │   ├── RunSuperseded                another driver has taken it over
    │   ├── RunTooNew                    a newer fanfold wrote it
    │   ├── RunUnfinished                some of its tasks have no result
    │   ├── RunUntrusted                 it belongs to somebody else
    │   └── UnsafeFolder                 somebody else could write in it
    ├── SchedulerError                   Slurm or PBS said something that does not help
    │   ├── SchedulerDown                it does not answer now
    │   ├── SchedulerFull                it takes no more jobs now
    │   ├── SubmitRefused (UsageError)   it does not take such a job
    │   └── SubmitUnknown                it may have taken the job, or not
    └── TaskError                        one task failed, and not by an exception of its own
        ├── WorkerDied                   the worker running it ended: signal, exit, segfault
        ├── CommandFailed                its program ended with an exit status or a signal
        ├── TaskTimeout (TimeoutError)   it ran longer than its ``timeout``
        ├── TaskTooLarge (MemoryError)   its worker grew beyond ``max_memory_per_worker``
        ├── TaskStalled                  its worker was stopped (SIGSTOP) and did not come back
        ├── TaskLost                     its workers died again and again before it could start
        ├── TaskMissing                  it has not been tried to its end, in this run
        ├── NotSerializable (TypeError)  its input or result cannot be sent
        ├── LoadFailed                   its argument or result was sent but cannot be loaded
        └── RemoteError                  its exception cannot be rebuilt here, only told

`StartupFailed` has its home in `fanfold.executors.base`: workers need the others, and to import
concurrent.futures for it would make them a fifth slower to start.

>>> issubclass(TaskTimeout, TimeoutError)
True
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fanfold.tasks import Evidence

__all__ = [
    "CommandFailed",
    "EngineLost",
    "FanfoldError",
    "LoadFailed",
    "NoSpace",
    "NotSerializable",
    "PoolClosed",
    "RemoteError",
    "RemoteTraceback",
    "RunBusy",
    "RunCancelled",
    "RunChanged",
    "RunDamaged",
    "RunError",
    "RunNotFound",
    "RunReadOnly",
    "RunSuperseded",
    "RunTooNew",
    "RunUnfinished",
    "RunUntrusted",
    "SchedulerDown",
    "SchedulerError",
    "SchedulerFull",
    "SharedGone",
    "SourceChanged",
    "SubmitRefused",
    "SubmitUnknown",
    "TaskError",
    "TaskLost",
    "TaskMissing",
    "TaskStalled",
    "TaskTimeout",
    "TaskTooLarge",
    "UnsafeFolder",
    "UsageError",
    "WorkerDied",
]

_LONGEST_COMMAND = 120  # characters in a message


class FanfoldError(Exception):
    """The base of every error that fanfold itself raises."""


class UsageError(FanfoldError, ValueError):
    """The call or the command was wrong: the message says what would be right."""


class RunNotFound(UsageError):
    """There is no run of that name, or in that folder."""


class PoolClosed(FanfoldError, RuntimeError):
    """Work was given to an executor after its shutdown."""


class EngineLost(FanfoldError):
    """The engine that runs the tasks (MPI, Dask, IPython) is gone, or cannot be reached."""


class NoSpace(FanfoldError, OSError):
    """There is no room for the data: in shared memory and the temporary folder, or on the disk of
    a run."""


class SharedGone(FanfoldError):
    """A shared array or value cannot be attached to: its owner has closed it or has ended, it is
    memory of another machine, or its file is not what it was."""


class SourceChanged(FanfoldError):
    """A file does not hold any more what it did when the work began: it was cut or replaced."""


class RunError(FanfoldError):
    """A durable run cannot be read, or cannot be worked on."""


class RunBusy(RunError):
    """Another driver works on the run: process ``pid`` on ``host``, since ``since``.

    ``path`` is the run's folder; times are in seconds since 1970.
    """

    def __init__(self, path: str | os.PathLike[str], host: str, pid: int, since: float) -> None:
        super().__init__(path, host, pid, since)
        self.path = path
        self.host = host
        self.pid = pid
        self.since = since

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return (
            f"process {self.pid} on {self.host} works on the run in {os.fspath(self.path)}, since "
            f"{since}: wait for it, end it (kill {self.pid}), or take the run over with --steal "
            "(steal=True)"
        )


class RunCancelled(RunError):
    """Somebody cancelled the run: what is done stays done."""


class RunChanged(RunError):
    """The function is not the one that the run was begun with; ``changes`` are sentences."""

    def __init__(self, name: str, changes: list[str]) -> None:
        super().__init__(name, changes)
        self.name = name
        self.changes = changes

    def __str__(self) -> str:
        return (
            f"the run {self.name} was begun with something else: {'; '.join(self.changes)}. Keep "
            "its results with --resume anyway, run everything again with --resume fresh (the old "
            "run is kept aside), or give this one another --name"
        )


class RunDamaged(RunError):
    """A file of the run is missing, or does not hold what it should: the message names it."""


class RunReadOnly(RunError):
    """The folder of the run, or the one it is to be in, cannot be written."""


class RunSuperseded(RunError):
    """Another driver has taken the run over while this one stood still; this one has stopped."""


class RunTooNew(RunError):
    """A newer fanfold wrote this file: it is of format ``found``, and ``known`` is known here."""

    def __init__(self, path: str | os.PathLike[str], found: int, known: int) -> None:
        super().__init__(path, found, known)
        self.path = path
        self.found = found
        self.known = known

    def __str__(self) -> str:
        return (
            f"{os.fspath(self.path)} is of format {self.found}, and this fanfold knows formats up "
            f"to {self.known}: use the version that wrote it, or a later one"
        )


class RunUnfinished(RunError):
    """Some tasks of the run have no result."""


class RunUntrusted(RunError):
    """Something to be unpickled belongs to somebody else: ``owner``. Loading it would run what
    they put there."""

    def __init__(self, path: str | os.PathLike[str], owner: str) -> None:
        super().__init__(path, owner)
        self.path = path
        self.owner = owner

    def __str__(self) -> str:
        return (
            f"{os.fspath(self.path)} belongs to {self.owner}, and to load it would run what "
            f"{self.owner} put there: say --trust (trust=True) if that is as it should be"
        )


class UnsafeFolder(RunError):
    """Somebody else could write where pickles are kept: the message says how to forbid it."""


class SchedulerError(FanfoldError):
    """Slurm or PBS said something that does not help: the message holds its words."""


class SchedulerDown(SchedulerError):
    """The scheduler, or its records, cannot be asked now; later they may."""


class SchedulerFull(SchedulerError):
    """The scheduler takes no more jobs of this user, or at all, until others have ended."""


class SubmitRefused(SchedulerError, UsageError):
    """The scheduler does not take such a job: its own words, and what to do. Nothing has run."""


class SubmitUnknown(SchedulerError):
    """The reply of the scheduler was lost: it may have taken the job, or not."""


class TaskError(FanfoldError):
    """One task failed, and not by an exception of its own.

    ``index`` is the task's position in the inputs (None for a single ``submit``). ``evidence``
    tells how the task ran and what it printed, where the map asked for that and it was running.
    """

    index: int | None = None
    evidence: Evidence | None = None


class WorkerDied(TaskError):
    """The worker that ran the task ended before the task did.

    ``pid`` names the process; ``exitcode`` is what it ended with (negative: minus the signal,
    as in ``subprocess``; None when not known); ``phase`` is what it was doing: ``"load"`` (reading
    the arguments), ``"run"`` or ``"send"`` (returning the result); ``peak_memory`` is the largest
    resident size it had, in bytes. ``out_of_memory`` says whether the kernel ended it for want of
    memory; None when that is not known.
    """

    out_of_memory: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        exitcode: int | None = None,
        phase: str = "run",
        peak_memory: int | None = None,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.exitcode = exitcode
        self.phase = phase
        self.peak_memory = peak_memory

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that ended the worker, or None.

        >>> WorkerDied("...", exitcode=-9).signal.name
        'SIGKILL'
        """
        return _signal_of(self.exitcode)


def _signal_of(exitcode: int | None) -> signal.Signals | None:
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode)
    except ValueError:  # a real-time signal has no name
        return None


class CommandFailed(TaskError):
    """The program that a task ran, with the arguments ``argv``, has failed.

    ``exitcode`` is what it ended with, as in `WorkerDied`; None when it did not run to its end.
    ``stderr`` are the last lines that it wrote to standard error, or why it did not run.

    >>> print(CommandFailed(["sort", "a b"], 2, "sort: cannot read: a b"))
    sort 'a b' ended with exit status 2: sort: cannot read: a b
    >>> CommandFailed(["sort"], -11, "").signal.name
    'SIGSEGV'
    """

    def __init__(self, argv: list[str], exitcode: int | None, stderr: str) -> None:
        super().__init__(argv, exitcode, stderr)
        self.argv = argv
        self.exitcode = exitcode
        self.stderr = stderr

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that ended the program, or None."""
        return _signal_of(self.exitcode)

    def __str__(self) -> str:
        import shlex  # late: workers need this module at once

        command = " ".join(shlex.join(self.argv).split())
        if len(command) > _LONGEST_COMMAND:
            command = f"{command[: _LONGEST_COMMAND - 3]}..."
        said = self.stderr.strip().rpartition("\n")[2]
        return f"{command} {self._ending()}{f': {said}' if said else ''}"

    def _ending(self) -> str:
        if self.exitcode is None:
            return "did not run"
        if self.exitcode >= 0:
            return f"ended with exit status {self.exitcode}"
        return f"was ended by {self.signal.name if self.signal else f'signal {-self.exitcode}'}"


class TaskTimeout(TaskError, TimeoutError):
    """The task ran longer than its ``timeout``."""


class TaskTooLarge(TaskError, MemoryError):
    """The task made its worker larger than ``max_memory_per_worker``, and was ended with it.

    ``memory`` is what the worker had of its own when that was seen, ``limit`` what it might have,
    in bytes.
    """

    def __init__(self, message: str, *, memory: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.memory = memory
        self.limit = limit


class TaskStalled(TaskError):
    """The worker of the task was stopped (SIGSTOP) and did not continue."""


class TaskLost(TaskError):
    """The task was given to several workers, and all of them died before it could start."""


class TaskMissing(TaskError):
    """The task of a run has not been tried to its end."""


class NotSerializable(TaskError, TypeError):
    """A function, an argument, a result or an exception cannot be sent between processes."""


class LoadFailed(TaskError):
    """An argument or a result was sent, but raised when it was loaded."""


class RemoteError(TaskError):
    """The task raised an exception that cannot be rebuilt here.

    ``original_type`` is its full name; the message holds its text, the cause its traceback.
    """

    def __init__(self, message: str, original_type: str = "") -> None:
        super().__init__(message)
        self.original_type = original_type


class RemoteTraceback(Exception):
    """The traceback of a worker, shown as the cause of the exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'
