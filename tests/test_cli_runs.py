"""The commands that look at runs, as a user types them."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from fanfold.testing.functions import until

TASKS = """
import logging, sys, time, warnings
from pathlib import Path

def square(n):
    return n * n

def noisy(n):
    print("out", n)
    print("err", n, file=sys.stderr)
    logging.getLogger("work").warning("logged %d", n)
    warnings.warn("odd" if n % 2 else "even")
    if n == 3:
        raise ValueError("three")
    return n

def picky(n):
    if n == 3 and not Path("good").exists():
        raise ValueError("three")
    return n + 1

def gated(n):
    print("began", n, flush=True)
    while not Path("gate").exists():
        time.sleep(0.01)
    return n
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work.py").write_text(TASKS)
    return tmp_path


def start(folder, *arguments, **options):
    command = [sys.executable, "-m", "fanfold", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, **{**pipes, **options})


@pytest.fixture
def fanfold(folder):
    def fanfold(*arguments):
        with start(folder, *arguments) as process:
            process.out, process.err = process.communicate(timeout=100)
        return process

    return fanfold


def test_the_same_command_goes_on(fanfold):
    """The same command takes up its run: what is done is read, what failed is tried again."""
    command = ["run", "work.py:noisy", "--range", "1-4"]
    first, again = fanfold(*command), fanfold(*command)
    assert (first.returncode, again.returncode) == (1, 1)
    assert first.out == again.out
    assert "run work.noisy-1 goes on: 3 of 4 tasks are done" in again.err
    assert "goes on" not in first.err
    assert [line.split()[0] for line in fanfold("runs").out.splitlines()] == ["work.noisy-1"]


def test_another_command_is_another_run(fanfold):
    """Other inputs, or another seed, make another run, with the next number."""
    for arguments in (["1", "2"], ["1", "2", "--seed", "1"], ["3"]):
        assert fanfold("run", "work.py:square", *arguments).returncode == 0
    names = [line.split()[0] for line in fanfold("runs").out.splitlines()]
    assert names == ["work.square-1", "work.square-2", "work.square-3"]


def test_a_changed_function(folder, fanfold):
    """A changed function ends the command with status 2, says what changed and what to do."""
    command = ["run", "work.py:square", "1", "2", "--name", "squares"]
    assert fanfold(*command).returncode == 0
    (folder / "work.py").write_text(TASKS.replace("n * n", "n ** 3"))
    refused = fanfold(*command)
    assert (refused.returncode, refused.out) == (2, "")
    assert "the function work.square has changed" in refused.err
    assert "--resume anyway" in refused.err
    assert fanfold(*command, "--resume", "anyway").out.endswith("1\t2\t4\n")
    fresh = fanfold(*command, "--resume", "fresh")
    assert fresh.out.endswith("1\t2\t8\n")
    assert "the run before is kept as" in fresh.err


def test_a_changed_function_is_asked_about_in_a_terminal(folder, fanfold):
    """In a terminal the command asks, and does what is answered."""
    command = ["run", "work.py:square", "2", "--name", "squares"]
    assert fanfold(*command).returncode == 0
    (folder / "work.py").write_text(TASKS.replace("n * n", "n ** 3"))
    ours, theirs = pty.openpty()
    with start(folder, *command, stdin=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while b"or stop?" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, b"fresh\n")
        assert process.stdout.read() == "index\tinput\tresult\n0\t2\t8\n"
    os.close(ours)
    assert b"Keep the results (anyway), run all (fresh), or stop?" in shown


def test_logs(fanfold):
    """Each task's output, log records and warnings are its own, and can be had by its index."""
    fanfold("run", "work.py:noisy", "--range", "1-4", "--name", "n", "--workers", "2")
    one = fanfold("logs", "n", "1")
    assert re.findall(r"(out|err|logged) (\d)", one.out) == [
        ("out", "2"),
        ("err", "2"),
        ("logged", "2"),
    ]
    assert "UserWarning: even" in one.out
    everything = fanfold("logs", "n").out
    assert sorted(re.findall(r"out (\d)", everything)) == ["1", "2", "3", "4"]
    assert len(re.findall("UserWarning", everything)) == 4
    failed = fanfold("logs", "n", "--failed")
    assert re.findall(r"out (\d)", failed.out) == ["3"]
    assert "task 2, failed" in failed.err
    wrong = fanfold("logs", "n", "4")
    assert wrong.returncode == 2
    assert "there is no task 4: the tasks are 0 to 3" in wrong.err


def test_results(folder, fanfold):
    """Results can be had later, as a table, as JSON Lines, and in files."""
    fanfold("run", "work.py:noisy", "--range", "2-4", "--name", "n")
    done = fanfold("results", "n")
    assert (done.returncode, done.out) == (1, "index\tinput\tresult\n0\t2\t2\n2\t4\t4\n")
    records = [json.loads(line) for line in fanfold("results", "n", "--json").out.splitlines()]
    assert records[1] == {"index": 1, "input": 3, "error": "ValueError: three"}
    assert fanfold("results", "n", "--out", "r.csv").returncode == 1
    assert (folder / "r.csv").read_text().splitlines()[2] == "1,3,,ValueError: three"


def test_status_follow_and_cancel(folder, fanfold):
    """While it runs, others see what each worker does, read along, and can stop it."""
    with start(folder, "run", "work.py:gated", *"12345", "--name", "g", "--workers", "2") as driver:

        def busy():
            return fanfold("status", "g").out.count("since") == 2

        until(busy, "two busy workers", 100)
        status = fanfold("status", "g", "--json")
        told = json.loads(status.out)
        assert (told["state"], told["done"], told["missing"]) == ("running", 0, 5)
        assert told["driver"][1] == driver.pid
        with start(folder, "logs", "g", "--follow") as reader:
            assert fanfold("cancel", "g").returncode == 0
            reader.communicate(timeout=60)
        _, err = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert "cancelled" in err
    assert "Traceback" not in err
    assert fanfold("status", "g").out.splitlines()[0] == "g: unfinished: 0 of 5 done, 5 missing"


def test_retry(folder, fanfold):
    """`retry` runs what has no result, from the folder alone; a changed function is refused."""
    fanfold("run", "work.py:picky", "--range", "1-4", "--name", "p")
    # of another length: by time and length Python knows that its byte code is old
    (folder / "work.py").write_text(TASKS.replace("n + 1", "n + 222"))
    refused = fanfold("retry", "p")
    assert refused.returncode == 2
    assert "has changed" in refused.err
    (folder / "work.py").write_text(TASKS)
    assert fanfold("retry", "p").returncode == 1
    (folder / "good").touch()
    again = fanfold("retry", "p")
    assert again.returncode == 0
    assert "p: done: 4 of 4 done" in again.err


def test_report(folder, fanfold):
    """The report is text, or one page."""
    fanfold("run", "work.py:noisy", "--range", "1-4", "--name", "n")
    report = fanfold("report", "n").out
    assert "4 tasks: 3 done, 1 failed" in report
    assert "ValueError: three" in report
    assert fanfold("report", "n", "--html", "r.html").returncode == 0
    page = (folder / "r.html").read_text()
    assert "ValueError: three" in page
    assert set(re.findall(r"\w+://[\w.]+", page)) <= {"http://www.w3.org"}


def test_no_such_run(fanfold):
    """Every command says when there is no such run, and names those there are."""
    fanfold("run", "work.py:square", "1", "--name", "march")
    for command in ("status", "logs", "results", "retry", "cancel", "report"):
        done = fanfold(command, "marsh")
        assert done.returncode == 2
        assert "march" in done.err
        assert "Traceback" not in done.err
