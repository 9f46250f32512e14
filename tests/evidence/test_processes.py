"""Streams and evidence of tasks in worker processes: what each printed, and what it used."""

from __future__ import annotations

import ctypes
import io
import itertools
import os
import subprocess
import sys
import time
from collections import Counter

import pytest

import fanfold as ff
from fanfold.dispatch import Dispatch
from fanfold.progress import listener
from fanfold.tasks import Call, Chunk, MapFinished, MapStarted, Report, TaskRetried
from fanfold.testing.functions import mark, until

MIB = 1 << 20
METHODS = ["forkserver", "spawn", "fork"]


def descriptors(_=None):
    """The open descriptors of the worker, without the one that lists them."""
    return len(os.listdir("/proc/self/fd")) - 1


def by_c(n):
    ctypes.CDLL(None).puts(f"C {n}".encode())


def by_subprocess(n):
    code = f"import sys; print('child', {n}); print('trouble', {n}, file=sys.stderr)"
    subprocess.run([sys.executable, "-c", code], check=True)


def by_binary(n):
    sys.stdout.buffer.write(bytes(range(256)) + bytes([n]))


WAYS = {
    "print": (lambda n: print("line", n), b"line %d\n", b""),
    "no newline": (lambda n: print(n, end=""), b"%d", b""),
    "os.write": (lambda n: os.write(1, b"raw %d\n" % n), b"raw %d\n", b""),
    "os.write to 2": (lambda n: os.write(2, b"raw %d\n" % n), b"", b"raw %d\n"),
    "a C library": (by_c, b"C %d\n", b""),
    "a program": (by_subprocess, b"child %d\n", b"trouble %d\n"),
    "sys.stderr": (lambda n: print(n, file=sys.stderr), b"", b"%d\n"),
    "binary": (by_binary, bytes(range(256)).replace(b"%", b"%%") + b"%c", b""),
    "nothing": (lambda n: n, b"", b""),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_printing(way, maps):
    """What a task prints, in whatever way, is in its own part of its worker's log, and whole."""
    func, out, err = WAYS[way]
    with ff.ProcessExecutor(2) as pool:
        ran = maps(pool, func, range(6))
    for n, task in enumerate(ran):
        assert task.out == (out % n if b"%" in out else out)
        assert task.err == (err % n if b"%" in err else err)


@pytest.mark.parametrize("method", METHODS)
def test_methods(method, maps, capfd):
    """The same holds for workers started in any way; nothing of it reaches our own streams."""

    def task(n):
        print("out", n)
        print("err", n, file=sys.stderr)

    with ff.ProcessExecutor(2, mp_context=method) as pool:
        ran = maps(pool, task, range(20))
    assert [task.out for task in ran] == [b"out %d\n" % n for n in range(20)]
    assert [task.err for task in ran] == [b"err %d\n" % n for n in range(20)]
    assert capfd.readouterr() == ("", "")


def test_workers_side_by_side(maps, tmp_path):
    """Tasks that print at the same time in several workers keep their output apart."""
    there = tmp_path / "there"
    there.mkdir()

    def task(n):
        mark(there, os.getpid())
        until(lambda: len(os.listdir(there)) == 3, "all workers to work")
        for line in range(3):
            print(n, line)
            time.sleep(0.002)

    with ff.ProcessExecutor(3) as pool:
        ran = maps(pool, task, range(40))
    for n, one in enumerate(ran):
        assert one.out == b"".join(b"%d %d\n" % (n, line) for line in range(3))
    assert len({report.worker for report in maps.reports}) == 3


def pieces(maps):
    """All pieces, checked: those of a report tell of its tasks, each once and in order."""
    found = []
    for report in maps.reports:
        following = report.first
        for piece in report.evidence:
            assert piece.first == following
            assert piece.count > 0
            following += piece.count
        assert following == report.first + len(report)
        found += report.evidence
    return found


def test_tiny_tasks_are_told_together(maps):
    """Tiny tasks that print nothing are run in slices, and a piece of evidence tells of a slice;
    the pieces of a report tell of each task once."""
    with ff.ProcessExecutor(2) as pool:
        maps(pool, abs, range(20_000))
    found = pieces(maps)
    assert sum(piece.count for piece in found) == 20_000
    assert len(found) < 2_000
    assert all(piece.seconds >= 0 and (piece.cpu_time or 0) >= 0 for piece in found)


def test_tiny_tasks_that_print(maps):
    """Once one of them has printed, tiny tasks of a chunk are run one by one: then it is known
    which printed what."""

    def task(n):
        if n >= 1500:
            print(n)

    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, task, range(50_000), chunk=50_000)
    assert maps.files("out") == b"".join(b"%d\n" % n for n in range(1500, 50_000))
    together = [piece for piece in pieces(maps) if piece.count > 1]
    alone = ran[together[-1].first + together[-1].count :]
    assert 0 < len(together) < 100
    assert len(alone) > 10_000
    assert all(one.piece.count == 1 and one.out == b"%d\n" % one.outcome.index for one in alone)


def test_slice_with_a_long_task(maps, gate):
    """Where a task among tiny ones runs long, those before it are reported with evidence of their
    own, and the pieces tell of each task once all the same."""

    def task(n):
        return gate.wait(n) if n == 700 else n

    with ff.ProcessExecutor(1) as pool, pool.open(Call(task, evidence=maps.prefix)) as stream:
        stream.send(Chunk(0, range(2000)))
        maps.reports = [stream.receive(timeout=30)]
        gate.wait_for(1)
        while sum(map(len, maps.reports)) < 700:
            maps.reports.append(stream.receive(timeout=30))
        gate.open()
        while sum(map(len, maps.reports)) < 2000:
            maps.reports.append(stream.receive(timeout=30))
    assert sum(piece.count for piece in pieces(maps)) == 2000


def test_folded_reports(maps):
    """Where values are reduced before they travel, the pieces still tell of each task."""
    call = Call(abs, evidence=maps.prefix, fold=lambda a, b: a + b)
    with ff.ProcessExecutor(2) as pool:
        maps.reports = list(Dispatch(pool, call, range(5000)).reports())
    assert sum(piece.count for piece in pieces(maps)) == 5000


def test_much_output(maps):
    """Fifty megabytes of a task are in the log, none of it lost; they are not held in memory."""
    block = bytes(range(256)) * 256

    def task(n):
        for _ in range(800):
            os.write(1, block)
        return 800 * len(block)

    with ff.ProcessExecutor(1) as pool:
        (ran,) = maps(pool, task, [0])
    assert ran.out == block * 800
    assert ran.piece.peak_memory < 200 * MIB


def say(text):
    sys.stdout.write(text + "\n")  # at once: print writes twice where PYTHONUNBUFFERED is set


def test_plain_maps_are_not_captured(maps, capfd):
    """Only calls with evidence are captured: what plain maps and submits print between and beside
    them goes where it always went, and their reports hold no evidence."""
    with ff.ProcessExecutor(2) as pool:
        maps(pool, say, ["captured"] * 10)
        ff.map(say, ["plain"] * 10, on=pool)
        pool.submit(say, "single").result()
        (report,) = Dispatch(pool, Call(abs), [-1]).reports()
        maps(pool, say, ["captured"] * 10)
    assert report.evidence == ()
    assert capfd.readouterr() == ("plain\n" * 10 + "single\n", "")
    assert maps.files("out") == b"captured\n" * 20


def test_no_evidence_no_files(tmp_path, monkeypatch):
    """A call without evidence makes no files."""
    monkeypatch.chdir(tmp_path)
    with ff.ProcessExecutor(1) as pool:
        ff.map(print, ["plain"], on=pool)
    assert list(tmp_path.iterdir()) == []


def test_two_calls_at_once(maps, tmp_path):
    """Calls that share the workers, in turns, have logs of their own."""
    with ff.ProcessExecutor(2) as pool:
        calls = [Call(print, evidence=f"{tmp_path}/{name}-") for name in "ab"]
        with pool.open(calls[0]) as one, pool.open(calls[1]) as two:
            for n in range(20):
                one.send(Chunk(n, [f"one {n}"]))
                two.send(Chunk(n, [f"two {n}"]))
            for stream in (one, two):
                reports = [stream.receive(timeout=30) for _ in range(20)]
                assert all(report.evidence[0].count == 1 for report in reports)
    for name, word in (("a", "one"), ("b", "two")):
        lines = [path.read_text().splitlines() for path in tmp_path.glob(f"{name}-w*.out")]
        assert sorted(itertools.chain(*lines)) == sorted(f"{word} {n}" for n in range(20))


def test_files(maps):
    """Log files are for their owner alone, whatever the umask; a link in their place is not
    followed: the tasks run, and it is known that there is no log."""
    before = os.umask(0)
    try:
        with ff.ProcessExecutor(1) as pool:
            maps(pool, print, ["text"])
    finally:
        os.umask(before)
    (out, err) = sorted(maps.folder.iterdir(), reverse=True)
    assert (out.name, err.name) == ("e0-a1-w0.out", "e0-a1-w0.err")
    assert {path.stat().st_mode & 0o777 for path in (out, err)} == {0o600}


@pytest.mark.parametrize("wrong", ["link", "folder is missing"])
def test_log_cannot_be_opened(wrong, maps, capfd):
    """Where the log cannot be opened the tasks run all the same; the evidence says that what they
    printed is not known, and it goes where it would go without."""
    target = maps.folder / "target"
    if wrong == "link":
        (maps.folder / "e0-a1-w0.err").symlink_to(target)
    else:
        maps.folder.rmdir()
    with ff.ProcessExecutor(1) as pool:
        (ran,) = maps(pool, print, ["text"])
    assert ran.error is None
    assert ran.piece.log is None
    assert ran.piece.cpu_time is not None
    assert capfd.readouterr().out == "text\n"
    assert not target.exists()


def test_printed_while_loading(maps):
    """What a module prints when it is first imported, for a task, is of that task."""

    class Loud:
        def __reduce__(self):
            return print, ("loaded",)

    def task(_):
        print("ran")

    with ff.ProcessExecutor(1) as pool:
        (ran,) = maps(pool, task, [Loud()])
    assert ran.out == b"loaded\nran\n"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_descriptors_are_left(maps):
    """A call's log files are closed in the workers when it is over."""
    with ff.ProcessExecutor(1) as pool:
        before = pool.submit(descriptors).result()
        for _ in range(10):
            maps(pool, print, range(30))
        assert pool.submit(descriptors).result() == before


def test_times(maps):
    """A task's evidence tells when it began, how long it ran and what CPU time it took, that of
    the programs it waited for included."""

    def burn(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    def task(kind):
        if kind == "sleep":
            time.sleep(0.2)
        elif kind == "work":
            burn(0.2)
        else:
            code = "import time\nwhile time.process_time() < 0.2: pass"
            subprocess.run([sys.executable, "-c", code], check=True)

    before = time.time()
    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, task, ["sleep", "work", "program"], chunk=3)
    after = time.time()
    began = [before, *(one.piece.began for one in ran), after]
    assert began == sorted(began)
    assert all(one.piece.seconds >= 0.19 for one in ran)
    assert ran[0].piece.cpu_time < 0.1
    assert all(0.19 <= one.piece.cpu_time < 2 for one in ran[1:])
    assert all(one.piece.seconds == pytest.approx(one.outcome.seconds, abs=0.2) for one in ran)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak cannot begin anew")
def test_peak_memory(maps):
    """The peak is that of the task, not of what the worker ran before; the report's is the
    largest so far."""

    def task(size):
        block = bytearray(size)
        block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
        time.sleep(0.001)

    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, task, [MIB, 200 * MIB, MIB, 100 * MIB, MIB])
    peaks = [one.piece.peak_memory for one in ran]
    assert peaks[1] > 200 * MIB
    assert 100 * MIB < peaks[3] < 200 * MIB
    assert max(peaks[0], peaks[2], peaks[4]) < 100 * MIB
    assert ran[4].outcome.peak_memory == max(peaks)


def test_failures_and_retries(maps):
    """A failed task has evidence too; listeners are told of each failure that is tried again, with
    the error and the evidence of that attempt, and of the last one as ever."""

    def task(n):
        print("trying", n)
        if n == 3:
            raise ValueError("not this one")

    with ff.ProcessExecutor(2) as pool:
        ran = maps(pool, task, range(6), retries=2, chunk=6)
    retried = [event.report for event in maps.events if isinstance(event, TaskRetried)]
    assert [(report.first, report.attempt, report.failed) for report in retried] == [
        (3, 1, (3,)),
        (3, 2, (3,)),
    ]
    for report in retried:
        (piece,) = report.evidence
        assert (piece.first, piece.count) == (3, 1)
        assert maps.printed(report.worker, piece.log)[0] == b"trying 3\n"
        assert isinstance(report.values[0], ValueError)
    assert [one.out for one in ran] == [b"trying %d\n" % n for n in range(6)]
    assert ran[3].outcome.attempt == 3
    kinds = [type(event) for event in maps.events]
    assert (kinds[0], kinds[-1]) == (MapStarted, MapFinished)
    assert sum(len(event) for event in maps.events if isinstance(event, Report)) == 6


def test_bar_and_retries(maps):
    """What draws the bar counts a task once, however often it is tried, and shows its last word."""
    file = io.StringIO()

    def task(n):
        raise ValueError(n)

    with ff.ProcessExecutor(1) as pool:
        maps(pool, task, range(3), retries=2)
    show = listener(True, file=file)
    for event in maps.events:
        show(event)
    assert file.getvalue().splitlines()[-1].startswith("fanfold: 3/3 done, 3 failed in ")


def test_worker_limit(maps):
    """Workers that are replaced (max_tasks_per_child) have files of their own."""
    with ff.ProcessExecutor(1, max_tasks_per_child=2) as pool:
        ran = maps(pool, print, range(6))
    assert [one.out for one in ran] == [b"%d\n" % n for n in range(6)]
    tasks = Counter(report.worker for report in maps.reports for _ in report.values)
    assert max(tasks.values()) <= 2  # fewer where it has given one back
    lines = [len(path.read_bytes().splitlines()) for path in maps.folder.glob("*.out")]
    assert sorted(filter(None, lines)) == sorted(tasks.values())
