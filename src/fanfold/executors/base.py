"""What an executor is: a `concurrent.futures.Executor` that can also run a map's chunks.

`submit` is for everybody. `open` is for dispatch: it begins one call and returns a `Stream`, where
chunks go in and reports come out. Whoever implements it keeps three promises:

- every task sent is reported exactly once (a value, or the exception it ended with);
- `Stream.receive` never waits for something that is dead;
- after `Stream.close` nothing of the call is left, running or waiting, where it can be stopped.
"""

from __future__ import annotations

import concurrent.futures
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, ClassVar

from fanfold.tasks import Call, Chunk, Report

__all__ = ["Executor", "Stream"]


class Stream(ABC):
    """One call being run by an executor. Used from one thread, except `wake`."""

    @abstractmethod
    def send(self, chunk: Chunk) -> None:
        """Queue a chunk. Returns at once; a chunk that cannot be sent is reported as failed."""

    @abstractmethod
    def receive(self, timeout: float | None = None) -> Report | None:
        """The next report; None when ``timeout`` seconds passed or `wake` was called."""

    @abstractmethod
    def wake(self) -> None:
        """Make a `receive` that waits in another thread, or else the next one, return None."""

    @abstractmethod
    def close(self) -> None:
        """Drop what has not started, stop what runs (where it can be stopped), free the call."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Executor(concurrent.futures.Executor, ABC):
    """A place where tasks run.

    ``name`` is what ``on=`` takes; ``workers`` how many tasks run at once; ``inline`` is true
    where tasks run in the caller's own thread, inside `Stream.receive`.
    """

    name: ClassVar[str]
    inline: ClassVar[bool] = False
    workers: int

    @abstractmethod
    def open(self, call: Call) -> Stream:
        """Begin a call: its function is sent to the workers once, and its chunks run there."""

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be sent to a worker: its workers belong to the "
            "process that made it. Inside a task, make a new one or call ff.map."
        )
