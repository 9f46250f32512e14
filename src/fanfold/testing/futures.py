"""The part of the kit about submit and its futures."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from fanfold.testing.functions import (
    Gate,
    KitError,
    divide,
    echo,
    fail,
    mark,
    quit_softly,
    same,
    square,
)
from fanfold.testing.kit import ExecutorKit

__all__ = ["FutureTests"]


class FutureTests(ExecutorKit):
    """What PEP 3148 says about `submit`, and what `concurrent.futures` does with its futures."""

    def test_submit_returns_a_future(self, executor: cf.Executor) -> None:
        """submit gives a concurrent.futures.Future with the function's result."""
        future = executor.submit(pow, 2, 8)
        assert isinstance(future, cf.Future)
        assert future.result(timeout=30) == 256
        assert future.done()
        assert future.exception() is None

    def test_arguments_arrive(self, executor: cf.Executor) -> None:
        """Positional and keyword arguments arrive as given, whatever they are called."""
        future = executor.submit(echo, 1, "two", self=3, fn=4, func=5, timeout=6)
        assert future.result() == ((1, "two"), {"self": 3, "fn": 4, "func": 5, "timeout": 6})

    def test_submit_needs_a_function(self, executor: cf.Executor) -> None:
        """submit without a function is a TypeError."""
        with pytest.raises(TypeError):
            executor.submit()  # type: ignore[call-arg]

    def test_many_small_submits(self, executor: cf.Executor) -> None:
        """Every one of 2000 small tasks is answered, each with its own result."""
        futures = [executor.submit(square, number) for number in range(2000)]
        assert [future.result(timeout=60) for future in futures] == [n * n for n in range(2000)]

    def test_exception_comes_back(self, executor: cf.Executor) -> None:
        """A task's exception comes back with its own type, arguments and attributes."""
        error = executor.submit(fail, "broken").exception(timeout=30)
        assert type(error) is KitError
        assert error.args == ("broken", 42)
        assert error.code == 42
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            executor.submit(divide, 1, 0).result()

    def test_traceback_comes_back(self, executor: cf.Executor) -> None:
        """A printed exception shows the line of the task that raised it, wherever that ran."""
        error = executor.submit(divide, 1, 0).exception()
        assert error is not None
        assert "return dividend / divisor" in "".join(traceback.format_exception(error))

    def test_exceptions_do_not_break_the_executor(self, executor: cf.Executor) -> None:
        """After many failed tasks the executor still works."""
        futures = [executor.submit(divide, 1, number % 2) for number in range(100)]
        assert sum(future.exception() is not None for future in futures) == 50
        assert executor.submit(square, 3).result() == 9

    def test_system_exit_is_an_error_of_its_task(self, executor: cf.Executor) -> None:
        """sys.exit in a task ends neither a worker nor the caller: its future has the error."""
        error = executor.submit(quit_softly, 3).exception(timeout=30)
        assert isinstance(error, SystemExit)
        assert error.code == 3
        assert executor.submit(square, 3).result() == 9

    def test_returned_exception_is_a_value(self, executor: cf.Executor) -> None:
        """An exception that is returned, not raised, is a result like any other."""
        future = executor.submit(same, ValueError("a value"))
        assert repr(future.result()) == "ValueError('a value')"

    def test_pending_future_can_be_cancelled(self, gate: Gate, tmp_path: Path) -> None:
        """A task that waits behind others can be cancelled, and then never runs."""
        with self.make(max_workers=1) as executor:
            executor.submit(gate.wait)
            gate.wait_for(1)
            futures = [executor.submit(mark, tmp_path, number) for number in range(100)]
            assert futures[-1].cancel()
            assert futures[-1].cancelled()
            gate.open()
            with pytest.raises(cf.CancelledError):
                futures[-1].result(timeout=30)
        assert (tmp_path / "0").exists()
        assert not (tmp_path / "99").exists()

    def test_running_future_cannot_be_cancelled(self, executor: cf.Executor, gate: Gate) -> None:
        """A task that runs cannot be cancelled, and ends as if nobody had tried."""
        future = executor.submit(gate.wait, "stubborn")
        gate.wait_for(1)
        assert future.running()
        assert not future.cancel()
        gate.open()
        assert future.result(timeout=30) == "stubborn"

    def test_finished_future_cannot_be_cancelled(self, executor: cf.Executor) -> None:
        """A finished task keeps its result when cancelled."""
        future = executor.submit(square, 3)
        assert future.result() == 9
        assert not future.cancel()
        assert future.result() == 9

    def test_result_with_timeout(self, executor: cf.Executor, gate: Gate) -> None:
        """result(timeout) raises TimeoutError and leaves the task running."""
        future = executor.submit(gate.wait, "late")
        with pytest.raises(TimeoutError):
            future.result(timeout=0.01)
        gate.open()
        assert future.result(timeout=30) == "late"

    def test_callback_before_done(self, executor: cf.Executor, gate: Gate) -> None:
        """Callbacks added to an unfinished future are called once each, with it, in order."""
        calls: list[tuple[str, object]] = []
        future = executor.submit(gate.wait)
        future.add_done_callback(lambda done: calls.append(("first", done)))
        future.add_done_callback(lambda done: calls.append(("second", done)))
        assert calls == []
        gate.open()
        cf.wait([executor.submit(square, 1), future])
        executor.shutdown()  # callbacks may come a moment after the waiters
        assert calls == [("first", future), ("second", future)]

    def test_callback_after_done(self, executor: cf.Executor) -> None:
        """A callback added to a finished future is called at once."""
        future = executor.submit(fail)
        cf.wait([future])
        calls: list[object] = []
        future.add_done_callback(calls.append)
        assert calls == [future]

    def test_callback_that_raises(
        self, executor: cf.Executor, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A callback that raises is logged, and hurts no other callback and no other task."""
        calls: list[object] = []
        future = executor.submit(square, 2)
        with caplog.at_level(logging.CRITICAL + 1, logger="concurrent.futures"):
            future.add_done_callback(lambda done: fail())
            future.add_done_callback(calls.append)
            cf.wait([future])
            assert [executor.submit(square, n).result(timeout=30) for n in range(20)][4] == 16
            executor.shutdown()
        assert future.result() == 4
        assert calls == [future]

    def test_as_completed(self, executor: cf.Executor, gate: Gate) -> None:
        """as_completed yields futures as they end, not in the order of their submission."""
        slow = executor.submit(gate.wait)
        gate.wait_for(1)
        quick = executor.submit(square, 2)
        completed = cf.as_completed([slow, quick], timeout=30)
        assert next(completed) is quick
        gate.open()
        assert next(completed) is slow

    def test_as_completed_with_timeout(self, executor: cf.Executor, gate: Gate) -> None:
        """as_completed(timeout) raises TimeoutError when a future does not end."""
        with pytest.raises(TimeoutError):
            list(cf.as_completed([executor.submit(gate.wait)], timeout=0.01))

    def test_wait_for_all(self, executor: cf.Executor) -> None:
        """wait(ALL_COMPLETED) returns when every task ended, well or not."""
        futures = {executor.submit(divide, 1, number % 2) for number in range(20)}
        assert cf.wait(futures, timeout=30) == (futures, set())

    def test_wait_for_the_first(self, executor: cf.Executor, gate: Gate) -> None:
        """wait(FIRST_COMPLETED) returns when one task ended."""
        slow = executor.submit(gate.wait)
        gate.wait_for(1)
        quick = executor.submit(square, 2)
        done, pending = cf.wait([slow, quick], timeout=30, return_when=cf.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, {slow})

    def test_wait_for_the_first_exception(self, executor: cf.Executor, gate: Gate) -> None:
        """wait(FIRST_EXCEPTION) returns when one task failed, and not before."""
        slow = executor.submit(gate.wait)
        gate.wait_for(1)
        quick, failing = executor.submit(square, 2), executor.submit(fail)
        futures = [slow, quick, failing]
        done, pending = cf.wait(futures, timeout=30, return_when=cf.FIRST_EXCEPTION)
        assert failing in done
        assert slow in pending

    def test_wait_with_timeout(self, executor: cf.Executor, gate: Gate) -> None:
        """wait(timeout) returns with what is done by then."""
        slow = executor.submit(gate.wait)
        assert cf.wait([slow], timeout=0.01) == (set(), {slow})

    def test_asyncio_awaits_a_future(self, executor: cf.Executor) -> None:
        """asyncio.wrap_future makes a future awaitable: results, and exceptions."""

        async def main() -> list[Any]:
            futures = [executor.submit(divide, 6, number) for number in (1, 2, 0)]
            waiting = [asyncio.wrap_future(future) for future in futures]
            return await asyncio.gather(*waiting, return_exceptions=True)

        one, two, error = asyncio.run(main())
        assert (one, two) == (6, 3)
        assert isinstance(error, ZeroDivisionError)

    def test_asyncio_runs_in_the_executor(self, executor: cf.Executor) -> None:
        """loop.run_in_executor runs functions in it."""

        async def main() -> list[int]:
            loop = asyncio.get_running_loop()
            running = [loop.run_in_executor(executor, square, number) for number in range(20)]
            return list(await asyncio.gather(*running))

        assert asyncio.run(main()) == [number**2 for number in range(20)]
