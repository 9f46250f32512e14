"""Scripted faults: tasks that misbehave on command, the same way every time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

__all__ = ["Script", "exit_now", "kill_self"]


def kill_self(signum: int = signal.SIGKILL) -> None:
    """Send ``signum`` to the process that runs this: a worker, it is hoped."""
    os.kill(os.getpid(), signum)
    signal.pause()  # a signal to oneself may arrive a moment later


def exit_now(code: int = 0) -> NoReturn:
    """End this process at once with exit status ``code``, without any clean-up."""
    os._exit(code)


@dataclass(frozen=True)
class Script:
    """A task function that squares its input, except for the inputs that have a fault.

    >>> def broken() -> None:
    ...     raise ZeroDivisionError
    >>> import fanfold as ff
    >>> ff.map(Script({2: broken}), range(4), on="serial", errors="return")
    [0, 1, ZeroDivisionError(), 9]
    """

    faults: Mapping[int, Callable[[], Any]]

    def __call__(self, number: int) -> Any:
        fault = self.faults.get(number)
        return number * number if fault is None else fault()
