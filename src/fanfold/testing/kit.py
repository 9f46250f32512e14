"""What all parts of `ExecutorTests` share: how an executor is made, and what it can do."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fanfold.executors.base import Executor
from fanfold.testing.functions import Gate

__all__ = ["ExecutorKit"]


class ExecutorKit:
    """The base of the kits: `make`, abilities as class attributes, and fixtures."""

    inline: ClassVar[bool] = False
    remote: ClassVar[bool] = False
    initializes: ClassVar[bool] = True
    buffersize: ClassVar[bool] = True

    def make(self, **options: Any) -> concurrent.futures.Executor:
        """An executor made with ``options``: ``max_workers``, ``initializer``, ``initargs``."""
        raise NotImplementedError(
            f"{type(self).__name__} must say how its executor is made:\n"
            "    def make(self, **options): return MyExecutor(**options)"
        )

    @pytest.fixture
    def executor(self) -> Iterator[concurrent.futures.Executor]:
        """An executor with two workers."""
        with self.make(max_workers=2) as executor:
            yield executor

    @pytest.fixture
    def streaming(self, executor: concurrent.futures.Executor) -> Executor:
        """The same, where it is fanfold's own kind of executor."""
        if not isinstance(executor, Executor):
            pytest.skip("not a fanfold.executors.base.Executor: it opens no streams")
        return executor

    @pytest.fixture
    def gate(self, tmp_path: Path) -> Iterator[Gate]:
        """A closed gate; it opens at the end of the test at the latest."""
        if self.inline:
            pytest.skip("a future is finished when submit returns: nothing is pending or running")
        folder = tmp_path / "gate"
        folder.mkdir()
        gate = Gate(folder)
        yield gate
        gate.open()
