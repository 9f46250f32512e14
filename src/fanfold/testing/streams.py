"""The part of the kit about fanfold's own contract: `Executor.open` and its stream."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from fanfold.errors import NotSerializable, TaskTimeout, WorkerDied
from fanfold.executors.base import Executor, Stream
from fanfold.seeds import rng
from fanfold.tasks import Call, Chunk, Outcome, Report
from fanfold.testing.faults import Script, kill_self
from fanfold.testing.functions import (
    Gate,
    KitError,
    echo,
    fail,
    mark,
    quit_softly,
    same,
    square,
    until,
)
from fanfold.testing.kit import ExecutorKit

__all__ = ["StreamTests"]


def receive_reports(stream: Stream, tasks: int, seconds: float = 60.0) -> list[Report]:
    """Reports of ``tasks`` tasks together, and the certainty that no further one follows."""
    reports: list[Report] = []
    deadline = time.monotonic() + seconds
    while (missing := tasks - sum(map(len, reports))) > 0:
        assert time.monotonic() < deadline, f"{missing} of {tasks} tasks are not reported"
        report = stream.receive(timeout=1.0)
        reports += [report] if report else []
    assert stream.receive(timeout=0.02) is None, "tasks are reported twice"
    return reports


def receive_outcomes(stream: Stream, indices: Iterable[int]) -> dict[int, Outcome]:
    """The outcome of each task of ``indices``: exactly these, each exactly once."""
    wanted = sorted(indices)
    reports = receive_reports(stream, len(wanted))
    outcomes = [outcome for report in reports for outcome in report.outcomes()]
    assert sorted(outcome.index for outcome in outcomes) == wanted
    return {outcome.index: outcome for outcome in outcomes}


def values(outcomes: dict[int, Outcome]) -> dict[int, Any]:
    assert all(outcome.ok for outcome in outcomes.values())
    return {index: outcome.value for index, outcome in outcomes.items()}


def draw(_: object) -> int:
    return int(rng().integers(2**62))


def _adder(number: int) -> Callable[[int], int]:
    return lambda value: value + number


class StreamTests(ExecutorKit):
    """The promises in `fanfold.executors.base`: every task once, nothing waits for the dead."""

    def run(
        self, executor: Executor, func: Callable[..., Any], items: list[Any], **options: Any
    ) -> dict[int, Outcome]:
        """Outcomes of one call, whose tasks travel in one chunk."""
        with executor.open(Call(func, **options)) as stream:
            stream.send(Chunk(0, items))
            return receive_outcomes(stream, range(len(items)))

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_every_task_is_reported_once(self, streaming: Executor, size: int) -> None:
        """Chunks of any size are answered: each index once, with its own value."""
        with streaming.open(Call(square)) as stream:
            for first in range(0, 1000, size):
                stream.send(Chunk(first, list(range(first, min(first + size, 1000)))))
            outcomes = receive_outcomes(stream, range(1000))
        assert values(outcomes) == {n: n * n for n in range(1000)}

    def test_send_between_receives(self, streaming: Executor) -> None:
        """Chunks may be sent while others are received, in any order of their indices."""
        found = {}
        with streaming.open(Call(square)) as stream:
            for first in (90, 0, 30, 60):
                stream.send(Chunk(first, list(range(first, first + 3))))
                found.update(values(receive_outcomes(stream, range(first, first + 3))))
        assert found == {n: n * n for first in (0, 30, 60, 90) for n in range(first, first + 3)}

    @pytest.mark.parametrize(
        ("style", "item", "expected"),
        [
            ("one", (1, 2), (((1, 2),), {})),
            ("star", (1, 2), ((1, 2), {})),
            ("keywords", {"a": 1}, ((), {"a": 1})),
            ("both", ((1, 2), {"a": 1}), ((1, 2), {"a": 1})),
        ],
    )
    def test_styles(self, streaming: Executor, style: str, item: Any, expected: Any) -> None:
        """The style of a call says how an item becomes arguments."""
        assert values(self.run(streaming, echo, [item], style=style)) == {0: expected}

    def test_failures_in_place(self, streaming: Executor) -> None:
        """A failed task has its exception in its place and its index in ``failed``."""
        with streaming.open(Call(Script({3: fail, 5: fail}))) as stream:
            stream.send(Chunk(0, list(range(8))))
            reports = receive_reports(stream, 8)
        columns = {
            report.first + i: value for report in reports for i, value in enumerate(report.values)
        }
        assert sorted(index for report in reports for index in report.failed) == [3, 5]
        assert type(columns.pop(3)) is type(columns.pop(5)) is KitError
        assert columns == {n: n * n for n in (0, 1, 2, 4, 6, 7)}

    def test_returned_exceptions_are_values(self, streaming: Executor) -> None:
        """An exception that a task returns is not a failure."""
        outcome = self.run(streaming, same, [ValueError("a value")])[0]
        assert outcome.ok
        assert repr(outcome.value) == "ValueError('a value')"

    def test_system_exit_fails_its_task_alone(self, streaming: Executor) -> None:
        """sys.exit in a task fails that task; its neighbours in the chunk have their results."""
        outcomes = self.run(streaming, Script({2: quit_softly}), list(range(5)))
        assert isinstance(outcomes.pop(2).error, SystemExit)
        assert values(outcomes) == {n: n * n for n in (0, 1, 3, 4)}

    def test_reports_tell(self, streaming: Executor) -> None:
        """A report names its attempt, its worker and the time its tasks took."""
        with streaming.open(Call(time.sleep)) as stream:
            stream.send(Chunk(4, [0.02], attempt=3))
            (report,) = receive_reports(stream, 1)
        assert (report.first, report.attempt) == (4, 3)
        assert report.worker
        assert 0.02 <= report.work_time < 10

    def test_random_streams_follow_the_index(self, streaming: Executor) -> None:
        """ff.rng() in a task depends on the entropy and the index, not on chunk or attempt."""
        whole = values(self.run(streaming, draw, [None] * 6, entropy=7))
        other = values(self.run(streaming, draw, [None] * 6, entropy=8))
        with streaming.open(Call(draw, entropy=7)) as stream:
            stream.send(Chunk(4, [None, None], attempt=2))
            stream.send(Chunk(0, [None] * 4))
            split = values(receive_outcomes(stream, range(6)))
        assert split == whole
        assert len({*whole.values(), *other.values()}) == 12

    def test_two_calls_at_once(self, streaming: Executor) -> None:
        """Calls open side by side, and submits between them, get their own results."""
        with streaming.open(Call(square)) as one, streaming.open(Call(str)) as two:
            one.send(Chunk(0, list(range(50))))
            two.send(Chunk(0, list(range(50))))
            future = streaming.submit(square, 9)
            texts = values(receive_outcomes(two, range(50)))
            squares = values(receive_outcomes(one, range(50)))
        assert texts == {n: str(n) for n in range(50)}
        assert squares == {n: n * n for n in range(50)}
        assert future.result(timeout=30) == 81

    def test_receive_times_out(self, streaming: Executor, gate: Gate) -> None:
        """receive(timeout) returns None when no report came in time."""
        with streaming.open(Call(gate.wait)) as stream:
            stream.send(Chunk(0, ["slow"]))
            began = time.monotonic()
            assert stream.receive(timeout=0.05) is None
            assert 0.04 < time.monotonic() - began < 30
            gate.open()
            assert values(receive_outcomes(stream, range(1))) == {0: "slow"}

    def test_wake_before_receive(self, streaming: Executor) -> None:
        """After wake, the next receive returns None although nothing is there."""
        with streaming.open(Call(square)) as stream:
            stream.wake()
            assert stream.receive() is None

    def test_wake_during_receive(self, streaming: Executor, gate: Gate) -> None:
        """wake, from another thread, ends a receive that waits without limit."""
        with streaming.open(Call(gate.wait)) as stream:
            stream.send(Chunk(0, ["slow"]))
            gate.wait_for(1)
            waker = threading.Timer(0.1, stream.wake)
            waker.start()
            assert stream.receive() is None
            waker.join()
            gate.open()

    def test_close_drops_what_has_not_started(self, gate: Gate, tmp_path: Path) -> None:
        """After close no further task of the call runs, and the executor works on."""
        with self.make(max_workers=1) as executor:
            if not isinstance(executor, Executor):
                pytest.skip("not a fanfold.executors.base.Executor: it opens no streams")
            with executor.open(Call(lambda func, *args: func(*args), style="star")) as stream:
                stream.send(Chunk(0, [(gate.wait,), (mark, tmp_path, "neighbour")]))
                stream.send(Chunk(2, [(mark, tmp_path, number) for number in range(100)]))
                gate.wait_for(1)
            assert executor.submit(square, 3).result(timeout=30) == 9
            gate.open()
            time.sleep(0.1)  # what goes on would go on now
        assert {path.name for path in tmp_path.iterdir()} == {"gate"}

    def test_close_without_work(self, streaming: Executor) -> None:
        """A call may be closed unused, and twice."""
        stream = streaming.open(Call(square))
        stream.close()
        stream.close()

    def need_processes(self) -> None:
        if not self.remote:
            pytest.skip("tasks share the caller's process: nothing is sent, nobody dies alone")

    def test_argument_that_cannot_be_sent(self, streaming: Executor) -> None:
        """An argument that cannot be pickled fails its own task, and no other."""
        self.need_processes()
        outcomes = self.run(streaming, str, [1, threading.Lock(), 3])
        assert isinstance(outcomes.pop(1).error, NotSerializable)
        assert values(outcomes) == {0: "1", 2: "3"}

    def test_result_that_cannot_be_sent(self, streaming: Executor) -> None:
        """A result that cannot be pickled fails its own task, and no other."""
        self.need_processes()
        outcomes = self.run(streaming, Script({1: threading.Lock}), [0, 1, 2])
        assert isinstance(outcomes.pop(1).error, NotSerializable)
        assert values(outcomes) == {0: 0, 2: 4}

    def test_death_fails_its_task_alone(self, streaming: Executor) -> None:
        """A task that kills its worker fails alone, by index; all others have their results."""
        self.need_processes()
        outcomes = self.run(streaming, Script({7: kill_self}), list(range(20)))
        error = outcomes.pop(7).error
        assert isinstance(error, WorkerDied)
        assert (error.index, error.exitcode) == (7, -9)
        assert values(outcomes) == {n: n * n for n in range(20) if n != 7}

    def test_timeout_fails_its_task_alone(self, streaming: Executor, gate: Gate) -> None:
        """A task beyond the call's timeout fails with TaskTimeout; its neighbours do not."""
        script = Script({1: gate.wait})
        outcomes = self.run(streaming, script, [0, 1, 2, 3], timeout=1.5)
        assert isinstance(outcomes.pop(1).error, TaskTimeout)
        assert values(outcomes) == {0: 0, 2: 4, 3: 9}

    def test_functions_are_let_go(self, executor: Executor) -> None:
        """Of many functions, each submitted once, an executor keeps some: it does not grow."""
        known: weakref.WeakSet[Callable[[int], int]] = weakref.WeakSet()
        for number in range(400):
            add = _adder(number)
            known.add(add)
            assert executor.submit(add, 1).result(timeout=30) == number + 1
        del add
        until(lambda: len(known) < 300, "most functions to be let go")
