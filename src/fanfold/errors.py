"""Every exception of fanfold.

What your own function raises comes back as itself. The rest is here:

    FanfoldError
    ├── UsageError (ValueError)          the call or the command was wrong; nothing has run
    ├── PoolClosed (RuntimeError)        work was given to an executor after its shutdown
    ├── StartupFailed (BrokenExecutor)   workers could not be started, or their initializer failed
    ├── NoSpace (OSError)                shared memory and the temporary folder are full
    └── TaskError                        one task failed, and not by an exception of its own
        ├── WorkerDied                   the worker running it ended: signal, exit, segfault
        ├── TaskTimeout (TimeoutError)   it ran longer than its ``timeout``
        ├── TaskStalled                  its worker was stopped (SIGSTOP) and did not come back
        ├── TaskLost                     its workers died again and again before it could start
        ├── NotSerializable (TypeError)  its input or result cannot be sent
        ├── LoadFailed                   its argument or result was sent but cannot be loaded
        └── RemoteError                  its exception cannot be rebuilt here, only told

`StartupFailed` has its home in `fanfold.executors.base`: workers need the others, and to import
concurrent.futures for it would make them a fifth slower to start.

>>> issubclass(TaskTimeout, TimeoutError)
True
"""

from __future__ import annotations

import signal

__all__ = [
    "FanfoldError",
    "LoadFailed",
    "NoSpace",
    "NotSerializable",
    "PoolClosed",
    "RemoteError",
    "RemoteTraceback",
    "TaskError",
    "TaskLost",
    "TaskStalled",
    "TaskTimeout",
    "UsageError",
    "WorkerDied",
]


class FanfoldError(Exception):
    """The base of every error that fanfold itself raises."""


class UsageError(FanfoldError, ValueError):
    """The call or the command was wrong: the message says what would be right."""


class PoolClosed(FanfoldError, RuntimeError):
    """Work was given to an executor after its shutdown."""


class NoSpace(FanfoldError, OSError):
    """Neither shared memory nor the temporary folder has room for the data."""


class TaskError(FanfoldError):
    """One task failed, and not by an exception of its own.

    ``index`` is the task's position in the inputs (None for a single ``submit``).
    """

    index: int | None = None


class WorkerDied(TaskError):
    """The worker that ran the task ended before the task did.

    ``pid`` names the process; ``exitcode`` is what it ended with (negative: minus the signal,
    as in ``subprocess``; None when not known); ``phase`` is what it was doing: ``"load"`` (reading
    the arguments), ``"run"`` or ``"send"`` (returning the result); ``peak_memory`` is the largest
    resident size it had, in bytes.
    """

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
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return signal.Signals(-self.exitcode)
        except ValueError:  # a real-time signal has no name
            return None


class TaskTimeout(TaskError, TimeoutError):
    """The task ran longer than its ``timeout``."""


class TaskStalled(TaskError):
    """The worker of the task was stopped (SIGSTOP) and did not continue."""


class TaskLost(TaskError):
    """The task was given to several workers, and all of them died before it could start."""


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
