"""Runs on a scheduler, as who waits for them sees it: watched, followed, cancelled; whatever
becomes of the scheduler, and of the elements."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tests.runs.small import SQUARES, TOTAL, Copy, Site, Small, begun, directory, site_in, work

import fanfold as ff
from fanfold.errors import RunError, UsageError
from fanfold.runs import remote
from fanfold.runs.arrays import arrays, job_of
from fanfold.runs.asked import Asked
from fanfold.runs.begin import begin
from fanfold.runs.cluster import Cluster
from fanfold.runs.elements import Watch, open_arrays, queue_of
from fanfold.runs.follow import Follower
from fanfold.runs.prepare import Request
from fanfold.runs.remote import Waiting
from fanfold.schedulers.base import Answer, Seen
from fanfold.schedulers.pace import Clock
from fanfold.tasks import MapFinished, MapStarted, Report
from fanfold.testing.functions import until


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A scheduler that begins elements when the tests say so."""
    with site_in(tmp_path, monkeypatch) as site:
        site.set("hold")
        yield site


@pytest.fixture
def chores(site: Site) -> ModuleType:
    import chores

    return chores


# Watching -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "failed", "cancelled", "unknown", "node"])
def test_files_win(site: Site, chores: ModuleType, state: str) -> None:
    """S24: what an element wrote about its end stands above what the scheduler says of it."""
    run = begun(chores.square)
    work(1)
    site.lose("101", state)
    assert [one.state for one in run.status().elements] == ["done", "done"]
    assert run.wait(60).status().state == "done"


def test_scheduler_down(site: Site, chores: ModuleType) -> None:
    """S04: while the scheduler does not answer nothing is declared dead, and what is done is
    collected all the same; elements that say that they have ended have."""
    run = begun(chores.square)
    copy = Copy(directory(), 1, 0)
    copy.do(0)
    site.set("down")
    site.wait_a_while(3600)
    status = run.status()
    assert "connection refused" in status.trouble
    assert [one.state for one in status.elements] == ["unknown", "unknown"]
    assert (status.state, status.done) == ("running", 1)
    with pytest.raises(TimeoutError):
        run.wait(0.3)
    copy.do(1, 2, 3)
    copy.end("done")
    copy = Copy(directory(), 1, 1)
    copy.do(*copy.shares)
    copy.end("done")
    assert run.wait(60).results() == SQUARES


def test_files_come_late(site: Site, chores: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """S27: an element has ended well, as the scheduler says, and what it wrote is not to be seen
    here yet: it is waited for, but not for ever."""
    run = begun(chores.square, elements=1)
    site.lose("101", "done")
    waiting = Waiting(directory())
    assert not waiting.look()[1]
    with monkeypatch.context() as later:
        later.setattr(remote, "_LATE", 0.0)
        assert waiting.look()[1]
    assert run.status().missing == TOTAL
    work(1)
    assert waiting.look()[1]
    assert run.wait(60).results() == SQUARES


def test_vanished(site: Site, chores: ModuleType) -> None:
    """S06, S30: jobs that neither the queue nor its records know have vanished, after a minute of
    asking: nobody waits for them, what they did is kept, and `retry` submits the rest."""
    run = begun(chores.square)
    copy = Copy(directory(), 1, 0)
    copy.do(0)
    copy.end("")
    site.forget("101")
    assert [one.state for one in run.status().elements] == ["unknown", "unknown"]
    site.wait_a_while(120)
    assert [one.state for one in run.wait(60).status().elements] == ["vanished", "vanished"]
    assert run.status().state == "unfinished"
    run.retry()
    assert [len(array.shares) for array in arrays(directory())] == [2, 2]
    work(2)
    assert run.results() == SQUARES


def test_stalled(site: Site, chores: ModuleType) -> None:
    """S14: an element that "runs" for ever, long after its walltime and without a sign of life, is
    stalled: it is cancelled once, nobody waits for it, and `retry` submits the rest. One that still
    says that it lives is waited for."""
    run = begun(chores.square, resources=ff.Resources(walltime="10m"))
    silent, alive = Copy(directory(), 1, 0), Copy(directory(), 1, 1)
    silent.do(0)
    site.lose("101", "running")
    waiting = Waiting(directory())
    for later, states in ((14 * 60, ["running", "running"]), (2 * 60, ["stalled", "running"])):
        site.wait_a_while(later)
        alive.beat(site.later)
        assert [one.state for one in waiting.look()[0]] == states
    assert not waiting.look()[1]
    assert (site.calls().count("cancel"), site.cancelled()) == (1, ["101.0"])
    alive.do(*alive.shares)
    alive.end("done")
    assert run.wait(60).status().state == "unfinished"
    run.retry()
    silent.do(1)  # it was not dead: too late
    silent.end("done")
    work(2)
    assert run.results() == SQUARES


def test_asked_rarely(site: Site, chores: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """S23: who looks at what elements wrote does not ask the scheduler; and of many that want to
    know at the same time one asks, with one question for all elements."""
    run = begun(chores.square)
    monkeypatch.setattr(Clock, "sleep", lambda _, seconds: time.sleep(seconds))
    now = time.time()
    monkeypatch.setattr(Clock, "time", lambda _: now)  # an answer may take long, and is not old
    before = len(site.calls())
    threads = [threading.Thread(target=run.status) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.calls()[before:] == ["queue"]
    (run.path / "arrays/1.job").unlink()
    site.set("down")
    before = len(site.calls())
    watch = Watch(directory(), queue_of(directory(), "slurm"))
    for _ in range(20):
        watch.look(None)
    assert site.calls()[before:] == []


def test_waiting_asks_less_and_less(
    site: Site, chores: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S23: while nothing changes the questions become rare."""
    run = begun(chores.square)
    asked: list[float] = []
    seen = Small.seen

    def noted(scheduler: Small, answer: Answer) -> list[Seen]:
        asked.append(site.later)
        return seen(scheduler, answer)

    monkeypatch.setattr(Small, "seen", noted)
    by_hand = SimpleNamespace(monotonic=lambda: site.later, sleep=site.wait_a_while)
    monkeypatch.setattr(remote, "time", by_hand)
    with pytest.raises(TimeoutError):
        run.wait(300)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses[0] < 2
    assert pauses[-1] > 20
    assert len(asked) < 25


# No element can begin -----------------------------------------------------------------------------


@pytest.mark.parametrize("log", ["there", "missing"])
def test_no_element_can_begin(site: Site, chores: ModuleType, log: str) -> None:
    """S18, S17: when three elements have ended before their Python could begin, the others are
    spared it, and who waits sees the last lines of a log, or that there is none."""
    run = begun(chores.square, elements=8, setup=["echo 'module: not found' >&2; exit 5"])
    for index in range(2):
        site.begin("101", index)
        assert site.wait("101", index) == 5
    with pytest.raises(TimeoutError):  # it may be their nodes
        run.wait(0.3)
    site.begin("101", 2)
    site.wait("101", 2)
    if log == "missing":
        for path in run.path.glob("logs/array-*"):
            path.unlink()
    site.wait_a_while(60)
    with pytest.raises(RunError) as caught:
        run.wait(60)
    said = str(caught.value)
    assert "element 1 (job 101, index 0) ended before its Python could begin" in said
    assert "exit status 5" in said
    assert ("module: not found" in said) == (log == "there")
    assert ("there is no log at" in said) == (log == "missing")
    assert site.cancelled() == [f"101.{index}" for index in range(3, 8)]
    assert run.status().missing == TOTAL


def unseen_run(run: ff.Run) -> Callable[[], object]:
    aside = run.path / "aside.json"
    os.rename(run.path / "run.json", aside)
    return lambda: os.rename(aside, run.path / "run.json")


def unseen_folder(run: ff.Run) -> Callable[[], object]:
    script = Path(os.environ["SMALL_SITE"], "101/script")
    script.write_text(script.read_text().replace(f"cd {Path.cwd()} ", "cd /nonexistent "))
    return lambda: None


def no_python(run: ff.Run) -> Callable[[], object]:
    return lambda: None


UNSEEN = {
    unseen_run: "its node cannot see the folder of the run",
    unseen_folder: "its node cannot see the folder that the run was begun in",
    no_python: "its node has no such Python",
}


@pytest.mark.parametrize("hide", UNSEEN, ids=lambda hide: hide.__name__)
def test_unseen(site: Site, chores: ModuleType, hide: Callable) -> None:
    """S26: a node that does not see the run, its folder or its Python is told of by name."""
    options = {"python": "/nonexistent/python"} if hide is no_python else {}
    run = begun(chores.square, elements=1, **options)
    show = hide(run)
    site.begin("101", 0)
    site.wait("101", 0)
    show()
    with pytest.raises(RunError, match=UNSEEN[hide]):
        run.wait(60)


# Cancelled ----------------------------------------------------------------------------------------


def test_cancel(site: Site, chores: ModuleType) -> None:
    """`cancel` ends what is at work, and returns when it has ended; what has ended is not touched;
    what is done stays done."""
    run = begun(chores.half, elements=4, resources=ff.Resources(cores=2))
    for index in (0, 1):
        site.begin("101", index)
    until(lambda: run.status().done == 2, "what is quick to be done")
    work_of = Copy(directory(), 1, 3)
    work_of.do(6, 7)
    work_of.end("done")
    run.cancel()
    assert site.cancelled() == ["101.0", "101.1", "101.2"]
    assert (site.folder / "101/0.exit").read_text() == "143\n"
    status = run.status()
    assert [one.state for one in status.elements] == ["cancelled"] * 3 + ["done"]
    assert (status.state, status.done, status.failed) == ("unfinished", 4, 0)
    asked = len(site.calls())
    run.cancel()  # again: nothing is left to be ended
    assert "cancel" not in site.calls()[asked:]


def test_cancel_one(site: Site, chores: ModuleType) -> None:
    """One element is ended, and the others go on; one that there is not is told."""
    run = begun(chores.square)
    run.cancel(element=2)
    assert site.cancelled() == ["101.1"]
    assert [one.state for one in run.status().elements] == ["waiting", "cancelled"]
    with pytest.raises(UsageError, match="no element 3 at work: they are 1 to 2"):
        run.cancel(element=3)


# Followed -----------------------------------------------------------------------------------------


def test_followed(site: Site, chores: ModuleType) -> None:
    """Who drives a run on a scheduler hears of each task as it ends, once; and who comes later
    hears of what was done before."""
    cluster = Cluster("slurm", ff.Resources(cores=3), 2).told()
    options = {"on": "slurm", "workers": None, "chunk": None, "retries": 0, "timeout": None,
               "errors": "return", "cluster": cluster}  # fmt: skip
    request = Request(chores.square, range(TOTAL), Path("fanfold-runs"), options, "r")

    def drive() -> tuple[list[object], threading.Thread]:
        events: list[object] = []
        run, _ = begin(request, progress=False, listeners=[events.append])
        driver = threading.Thread(target=run.drive)
        driver.start()
        return events, driver

    first, one = drive()
    until(lambda: site.jobs() and job_of(directory(), 1), "the submission")
    copy = Copy(directory(), 1, 0)
    copy.do(0, 1)
    until(lambda: _told(first) == [0, 1], "two reports")
    second, other = drive()
    copy.do(2)
    copy.fail(3)
    copy.end("failed")
    site.begin("101", 1)
    for driver in (one, other):
        driver.join(60)
    for events in (first, second):
        assert sorted(_told(events)) == list(range(TOTAL))
        begins, *_, ends = events
        assert begins == MapStarted(TOTAL, 6, "slurm")
        assert ends == MapFinished(interrupted=False)
        (failed,) = [event.failed for event in events if isinstance(event, Report) and event.failed]
        assert failed == (3,)
    assert site.jobs() == ["101"]


def _told(events: list[object]) -> list[int]:
    reports = [event for event in events if isinstance(event, Report)]
    return [outcome.index for report in reports for outcome in report.outcomes()]


def test_each_task_once(site: Site, chores: ModuleType) -> None:
    """S12, R22: of a task that two copies have done the first is told; what is damaged is left out,
    and what comes after it is not."""
    begun(chores.square, elements=1)
    asked = Asked.read(directory())
    with Follower(directory(), asked.id, open_arrays(directory()), trust=False) as follower:
        first = Copy(directory(), 1, 0)
        first.do(0, 1)
        assert _told(list(follower.reports())) == [0, 1]
        second = Copy(directory(), 1, 0)
        first.end("")
        second.do(1, 2)
        assert _told(list(follower.reports())) == [2]
        assert list(follower.reports()) == []
        second.do(3, 4, 5)
        pack = directory().pack(1, 2)
        data = pack.read_bytes()
        place = data.rindex(b"FFP1", 0, data.rindex(b"FFP1"))  # of task 4
        pack.write_bytes(data[: place + 40] + b"?" + data[place + 41 :])
        assert _told(list(follower.reports())) == [3, 5]
        second.end("done")
