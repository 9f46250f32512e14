"""The part of the kit about the life of an executor: initializers, shutdown, context manager."""

from __future__ import annotations

import concurrent.futures as cf
import logging
import time
from pathlib import Path

import pytest

from fanfold.testing.functions import (
    Gate,
    fail_in_worker,
    greet,
    greeting,
    mark,
    square,
    until,
)
from fanfold.testing.kit import ExecutorKit
from fanfold.testing.leaks import leaks

__all__ = ["LifetimeTests"]


class LifetimeTests(ExecutorKit):
    """What PEP 3148 says about the beginning and the end of an executor."""

    def need_initializers(self) -> None:
        if not self.initializes:
            pytest.skip("it takes no initializer")

    def test_initializer_runs_once_in_each_worker(self, tmp_path: Path) -> None:
        """Every worker runs initializer(*initargs) once, before its first task."""
        self.need_initializers()
        with self.make(max_workers=2, initializer=greet, initargs=(tmp_path, "hello")) as executor:
            answers = {executor.submit(greeting).result() for _ in range(50)}
        assert {text for text, _ in answers} == {"hello"}
        initialized = {path.name for path in tmp_path.iterdir()}
        assert {worker for _, worker in answers} <= initialized
        assert len(initialized) <= 2

    def test_failing_initializer_breaks_the_executor(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With an initializer that raises, tasks fail with BrokenExecutor: they do not hang."""
        self.need_initializers()
        with (
            caplog.at_level(logging.CRITICAL + 1, logger="concurrent.futures"),
            pytest.raises(cf.BrokenExecutor),
            self.make(max_workers=2, initializer=fail_in_worker) as executor,
        ):
            executor.submit(square, 2).result(timeout=30)

    def test_unused_executor_can_be_shut_down(self) -> None:
        """An executor that never ran a task shuts down."""
        self.make(max_workers=2).shutdown()

    def test_shutdown_finishes_what_was_submitted(self, tmp_path: Path) -> None:
        """shutdown() returns when every submitted task has run."""
        executor = self.make(max_workers=2)
        futures = [executor.submit(mark, tmp_path, number) for number in range(50)]
        executor.shutdown()
        assert all(future.done() for future in futures)
        assert len(list(tmp_path.iterdir())) == 50

    def test_shutdown_without_wait(self, gate: Gate) -> None:
        """shutdown(wait=False) returns at once, and what was submitted still runs."""
        executor = self.make(max_workers=1)
        futures = [executor.submit(gate.wait, number) for number in range(3)]
        gate.wait_for(1)
        executor.shutdown(wait=False)
        assert not futures[0].done()
        gate.open()
        assert [future.result(timeout=30) for future in futures] == [0, 1, 2]
        executor.shutdown()

    def test_shutdown_cancels_futures(self, gate: Gate, tmp_path: Path) -> None:
        """shutdown(cancel_futures=True) cancels what has not started; what runs ends well."""
        executor = self.make(max_workers=1)
        running = executor.submit(gate.wait, "runs")
        gate.wait_for(1)
        pending = [executor.submit(mark, tmp_path, number) for number in range(100)]
        executor.shutdown(wait=False, cancel_futures=True)
        gate.open()
        assert running.result(timeout=30) == "runs"
        until(lambda: all(future.done() for future in pending), "the pending futures to end")
        executor.shutdown()
        cancelled = [number for number, future in enumerate(pending) if future.cancelled()]
        assert len(cancelled) > 50  # a few may have been on their way already
        assert not any((tmp_path / str(number)).exists() for number in cancelled)

    def test_submit_after_shutdown(self) -> None:
        """After shutdown, submit and map raise RuntimeError."""
        executor = self.make(max_workers=1)
        executor.shutdown()
        with pytest.raises(RuntimeError):
            executor.submit(square, 2)
        with pytest.raises(RuntimeError):
            executor.map(square, [2])

    def test_shutdown_twice(self) -> None:
        """Shutting down again does nothing, with any options."""
        executor = self.make(max_workers=1)
        assert executor.submit(square, 2).result() == 4
        executor.shutdown()
        executor.shutdown(wait=False, cancel_futures=True)
        executor.shutdown()

    def test_context_manager(self, tmp_path: Path) -> None:
        """Leaving the with block waits for the tasks, and shuts down."""
        with self.make(max_workers=2) as executor:
            futures = [executor.submit(mark, tmp_path, number) for number in range(20)]
        assert all(future.done() for future in futures)
        with pytest.raises(RuntimeError):
            executor.submit(square, 2)

    def test_nothing_is_left_behind(self, gate: Gate) -> None:
        """After shutdown nothing is left of results, failures or big arguments never used."""
        with leaks() as left:
            with self.make(max_workers=1) as executor:
                running = executor.submit(gate.wait)
                gate.wait_for(1)
                futures = [executor.submit(len, bytes(1_000_000)) for _ in range(10)]
                futures.append(executor.submit(square, 3))
                for future in futures[5:9]:
                    future.cancel()
                gate.open()
                cf.wait([running, *futures[:5], *futures[9:]])
            del futures, future
        assert not left, f"left behind: {', '.join(left)}"

    def test_shutdown_is_prompt(self) -> None:
        """Idle workers do not keep shutdown waiting."""
        for _ in range(3):  # a busy machine may, but hardly each time
            executor = self.make(max_workers=2)
            assert list(executor.map(square, range(4))) == [0, 1, 4, 9]
            began = time.monotonic()
            executor.shutdown()
            if (seconds := time.monotonic() - began) < 3:
                break
        assert seconds < 3
