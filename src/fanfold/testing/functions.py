"""Small things that the kits send to workers: at module level, so that they pickle by name."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

__all__ = [
    "Gate",
    "KitError",
    "divide",
    "echo",
    "fail",
    "fail_in_worker",
    "greet",
    "greeting",
    "mark",
    "quit_softly",
    "same",
    "square",
    "unsteady",
    "until",
    "whereabouts",
]


class KitError(Exception):
    """An exception of the user's own, with an attribute."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code = code


def same(value: Any) -> Any:
    return value


def square(number: int) -> int:
    return number * number


def divide(dividend: int, divisor: int) -> float:
    return dividend / divisor


def echo(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def fail(message: str = "as asked") -> NoReturn:
    raise KitError(message, 42)


def quit_softly(code: int = 3) -> NoReturn:
    raise SystemExit(code)


def mark(folder: Path, name: object) -> None:
    """Leave a file called ``name`` in ``folder``: proof that this task ran."""
    (folder / str(name)).touch()


def unsteady(folder: Path, failures: int, number: int) -> int:
    """Fail at the first ``failures`` attempts for ``number``, then return it.

    Attempts are counted by files in ``folder``: they may be made by different workers.
    """
    attempt = 1 + len(list(folder.glob(f"{number}-*")))
    mark(folder, f"{number}-{attempt}")
    if attempt <= failures:
        raise ConnectionError(f"attempt {attempt} of {number}")
    return number


def whereabouts() -> tuple[int, int]:
    """Which process and which thread of it runs this."""
    return os.getpid(), threading.get_ident()


_greeting = threading.local()


def greet(folder: Path, text: str) -> None:
    """An initializer: remembers ``text`` in this worker, and leaves a file for each worker."""
    _greeting.text = text
    mark(folder, "-".join(map(str, whereabouts())))


def greeting() -> tuple[str, str]:
    """What `greet` left in this worker, and the name of the worker's file."""
    return getattr(_greeting, "text", "none"), "-".join(map(str, whereabouts()))


def fail_in_worker() -> NoReturn:
    """An initializer that does not succeed."""
    raise KitError("the initializer fails", 1)


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    """Wait until ``condition()`` holds; TimeoutError, naming ``what``, after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.002)


@dataclass(frozen=True)
class Gate:
    """A gate that tasks wait at, in whatever process they run: a folder with a file for each.

    >>> import concurrent.futures, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, \\
    ...         concurrent.futures.ThreadPoolExecutor() as pool:
    ...     gate = Gate(pathlib.Path(folder))
    ...     future = pool.submit(gate.wait, "a task")
    ...     gate.wait_for(1)
    ...     print(gate.came(), future.done())
    ...     gate.open()
    ...     future.result()
    {'a task'} False
    'a task'
    """

    folder: Path

    def wait(self, name: Any = "task") -> Any:
        """Called in the task: say that it came, wait for `open`, return ``name``."""
        mark(self.folder, f"{name}.came")
        until((self.folder / "open").exists, "the gate to open")
        return name

    def came(self) -> set[str]:
        """The names of the tasks that came to the gate so far."""
        return {path.stem for path in self.folder.glob("*.came")}

    def wait_for(self, count: int) -> None:
        """Wait until ``count`` tasks stand at the gate."""
        until(lambda: len(self.came()) >= count, f"{count} tasks at the gate")

    def open(self) -> None:
        """Let all of them through, and all that will come."""
        mark(self.folder, "open")
