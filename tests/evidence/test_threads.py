"""Streams and evidence of tasks that share a process: in threads, serial, in foreign executors."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import sys
import threading
import time

import pytest

import fanfold as ff
from fanfold.dispatch import Dispatch
from fanfold.errors import TaskTimeout
from fanfold.executors.foreign import ForeignExecutor
from fanfold.tasks import Call
from fanfold.testing.functions import Gate, until

KINDS = {"threads": lambda: ff.ThreadExecutor(3), "serial": ff.SerialExecutor}


@pytest.fixture(params=KINDS)
def pool(request):
    with KINDS[request.param]() as pool:
        yield pool


def speak(n):
    print("out", n)
    time.sleep(0.001)
    print("err", n, file=sys.stderr)
    sys.stdout.write("more")
    return n


def test_what_tasks_print(pool, maps, capsys):
    """What each task prints is in its own part of its worker's log, and nowhere else."""
    ran = maps(pool, speak, range(30))
    assert [one.out for one in ran] == [b"out %d\nmore" % n for n in range(30)]
    assert [one.err for one in ran] == [b"err %d\n" % n for n in range(30)]
    assert capsys.readouterr() == ("", "")


def test_times(pool, maps):
    """Evidence tells when a task began, how long it ran, and the CPU time of its thread; memory
    belongs to the process, so that of a task is not known."""

    def task(work):
        end = time.thread_time() + 0.1
        while work and time.thread_time() < end:
            pass
        time.sleep(0.1)

    before = time.time()
    ran = maps(pool, task, [True, False])
    assert 0.1 <= ran[0].piece.cpu_time <= ran[0].piece.seconds
    assert ran[1].piece.cpu_time < 0.05
    assert all(before < one.piece.began < time.time() for one in ran)
    assert all(one.piece.peak_memory is None for one in ran)


def test_tiny_tasks(pool, maps):
    """Tiny tasks are told together, each once."""
    maps(pool, abs, range(20_000))
    found = [piece for report in maps.reports for piece in report.evidence]
    assert sum(piece.count for piece in found) == 20_000
    assert len(found) < 2_000


def test_everything_else_goes_where_it_went(pool, maps, capsys):
    """What other threads print, between and beside tasks, and the listeners of the map, is not
    captured; afterwards the streams are those from before."""
    streams = sys.stdout, sys.stderr

    def other():
        print("another thread")

    def task(_):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        print("the task")

    call = Call(task, evidence=maps.prefix)
    for _ in Dispatch(pool, call, range(3), listeners=[lambda event: print("listener")]).reports():
        print("consumer")
    assert (sys.stdout, sys.stderr) == streams
    words = capsys.readouterr().out.splitlines()
    assert words.count("another thread") == 3
    assert words.count("consumer") >= 1
    assert words.count("listener") >= 3
    assert "the task" not in words
    assert maps.files("out") == b"the task\n" * 3


def test_plain_maps_are_not_captured(pool, maps, capsys):
    """Calls without evidence print where they always print, and have no evidence."""
    maps(pool, print, ["captured"])
    reports = list(Dispatch(pool, Call(print), ["plain"]).reports())
    assert reports[0].evidence == ()
    assert capsys.readouterr() == ("plain\n", "")


def test_failures(pool, maps):
    """A failed task has evidence, and what it printed."""

    def task(n):
        print(n)
        raise ValueError(n)

    ran = maps(pool, task, range(4))
    assert [one.out for one in ran] == [b"%d\n" % n for n in range(4)]
    assert all(isinstance(one.error, ValueError) for one in ran)


def test_nested_maps(pool, maps, tmp_path):
    """A map inside a task, in the same thread, has its own log; the task's goes on after it."""
    inner_prefix = f"{tmp_path}/inner-"

    def task(n):
        print("before", n)
        call = Call(lambda m: print("inner", n, m), evidence=f"{inner_prefix}{n}-")
        with ff.SerialExecutor() as inner:
            list(Dispatch(inner, call, range(2)).reports())
        print("after", n)

    ran = maps(pool, task, range(4))
    assert [one.out for one in ran] == [b"before %d\nafter %d\n" % (n, n) for n in range(4)]
    for n in range(4):
        text = (tmp_path / f"inner-{n}-w0.out").read_text()
        assert text == f"inner {n} 0\ninner {n} 1\n"


def test_several_calls_at_once(maps, tmp_path, capsys):
    """Calls that overlap in time, ending in any order, keep their output apart; the streams come
    back with the end of the last one."""
    before = sys.stdout
    gates = [Gate(tmp_path / f"gate-{n}") for n in range(2)]
    for gate in gates:
        gate.folder.mkdir()

    def drive(number):
        def task(n):
            print(number, n)
            gates[number].wait(n)
            print(number, n)

        call = Call(task, evidence=f"{tmp_path}/{number}-")
        with ff.ThreadExecutor(2) as own:
            list(Dispatch(own, call, range(2)).reports())

    drivers = [threading.Thread(target=drive, args=[number]) for number in range(2)]
    for driver in drivers:
        driver.start()
    for gate in gates:
        gate.wait_for(2)
    print("beside")
    gates[0].open()
    drivers[0].join()
    print("still beside")
    gates[1].open()
    drivers[1].join()
    assert sys.stdout is before
    assert capsys.readouterr().out == "beside\nstill beside\n"
    for number in range(2):
        texts = [path.read_text() for path in tmp_path.glob(f"{number}-*.out")]
        assert sorted(texts) == [f"{number} 0\n" * 2, f"{number} 1\n" * 2]


def test_stream_that_is_kept(maps, capsys):
    """Who keeps the stream of a task, as a log handler does, may use it after the map: it then
    leads where it led before, and in a later map to that one's log."""
    kept = []

    def task(n):
        if not kept:
            kept.append(sys.stdout)
        print("kept", n, file=kept[0])

    with ff.SerialExecutor() as pool:
        (first,) = maps(pool, task, [1])
        print("outside", file=kept[0])
        (second,) = maps(pool, task, [2])
    assert (first.out, second.out) == (b"kept 1\n", b"kept 2\n")
    assert capsys.readouterr().out == "outside\n"


def test_what_a_task_does_to_its_stream(pool, maps):
    """A task that closes sys.stdout, or writes bytes or what no encoding has, harms nobody."""

    def task(n):
        if n == 0:
            sys.stdout.close()
        elif n == 1:
            sys.stdout.buffer.write(b"\xff\x00")
        elif n == 2:
            print("\ud800")
        print(n)

    ran = maps(pool, task, range(4), chunk=4)
    assert [one.error for one in ran] == [None] * 4
    assert [one.out for one in ran] == [b"0\n", b"\xff\x001\n", b"\\ud800\n2\n", b"3\n"]
    assert not sys.stdout.closed


def test_records_of_logging(pool, maps, caplog):
    """Records that no handler takes are in the log of their task, with time, level and logger;
    elsewhere they look as always."""
    logger = logging.Logger("apart")

    def task(n):
        logger.warning("record %d", n)

    ran = maps(pool, task, range(3))
    for n, one in enumerate(ran):
        assert one.err.endswith(b" WARNING apart: record %d\n" % n)
    assert logging.lastResort.formatter is None


def test_timeout(maps):
    """A thread's task beyond its time limit has evidence so far; what it prints later, left behind,
    is in no other task's part of a log."""
    go_on = threading.Event()
    ended = threading.Event()

    def task(n):
        print("before", n)
        if n == 1:
            go_on.wait(30)
            print("late")
            ended.set()

    with ff.ThreadExecutor(1) as pool:
        ran = maps(pool, task, range(4), timeout=1.5, chunk=4)
        go_on.set()
        assert ended.wait(30)
    error = ran[1].error
    assert isinstance(error, TaskTimeout)
    assert error.evidence == ran[1].piece
    assert 1.5 <= error.evidence.seconds < 60
    assert error.evidence.cpu_time is None
    assert [one.out for one in ran] == [b"before %d\n" % n for n in range(4)]


def test_serial_with_a_timeout(maps):
    """A serial map with a time limit runs in a helper thread, and has evidence as any."""
    with ff.SerialExecutor() as pool:
        ran = maps(pool, speak, range(3), timeout=30)
    assert [one.out for one in ran] == [b"out %d\nmore" % n for n in range(3)]


def test_log_cannot_be_opened(pool, maps, capsys):
    """Where the log cannot be opened tasks run, print as they would without, and it is known."""
    maps.folder.rmdir()
    (ran,) = maps(pool, print, ["text"])
    assert ran.error is None
    assert ran.piece.log is None
    assert capsys.readouterr().out == "text\n"


def test_interrupt(maps, capsys):
    """Ctrl-C in a serial map leaves the streams as they were."""
    before = sys.stdout

    def task(n):
        raise KeyboardInterrupt

    with ff.SerialExecutor() as pool, pytest.raises(KeyboardInterrupt):
        maps(pool, task, [1])
    assert sys.stdout is before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_files_are_closed(pool, maps):
    """The log files are closed when the call is over, those of a task left behind when it ends."""

    def still_open():
        found = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [link for link in found if os.path.realpath(link).startswith(str(maps.folder))]

    maps(pool, print, range(30))
    until(lambda: still_open() == [], "the logs to be closed")  # by who told the last report
    left = threading.Event()
    maps(pool, lambda n: left.wait(30), [1], timeout=0.2)
    left.set()
    until(lambda: still_open() == [], "the log of the task that was left behind to be closed")


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_foreign_executors(kind, maps, capfd):
    """An executor that is not fanfold's gives times alone; its tasks print where they always do."""
    with getattr(concurrent.futures, kind)(2) as inner:
        ran = maps(ForeignExecutor(inner), print, ["text"] * 5)
    assert all(one.piece.log is None and one.piece.peak_memory is None for one in ran)
    assert all(one.piece.cpu_time >= 0 for one in ran)
    assert capfd.readouterr().out.count("text") == 5
