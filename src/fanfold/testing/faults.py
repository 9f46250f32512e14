"""Scripted faults: tasks that misbehave on command, the same way every time.

`Script` makes a task function of them, and `grid` is the nineteen that every executor of processes
should be tried with.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from fanfold.errors import (
    LoadFailed,
    NotSerializable,
    RemoteError,
    TaskStalled,
    TaskTimeout,
    WorkerDied,
)

__all__ = [
    "Fault",
    "LockedError",
    "PickyError",
    "Script",
    "close_descriptors",
    "die_sending",
    "exit_now",
    "exits_on_load",
    "grid",
    "hold_interpreter",
    "kill_self",
    "nested",
    "raise_error",
    "raises_on_load",
    "recurse",
    "segfault",
]


def kill_self(signum: int = signal.SIGKILL) -> None:
    """Send ``signum`` to the process that runs this: a worker, it is hoped."""
    os.kill(os.getpid(), signum)
    signal.pause()  # a signal to oneself may arrive a moment later


def exit_now(code: int = 0) -> NoReturn:
    """End this process at once with exit status ``code``, without any clean-up."""
    os._exit(code)


def segfault() -> None:
    """Read address 0, as C code with a mistake does."""
    ctypes.string_at(0)


def recurse() -> None:
    """Call itself until Python gives up."""
    recurse()


def nested(depth: int = 200_000) -> list[Any]:
    """A list in a list in a list, ``depth`` deep: too deep to be pickled."""
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


def die_sending(size: int, delay: float) -> bytes:
    """A result of ``size`` bytes, and SIGKILL ``delay`` seconds after it was returned."""

    returns = threading.Event()

    def die() -> None:
        returns.wait()  # for a thread may take long to begin
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    result = bytes(size)
    threading.Thread(target=die, daemon=True).start()
    returns.set()
    return result


def close_descriptors(first: int = 3, stop: int = 4096) -> None:
    """Close what is not one's own: the worker's channel too."""
    os.closerange(first, stop)


def hold_interpreter(seconds: float) -> None:
    """Wait in C without letting go of the interpreter: no other thread of the process runs."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def raise_error(make: Callable[..., BaseException], *args: Any) -> NoReturn:
    """Raise ``make(*args)``, which is made here and so need not be sent."""
    raise make(*args)


class PickyError(Exception):
    """An exception that cannot be made again from its ``args``."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")


class LockedError(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class _CallsOnLoad:
    """Pickles; to load it is to call ``function(*args)``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> Any:
        return self._call


def raises_on_load() -> object:
    """An object that can be sent, and raises LookupError where it is loaded."""
    return _CallsOnLoad(raise_error, LookupError, "it raises when it is loaded")


def exits_on_load(code: int = 3) -> object:
    """An object that can be sent, and ends the process where it is loaded."""
    return _CallsOnLoad(os._exit, code)


@dataclass(frozen=True)
class Script:
    """A task function that squares its input, except for the inputs that have a fault.

    >>> def broken() -> None:
    ...     raise ZeroDivisionError
    >>> import fanfold as ff
    >>> ff.map(Script({2: broken}), range(4), on="serial", errors="return")
    [0, 1, ZeroDivisionError(), 9]
    """

    faults: Mapping[Any, Callable[[], Any]]

    def __call__(self, number: int) -> Any:
        fault = self.faults.get(number)
        return number * number if fault is None else fault()


@dataclass(frozen=True)
class Fault:
    """A way to misbehave, and what a good executor makes of it.

    ``act`` is what the guilty task does; ``argument`` makes its input, where that is what is wrong
    with it. The task then fails with an ``error`` of this type, or it ends well (None). Where it
    kills its worker, ``exitcode`` says how (minus the signal, as in `subprocess`) and ``phase``
    when (None: that differs from time to time). ``timeout`` is the limit that the map should set;
    ``patience`` the seconds after which a call that has not returned counts as hanging.
    """

    name: str
    error: type[BaseException] | None
    act: Callable[[], Any] = field(default=int)
    argument: Callable[[], Any] | None = None
    exitcode: int | None = None
    phase: str | None = "run"
    timeout: float | None = None
    patience: float = 5.0

    def script(self, guilty: int, count: int) -> tuple[Script, list[Any]]:
        """A task function and ``count`` inputs for it; that of task ``guilty`` has the fault.

        >>> import fanfold as ff
        >>> fault = Fault("division", ZeroDivisionError, lambda: 1 / 0)
        >>> ff.map(*fault.script(guilty=1, count=3), on="threads", errors="return")
        [0, ZeroDivisionError('division by zero'), 4]
        """
        inputs: list[Any] = list(range(count))
        if self.argument is not None:
            inputs[guilty] = self.argument()
        return Script({guilty: self.act}), inputs


def _death(name: str, exitcode: int, act: Callable[[], Any], **details: Any) -> Fault:
    return Fault(name, WorkerDied, act, exitcode=exitcode, **details)


def grid(gibibyte: int = 1 << 30) -> list[Fault]:
    """Nineteen faults. Where memory is scarce ``gibibyte`` may be less than that, in bytes.

    >>> len(grid())
    19
    """
    scale = gibibyte / (1 << 30)
    slow = 5.0 + 60.0 * scale
    kill, send = -signal.SIGKILL, {"phase": "send", "patience": slow}
    return [
        _death("SIGKILL to itself", kill, kill_self),
        _death("`os._exit(0)`", 0, exit_now),
        _death("segfault", -signal.SIGSEGV, segfault),
        _death("SIGTERM to itself", -signal.SIGTERM, partial(kill_self, signal.SIGTERM)),
        Fault("`sys.exit(3)`", SystemExit, partial(sys.exit, 3)),
        Fault("KeyboardInterrupt", KeyboardInterrupt, partial(raise_error, KeyboardInterrupt)),
        Fault(
            "exception, `__init__` not replayable",
            RemoteError,
            partial(raise_error, PickyError, "here", "it is picky"),
        ),
        Fault(
            "exception not picklable",
            RemoteError,
            partial(raise_error, LockedError, "locked"),
        ),
        Fault("result not picklable", NotSerializable, threading.Lock),
        Fault("result raises on load", LoadFailed, raises_on_load),
        Fault("argument raises on load", LoadFailed, argument=raises_on_load),
        _death("argument exits on load", 3, int, argument=exits_on_load, phase="load"),
        Fault("RecursionError", RecursionError, recurse),
        Fault("result nested 200 000 deep", NotSerializable, nested),
        _death(
            "killed while sending 1 GiB", kill, partial(die_sending, gibibyte, 0.15 * scale), **send
        ),
        _death("closes fds 3-4096", kill, close_descriptors, phase=None),
        Fault("120 s task, limit 1.5 s", TaskTimeout, partial(time.sleep, 120), timeout=1.5),
        Fault("SIGSTOP to itself", TaskStalled, partial(kill_self, signal.SIGSTOP)),
        Fault("result of 2 GiB + 10", None, partial(bytes, 2 * gibibyte + 10), patience=slow),
    ]
