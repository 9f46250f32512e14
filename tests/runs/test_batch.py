"""A scheduler as an executor: maps and futures whose tasks run in job arrays."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from tests.runs.small import Copy, Site, site_in

import fanfold as ff
from fanfold.errors import (
    NotSerializable,
    PoolClosed,
    RunError,
    SchedulerDown,
    SubmitRefused,
    SubmitUnknown,
    TaskLost,
)
from fanfold.executors.base import Stream
from fanfold.runs import batch
from fanfold.runs.arrays import arrays, is_closed, read_array
from fanfold.runs.cluster import Submission
from fanfold.runs.remote import Waiting
from fanfold.store.directory import RunDirectory, run_directories
from fanfold.tasks import Call, Chunk, Outcome, Report
from fanfold.testing.functions import same, square, unsteady, until

RUNS = Path("fanfold-runs")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site_in(tmp_path, monkeypatch) as site:
        yield site


@pytest.fixture
def held(site: Site) -> Site:
    """It begins nothing: the tests write what elements do."""
    site.set("hold")
    return site


@pytest.fixture
def chores(site: Site) -> ModuleType:
    import chores

    return chores


def directory() -> RunDirectory:
    """Of the newest run."""
    return RunDirectory(run_directories(RUNS)[-1].absolute())


class Open:
    """A call of ``square``, open on an executor, and the outcomes that came of it."""

    def __init__(self, **options: object) -> None:
        options = {"elements": 1, **options}
        self.pool = ff.ArrayExecutor(scheduler="slurm", **options)
        self.stream = self.pool.open(Call(square))
        self.outcomes: dict[int, Outcome] = {}

    def send(self, first: int, count: int, attempt: int = 1) -> None:
        self.stream.send(Chunk(first, range(first, first + count), attempt))

    def receive(self, *tasks: int) -> None:
        """Receive until these have ended, and no other."""
        until(lambda: self._receive() >= set(tasks), f"tasks {tasks} to end")
        assert set(self.outcomes) == set(tasks)

    def submitted(self, site: Site, count: int) -> None:
        """Receive until so many jobs are there; nothing else comes."""
        before = set(self.outcomes)
        until(lambda: self._receive() > before or len(site.jobs()) == count, f"{count} jobs")
        assert set(self.outcomes) == before

    def _receive(self) -> set[int]:
        report = self.stream.receive(0.01)
        for outcome in report.outcomes() if report is not None else ():
            assert outcome.index not in self.outcomes, "told twice"
            self.outcomes[outcome.index] = outcome
        return set(self.outcomes)

    def values(self) -> dict[int, object]:
        assert all(outcome.ok for outcome in self.outcomes.values())
        return {index: outcome.value for index, outcome in sorted(self.outcomes.items())}


@pytest.fixture
def call(held: Site) -> Iterator[Open]:
    call = Open()
    with call.stream:
        yield call


def work(array: int, *tasks: int, index: int = 0) -> Copy:
    """Have an element do these tasks; it goes on."""
    copy = Copy(directory(), array, index)
    copy.do(*tasks)
    return copy


# Maps ---------------------------------------------------------------------------------------------


def test_map(site: Site, chores: ModuleType) -> None:
    """The place is an argument: a map on a scheduler is one run of one job array, with the results
    in order, and nothing of it is left behind."""
    assert ff.map(chores.square, range(4), on="slurm") == [0, 1, 4, 9]
    assert site.jobs() == ["101"]
    assert list(RUNS.iterdir()) == []


def test_same_as_anywhere(site: Site, chores: ModuleType) -> None:
    """Random streams and ways of calling are those of any other place; so is a reduction."""
    arguments = [(n, 10) for n in range(6)]
    here = ff.starmap(chores.draw, arguments, seed=7, on="serial")
    with ff.ArrayExecutor(scheduler="slurm", elements=2) as pool:
        assert ff.starmap(chores.draw, arguments, seed=7, on=pool) == here
        assert ff.map_reduce(square, range(9), on=pool) == sum(n * n for n in range(9))


def test_errors(site: Site, chores: ModuleType, tmp_path: Path) -> None:
    """Errors come in place, or the first is raised, as anywhere; the run of a map with a failure is
    kept, with its logs."""
    results = ff.map(chores.picky, [2, 3, 4], on="slurm", errors="return")
    assert (results[0], results[2]) == (4, 16)
    assert isinstance(results[1], ValueError)
    assert str(results[1]) == "no square for 3"
    assert [run.name for run in RUNS.iterdir()] == ["map-1"]
    assert "no square for 3" in ff.Run.open("map-1").report()
    with pytest.raises(ValueError, match="no square for 3"):
        ff.map(chores.picky, [3], on="slurm")


class Backwards(Stream):
    """A stream whose tasks all fail, the last one first, with pauses."""

    def __init__(self) -> None:
        self._reports: list[Report | None] = []

    def send(self, chunk: Chunk) -> None:
        for index, item in enumerate(chunk.items, chunk.first):
            self._reports += [Report(index, [ValueError(f"no {item}")], failed=(index,)), None]

    def receive(self, timeout: float | None = None) -> Report | None:
        return self._reports.pop()

    def awaits_before(self, index: int) -> bool:
        return any(report.first < index for report in self._reports if report is not None)

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_first_failure_is_that_of_the_lowest_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever element tells first: of several failures the first in the inputs is raised."""
    monkeypatch.setattr(ff.ArrayExecutor, "open", lambda _, call: Backwards())
    with pytest.raises(ValueError, match="no a"):
        ff.map(str, ["a", "b", "c"], on="slurm")


def test_no_failure_waits_for_what_comes_after_it(site: Site, chores: ModuleType) -> None:
    """It is raised when the tasks before it have ended, whatever those after it do."""
    with pytest.raises(ValueError, match="no square for 3"):
        ff.map(chores.picky_or_gated, range(6), on="slurm")


def test_retries(site: Site, tmp_path: Path) -> None:
    """A task that fails is tried again as often as ``retries`` says, and the others are not."""
    task = partial(unsteady, tmp_path / "site", 1)
    assert ff.map(task, range(2), on="slurm", retries=1) == [0, 1]
    tries = sorted(path.name for path in (tmp_path / "site").glob("?-?"))
    assert tries == ["0-1", "0-2", "1-1", "1-2"]


# Streams ------------------------------------------------------------------------------------------


def test_indices(held: Site, call: Open) -> None:
    """What is sent within a moment goes into one array, and what comes later into another; each
    task has the index, and each report the attempt, that it was sent with."""
    call.send(10, 3)
    call.send(20, 2, attempt=2)
    call.submitted(held, 1)
    array = read_array(directory(), 1)
    assert array.shares == [[range(10, 13), range(20, 22)]]
    copy = work(1, 20, 10, 11)
    call.receive(20, 10, 11)
    call.send(30, 1)
    call.submitted(held, 2)
    assert len(run_directories(RUNS)) == 2
    work(1, 30).end("done")
    call.receive(20, 10, 11, 30)
    copy.do(12, 21)
    copy.end("done")
    call.receive(10, 11, 12, 20, 21, 30)
    assert call.values() == {n: n * n for n in (10, 11, 12, 20, 21, 30)}
    attempts = {index: outcome.attempt for index, outcome in call.outcomes.items()}
    assert attempts == {10: 1, 11: 1, 12: 1, 20: 2, 21: 2, 30: 1}
    assert list(RUNS.iterdir()) == []


def test_ended_from_outside(held: Site, call: Open) -> None:
    """S10, S13: what an element had not done when it was ended is submitted again, and nothing
    else; no task has failed."""
    call.send(0, 4)
    call.submitted(held, 1)
    work(1, 0, 2).end("walltime")
    held.lose("101", "walltime")
    until(lambda: call._receive() and len(held.jobs()) == 2, "another job")
    assert read_array(directory(), 2).shares == [[range(1, 2), range(3, 4)]]
    work(2, 1, 3).end("done")
    call.receive(0, 1, 2, 3)
    assert call.values() == {n: n * n for n in range(4)}
    assert list(RUNS.iterdir()) == []


def test_ended_again_and_again(held: Site, call: Open) -> None:
    """Not more than three arrays are submitted for a task: then it is lost, by name, and the others
    are not."""
    call.send(0, 3)
    for job, task in (("101", 0), ("102", 1)):
        until(lambda job=job: call._receive() is not None and job in held.jobs(), f"job {job}")
        work(int(job) - 100, task).end("terminated")
        held.lose(job)
    until(lambda: call._receive() is not None and "103" in held.jobs(), "job 103")
    held.lose("103")
    call.receive(0, 1, 2)
    assert [outcome.ok for _, outcome in sorted(call.outcomes.items())] == [True, True, False]
    assert isinstance(call.outcomes[2].error, TaskLost)
    assert f"ended 3 times before it was done: see fanfold status {directory().path}" in str(
        call.outcomes[2].error
    )
    assert held.jobs() == ["101", "102", "103"]


def test_done_while_it_is_submitted_again(
    held: Site, call: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S13: an element that was thought lost does a task while the rest is planned anew: the task
    counts, and it is told, though nobody does it a second time."""
    call.send(0, 2)
    call.submitted(held, 1)
    copy = work(1)
    plan = Submission.plan

    def plan_late(*args: object, **kwargs: object) -> Submission:
        copy.do(0)
        return plan(*args, **kwargs)

    held.lose("101")
    monkeypatch.setattr(Submission, "plan", plan_late)
    until(lambda: call._receive() is not None and len(held.jobs()) == 2, "another job")
    copy.end("")
    assert read_array(directory(), 2).shares == [[range(1, 2)]]
    work(2, 1).end("done")
    call.receive(0, 1)
    assert call.values() == {0: 0, 1: 1}


def test_damaged_result(held: Site, call: Open) -> None:
    """R06: a result that is damaged before it is read is done again; its neighbours are not."""
    call.send(0, 3)
    call.submitted(held, 1)
    copy = work(1, 0)
    pack = directory().pack(1, 1)
    pack.write_bytes(pack.read_bytes()[:-1] + b"?")
    copy.do(1, 2)
    copy.end("done")
    until(lambda: call._receive() and len(held.jobs()) == 2, "another job")
    assert read_array(directory(), 2).shares == [[range(1)]]
    work(2, 0).end("done")
    call.receive(0, 1, 2)
    assert call.values() == {0: 0, 1: 1, 2: 4}


def test_closed(held: Site, call: Open) -> None:
    """Whoever leaves a map has what is at work ended, and what waits is not submitted."""
    call.send(0, 2)
    call.submitted(held, 1)
    call.send(2, 2)
    call.stream.close()
    assert held.cancelled() == ["101.0"]
    assert held.jobs() == ["101"]


def test_left_while_it_is_submitted(held: Site, call: Open) -> None:
    """A Ctrl-C that comes while a job is submitted leaves no job in the queue, either; what has
    come until then may be asked for, and submits nothing."""
    held.set("interrupt")
    call.send(0, 2)
    with pytest.raises(KeyboardInterrupt):
        call.submitted(held, 1)
    assert call.stream.receive(0) is None
    assert held.calls().count("submit") == 1
    call.stream.close()
    assert held.cancelled() == ["101.0"]
    assert held.jobs() == ["101"]


def test_woken(held: Site, call: Open) -> None:
    """`wake` ends a wait for reports, whoever waits."""
    waker = threading.Timer(0.1, call.stream.wake)
    waker.start()
    assert call.stream.receive() is None
    waker.join()


def test_refused(held: Site, call: Open) -> None:
    """What the scheduler does not take has failed, with its words, and what is sent later is tried
    anew."""
    held.set("refuse", 0)
    call.send(0, 2)
    call.receive(0, 1)
    assert {type(outcome.error) for outcome in call.outcomes.values()} == {SubmitRefused}
    held.unset("refuse")
    call.send(2, 1)
    call.submitted(held, 1)
    work(1, 2).end("done")
    call.receive(0, 1, 2)
    assert call.outcomes[2].value == 4


def test_refused_again(held: Site, call: Open) -> None:
    """What is done is told even where the rest is refused when it is submitted again."""
    call.send(0, 2)
    call.submitted(held, 1)
    held.set("refuse", 1)
    work(1, 0).end("terminated")
    held.lose("101")
    call.receive(0, 1)
    assert call.outcomes[0].value == 0
    assert isinstance(call.outcomes[1].error, SubmitRefused)


def test_nobody_knows(held: Site, call: Open) -> None:
    """S01: a job that may have been taken, and that nobody will wait for, is ended when it turns
    up: its array is closed or cancelled, and its tasks have failed by name."""
    held.set("lose", "down")
    call.send(0, 2)
    call.receive(0, 1)
    assert {type(outcome.error) for outcome in call.outcomes.values()} == {SubmitUnknown}
    assert held.jobs() == ["101"]
    assert is_closed(directory(), 1)


def test_not_serializable(held: Site) -> None:
    """An input that cannot be kept fails alone; the others are run."""
    call = Open()
    call.stream = call.pool.open(Call(same))
    with call.stream:
        call.stream.send(Chunk(0, [1, threading.Lock(), 3]))
        call.stream.send(Chunk(3, [4]))
        until(lambda: call._receive() and held.jobs(), "a job")
        assert list(call.outcomes) == [1]
        assert isinstance(call.outcomes[1].error, NotSerializable)
        (array,) = arrays(directory())
        assert array.shares == [[range(1), range(2, 4)]]
        copy = Copy(directory(), 1, 0)
        copy.do(0, 2, 3)
        copy.end("done")
        call.receive(0, 1, 2, 3)


# Futures ------------------------------------------------------------------------------------------


def results(futures: Iterable[Future]) -> list[object]:
    return [future.result(60) for future in futures]


def test_futures(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that come within a moment are one array; each future has its result or its error."""
    with ff.ArrayExecutor(scheduler="slurm") as pool:
        with monkeypatch.context() as moment:
            moment.setattr(batch, "_QUIET", math.inf)  # it ends when all have been sent
            futures = [pool.submit(divmod, n, 3) for n in range(4)]
            named = pool.submit(int, "ff", base=16)
            failing = pool.submit(divmod, 1, 0)
            calls = [*futures, named, failing]
            until(lambda: all(future.running() for future in calls), "the calls to be sent")
        assert results(futures) == [divmod(n, 3) for n in range(4)]
        assert named.result(60) == 255
        assert isinstance(failing.exception(60), ZeroDivisionError)
    assert site.jobs() == ["101"]
    with pytest.raises(PoolClosed):
        pool.submit(divmod, 1, 1)
    with pytest.raises(PoolClosed):
        pool.open(Call(square))


def test_futures_that_are_cancelled(held: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not been sent when its future is cancelled is not run; `shutdown` waits for the
    rest."""
    pool = ff.ArrayExecutor(scheduler="slurm")
    first = pool.submit(square, 3)
    until(first.running, "the first to be sent")
    until(held.jobs, "a job")
    look, looks, go_on = Waiting.look, threading.Event(), threading.Event()

    def look_later(waiting: Waiting) -> object:
        looks.set()
        assert go_on.wait(60)
        return look(waiting)

    monkeypatch.setattr(Waiting, "look", look_later)
    assert looks.wait(60)  # so it sends nothing now
    second = pool.submit(square, 4)
    third = pool.submit(square, 5)
    assert second.cancel()
    closer = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
    closer.start()
    until(third.cancelled, "what has not been sent to be cancelled")
    go_on.set()
    work(1, 0).end("done")
    closer.join(60)
    assert first.result(0) == 0  # what the test wrote
    assert held.jobs() == ["101"]


@pytest.mark.parametrize("how", ["refuse", "down"])
def test_futures_do_not_hang(held: Site, how: str) -> None:
    """S03, S20: where the scheduler takes nothing each future has its error, and `shutdown` comes
    to its end."""
    held.set(how, 0)
    with ff.ArrayExecutor(scheduler="slurm") as pool:
        futures = [pool.submit(square, n) for n in range(3)]
        errors = [future.exception(60) for future in futures]
    expected = {"refuse": SubmitRefused, "down": SchedulerDown}[how]
    assert {type(error) for error in errors} == {expected}


def test_no_element_can_begin(site: Site) -> None:
    """S18: where elements end before they can begin, who waits is told why."""
    pool = ff.ArrayExecutor(scheduler="slurm", setup=["echo no such module; exit 3"])
    with pool:
        error = pool.submit(square, 3).exception(60)
    assert isinstance(error, RunError)
    assert "no such module" in str(error)


def test_a_thread_that_breaks(held: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in the thread that serves the futures, nobody waits for ever: they have
    its error, and so do those that are asked for later."""

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Submission, "plan", fail)
    with ff.ArrayExecutor(scheduler="slurm") as pool:
        early = pool.submit(square, 3)
        assert str(early.exception(60)) == "the disk is gone"
        assert str(pool.submit(square, 4).exception(60)) == "the disk is gone"
