"""The job arrays of a run on disk: what counts of what their elements write, and what does not."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.runs.small import Copy, Site, site_in

import fanfold as ff
from fanfold.runs.arrays import (
    Array,
    arrays,
    close_array,
    closed_lengths,
    is_closed,
    job_of,
    keep_job,
    read_array,
)
from fanfold.runs.cluster import settle
from fanfold.runs.recorder import Tally, journal_header
from fanfold.runs.state import read_state
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import JournalWriter
from fanfold.store.lease import Lease

TOTAL = 12
SQUARES = [n * n for n in range(TOTAL)]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A scheduler that begins nothing: what elements write is written by the tests."""
    with site_in(tmp_path, monkeypatch) as site:
        site.set("hold")
        yield site


@pytest.fixture
def run(site: Site) -> ff.Run:
    """Submitted: 12 tasks in an array of 3 elements."""
    import chores

    return ff.run(chores.square, range(TOTAL), name="r", on="slurm", elements=3)


@pytest.fixture
def directory(run: ff.Run) -> RunDirectory:
    return RunDirectory.open(run.path)


def counts(run: ff.Run) -> tuple[int, int, int]:
    """Done, failed and missing, by the status; the state, which reads all, must agree. What has
    failed, and is to be tried again, is missing to the one and failed to the other."""
    status = run.status()
    state = read_state(RunDirectory.open(run.path))
    assert status.done == state.done, status
    assert status.failed <= state.failed, status
    assert status.done + status.failed + status.missing == status.total
    return status.done, status.failed, status.missing


# The files ----------------------------------------------------------------------------------------


def test_round_trip(directory: RunDirectory) -> None:
    """What is planned is read as it was written, whatever is in it; no plan is overwritten."""
    asked = ff.Resources(cores=4, memory="8GB", walltime="1h", queue="fat", extra=["--nice=5"])
    array = Array(
        7, 3, "slurm", "größe-1a", 41, [[range(4), range(9, 10)], [range(10, 11)]], 2,
        {"f": "1a"}, {"workers": None, "timeout": 1.5}, asked, "3.11.7", ["/runs/é"], 1e9,
    )  # fmt: skip
    array.write(directory)
    assert read_array(directory, 7) == array
    assert (array.elements, array.tasks) == (range(41, 43), 6)
    with pytest.raises(FileExistsError):
        array.write(directory)
    assert job_of(directory, 7) is None
    keep_job(directory, 7, "123[].server")
    assert job_of(directory, 7) == "123[].server"


def test_private(site: Site) -> None:
    """X02: what is written of arrays is for its owner alone, whatever the umask."""
    before = os.umask(0)
    try:
        folder = ff.run(abs, [1, 2], name="r", on="slurm").path / "arrays"
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    names = {path.name for path in folder.iterdir()}
    assert {"1.json", "1.sh", "1.job"} <= names
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


# Damage -------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip,
    "foreign": lambda path: path.write_text('{"number": 1, "job": "666", "lengths": {}}'),
    "a list": lambda path: path.write_text("[1, 2]"),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["json", "job", "closed"])
def test_damage(site: Site, run: ff.Run, kind: str, damage: str) -> None:
    """R06, G10: whatever file of an array is damaged: status and report are told, and say so
    where something is lost; what was done counts; the run goes on, and its results are exact."""
    directory = RunDirectory.open(run.path)
    first = Copy(directory, 1, 0)
    first.do(0, 1)
    first.end("terminated")
    site.lose("101")
    if kind == "closed":  # only an array that others follow has this file
        run.retry()
        site.lose("102")
    DAMAGES[damage](directory.array(1, kind))

    told = run.status()
    report = run.report()
    assert (told.done, told.failed, told.missing) == (2, 0, 10)
    if kind == "json":
        assert "1.json" in "".join(told.damage)
        assert "1.json" in report
    if kind == "closed" and damage != "gone":
        assert "1.closed" in report

    run.retry()
    for array in arrays(directory):
        for index in range(len(array.shares)) if not is_closed(directory, array.number) else ():
            copy = Copy(directory, array.number, index)
            copy.do(*copy.shares)
            copy.end("done")
    assert counts(run) == (12, 0, 0)
    assert run.results() == SQUARES
    assert run.history().duplicates == 0
    assert ff.Run.open("r").wait(60).status().state == "done"


def test_swapped(site: Site, run: ff.Run) -> None:
    """R06: the plan of one array in the place of another's is no plan: its tasks are not taken for
    those of the other's elements."""
    site.lose("101")
    run.retry()
    first, second = run.path / "arrays/1.json", run.path / "arrays/2.json"
    text = first.read_text()
    first.write_text(second.read_text())
    second.write_text(text)
    assert len(run.status().damage) == 2
    assert "mixed up" in run.status().damage[0]


def test_a_lost_plan_leaves_its_numbers(site: Site, run: ff.Run) -> None:
    """No later array has the number of one whose plan is gone, nor do its elements: the id of its
    job, its fence and its journals are not taken for theirs."""
    directory = RunDirectory.open(run.path)
    copy = Copy(directory, 1, 2)
    copy.do(8, 9)
    copy.end("terminated")
    directory.array(1, "json").unlink()
    site.lose("101")
    run.retry()
    (second,) = arrays(directory)
    assert second.number == 2
    assert second.first == 4
    assert job_of(directory, 2) == "102"
    assert counts(run) == (2, 0, 10)


# Who has a say ------------------------------------------------------------------------------------


def test_a_closed_array_has_no_say(directory: RunDirectory, run: ff.Run) -> None:
    """S13: what an element wrote before its array was closed counts, and nothing of what it writes
    then; nor what a copy writes that began when it was closed."""
    early = Copy(directory, 1, 0)
    early.do(0)
    close_array(directory, 1)
    early.do(1, times=-1)
    early.end("done")
    late = Copy(directory, 1, 1)
    late.do(4, times=-1)
    late.fail(5)
    late.end("failed")
    state = read_state(directory)
    assert [index for index in range(TOTAL) if state.status[index]] == [0]
    assert counts(run) == (1, 0, 11)
    assert list(closed_lengths(directory, 1)) == ["e1-a1.journal"]


def test_closed_once(directory: RunDirectory) -> None:
    """Where an array ends is said once: a second closing does not let in what came after."""
    copy = Copy(directory, 1, 0)
    copy.do(0)
    close_array(directory, 1)
    copy.do(1, times=-1)
    copy.end("done")
    with pytest.raises(FileExistsError):
        close_array(directory, 1)
    assert read_state(directory).done == 1


def test_a_second_copy(directory: RunDirectory, run: ff.Run) -> None:
    """S12: a second copy of an element goes on where the first stood, and what the first writes
    from then on counts for nothing; the element's counts never go back, not even while the second
    copy has yet to write its first word."""
    first = Copy(directory, 1, 0)
    first.do(0, 1)
    first.fail(2)
    assert counts(run) == (2, 1, 9)
    lease = Lease.take(directory, 1, steal=True)  # of a copy that dies before it writes
    lease.release()
    assert counts(run) == (2, 1, 9)
    second = Copy(directory, 1, 0)
    first.do(3, times=-1)
    first.end("failed")
    assert run.status().done == 2
    second.do(2, 3)
    second.end("done")
    assert counts(run) == (4, 0, 8)
    assert [one.attempt for one in run.status().elements] == [3, 0, 0]
    assert [outcome.value for outcome in run.outcomes()] == SQUARES[:4]


def test_who_is_late(directory: RunDirectory, run: ff.Run) -> None:
    """S12: of three copies that begin at the same moment the second may have been taken over before
    it writes its first word: that word takes nothing from the third."""
    first = Copy(directory, 1, 0)
    first.do(0)
    second = Lease.take(directory, 1, steal=True)
    third = Copy(directory, 1, 0)
    third.do(1)
    told = json.loads(directory.journal(1, 1).read_text().splitlines()[0][9:])
    about = {name: told[name] for name in ("run", "inputs", "code", "anew", "session", "array")}
    header = journal_header(directory, second, about, Tally(1, 0))
    assert [*header["after"]] == ["e1-a1.journal"]
    JournalWriter(directory.journal(1, 2), header).close()
    second.release()
    third.do(2, 3)
    third.end("done")
    first.end("")
    assert counts(run) == (4, 0, 8)


def test_sessions_in_order(site: Site) -> None:
    """A run may go there, here and there again; the first valid result of a task wins, in the order
    of the sessions, and ``retry(all=True)`` forgets what came before it, and only that."""
    import chores

    def run_on(place: str) -> ff.Run:
        return ff.run(chores.picky, range(10), name="r", on=place, elements=2)

    there = run_on("slurm")
    directory = RunDirectory.open(there.path)
    copy = Copy(directory, 1, 0)
    copy.do(3, times=10)
    copy.end("done")
    assert counts(there) == (1, 0, 9)
    site.lose("101")

    here = run_on("serial").wait()
    assert counts(here) == (9, 1, 0)  # 8 fails
    assert here.results(errors="return")[3] == 90  # as it was done there

    again = run_on("slurm")
    assert read_array(directory, 2).shares == [[range(8, 9)]]
    copy = Copy(directory, 2, 0)
    copy.do(8, 3, times=-1)
    copy.end("done")
    assert again.results() == [0, 1, 4, 90, 16, 25, 36, 49, -64, 81]
    assert run_on("slurm").wait(60).path == again.path
    assert site.jobs() == ["101", "102"]  # nothing was missing, so nothing was submitted

    again.retry(all=True)
    assert counts(again) == (0, 0, 10)
    for index in (0, 1):
        copy = Copy(directory, 3, index)
        copy.do(*copy.shares, times=2)
        copy.end("done")
    assert again.results() == [2 * n * n for n in range(10)]
    sessions = [(session.writer, session.why) for session in again.history().sessions]
    assert sessions == [
        ("e0-a1", "unfinished"), ("e0-a2", "failed"), ("e0-a3", "done"), ("e0-a4", "done"),
    ]  # fmt: skip


# Counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_counts_add_up(site: Site, run: ff.Run, seed: int) -> None:
    """After any number of submissions, with failures, requeues, deaths and retries, done, failed
    and missing together are the tasks, and the quick status says what all journals say."""
    directory = RunDirectory.open(run.path)
    draw = random.Random(seed)
    for number in range(1, 5):
        for index in range(len(read_array(directory, number).shares)):
            for _ in range(draw.choice([0, 1, 1, 2])):  # copies of it, one after the other
                copy = Copy(directory, number, index)
                done = {i for i, status in enumerate(read_state(directory).status) if status == 1}
                for task in copy.shares:
                    act = draw.choice(["do", "fail", "stop"])
                    if act == "stop":
                        break
                    if task not in done:
                        getattr(copy, act)(task)
                    if draw.random() < 0.2:
                        counts(run)
                copy.end(draw.choice(["done", "terminated", ""]))
                counts(run)
        site.lose(f"{100 + number}")
        before = counts(run)
        run.retry()
        assert counts(run) == (before[0], 0, TOTAL - before[0])
        if before[0] == TOTAL:
            break


def test_who_dies_while_it_plans(directory: RunDirectory, run: ff.Run, site: Site) -> None:
    """S02: a driver that dies when it has closed the arrays, and has not written a word, costs
    nothing of what they have done, and nothing of what is told."""
    copy = Copy(directory, 1, 0)
    copy.do(0, 1)
    copy.fail(2)
    copy.end("failed")
    site.lose("101")
    lease = Lease.take(directory, 0)
    settle(directory)
    lease.release()
    assert counts(run) == (2, 1, 9)
    assert run.status().state == "unfinished"
    run.retry()
    assert counts(run) == (2, 0, 10)


def test_many_elements(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """R18: the status of 1000 elements is told from the ends of their journals, with one question
    to the scheduler."""
    import chores

    run = ff.run(chores.square, range(5000), name="r", on="slurm", elements=1000)
    directory = RunDirectory.open(run.path)
    array = read_array(directory, 1)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    Copy(directory, 1, 0).end("")
    lease = directory.lease(1, 1).read_text()
    header = json.loads(directory.journal(1, 1).read_text()[9:])
    for index, number in enumerate(array.elements[1:], 1):
        directory.lease(number, 1).write_text(lease)
        with JournalWriter(directory.journal(number, 1), {**header, "element": number}) as journal:
            done = {"is": "done", "first": 5 * index, "count": 4, "place": [0, 0], "ran": []}
            journal.append([done, *([{"is": "end", "why": "done"}] if index < 900 else [])])
    before = len(site.calls())
    began = time.perf_counter()
    status = run.status()
    print(f"status of 1000 elements: {time.perf_counter() - began:.2f} s")
    assert (status.done, status.missing, len(status.elements)) == (999 * 4, 5000 - 999 * 4, 1000)
    assert site.calls()[before:] == ["queue"]
