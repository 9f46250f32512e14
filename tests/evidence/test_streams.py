"""Standard streams, logging and warnings in worker processes, and what tasks do to them."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import warnings

import pytest

import fanfold as ff


def by_logging(n):
    logging.getLogger("my.name").warning("record %d", n)
    logging.getLogger("my.name").info("not shown")


def closes(_):
    os.close(1)
    os.close(2)


def leads_elsewhere(_):
    number = os.open(os.devnull, os.O_WRONLY)
    os.dup2(number, 1)
    os.dup2(number, 2)
    os.close(number)


def closes_streams(_):
    sys.stdout.close()
    sys.stderr.close()


MISDEEDS = {
    "closes 1 and 2": closes,
    "leads 1 and 2 elsewhere": leads_elsewhere,
    "closes sys.stdout and sys.stderr": closes_streams,
    "detaches sys.stdout": lambda _: sys.stdout.detach(),
    "leads 2 to 1": lambda _: os.dup2(1, 2),
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_what_a_task_does_to_its_output(misdeed, maps, capfd):
    """R23: whatever a task does to its standard streams, the output of the tasks after it is in
    their parts of the log, the worker lives, and a plain map's output goes where it went."""

    def task(n):
        if n == 2:
            MISDEEDS[misdeed](n)
        else:
            print("out", n)
            print("err", n, file=sys.stderr)
        return os.getpid()

    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, task, range(5), chunk=5)
        os_write = ff.map(lambda n: os.write(1, b"plain\n"), [0], on=pool)
    assert os_write == [6]
    assert len({one.outcome.value for one in ran if one.outcome.ok}) == 1
    for n in (0, 1, 3, 4):
        assert ran[n].error is None
        assert ran[n].out == b"out %d\n" % n
        assert ran[n].err == b"err %d\n" % n
    assert capfd.readouterr() == ("plain\n", "")


def test_replaced_stream_stays(maps):
    """A stream that a task puts in the place of sys.stdout stays there in that worker, as it would
    without evidence; the worker lives."""

    def task(n):
        if n == 1:
            sys.stdout = io.StringIO()
        print(n)
        return sys.stdout.getvalue() if n else ""

    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, task, range(3), chunk=3)
    assert [one.outcome.value for one in ran] == ["", "1\n", "1\n2\n"]
    assert [one.out for one in ran] == [b"0\n", b"", b""]


def test_stream_without_manners(maps):
    """A stream of the user's whose flush raises does not end a worker, nor a plain map's."""

    class Rude(io.StringIO):
        def flush(self):
            raise RuntimeError("no")

    def task(n):
        sys.stdout = Rude()
        return n

    with ff.ProcessExecutor(1) as pool:
        assert [one.outcome.value for one in maps(pool, task, range(5))] == list(range(5))
        assert ff.map(task, range(5), on=pool) == list(range(5))


def test_records_of_logging(maps):
    """Where the user has not configured logging, records from WARNING on are in the log, with
    their time, level and logger; logging.basicConfig in a task does what it always does."""

    def task(n):
        if n == 2:
            logging.basicConfig(format="mine %(message)s", level=logging.INFO)
        by_logging(n)

    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, task, range(3), chunk=3)
    for n in (0, 1):
        when, text = ran[n].err.decode().split(" WARNING ")
        assert text == f"my.name: record {n}\n"
        time.strptime(when.split(",")[0], "%Y-%m-%d %H:%M:%S")
    assert ran[2].err == b"mine record 2\nmine not shown\n"


def test_logging_that_is_configured(maps):
    """Where the user's initializer has configured logging, it stays as it is."""

    def configure():
        logging.basicConfig(format="%(levelname)s-%(message)s", stream=sys.stdout)

    with ff.ProcessExecutor(1, initializer=configure) as pool:
        (ran,) = maps(pool, by_logging, [7])
    assert (ran.out, ran.err) == (b"WARNING-record 7\n", b"")


def test_warnings(maps):
    """A warning is shown once a task and place, not once a process; the filters that a task sets
    stay as it sets them."""

    def task(n):
        if n == 3:
            warnings.simplefilter("ignore")
        for _ in range(5):
            warnings.warn("mind the gap", stacklevel=1)

    with ff.ProcessExecutor(1) as pool:
        ran = maps(pool, task, range(5), chunk=5)
        plain = pool.submit(lambda: warnings.filters[0][0]).result()
    assert [one.err.count(b"UserWarning: mind the gap") for one in ran] == [1, 1, 1, 0, 0]
    assert plain == "ignore"
