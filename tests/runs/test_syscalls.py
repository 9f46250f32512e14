"""Kills and errors at every call to the system that a driver makes in the folder of a run.

strace does it (see its manual, "Tampering"): it sees one thread at a time, the main one, which
makes the run, or the recorder's, which writes what happens.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fanfold.runs.state import read_state
from fanfold.store.directory import RunDirectory

WHOLE = os.environ.get("FANFOLD_FAULTS") == "whole"
POINTS = None if WHOLE else 12  # of each sweep
CALLS = "openat,mkdir,write,pwrite64,fsync,fdatasync,link,rename,unlink,ftruncate"
ERRORS = {"ENOSPC": "NoSpace", "EDQUOT": "NoSpace", "EROFS": "RunReadOnly", "EIO": "OSError"}
RESULTS = [n * n for n in range(6)]

SCRIPT = """
import ctypes, glob, os, subprocess, sys, threading, time
import fanfold as ff
from fanfold.runs import recorder as recording
from fanfold.runs.recorder import Recorder

written = threading.Semaphore(0)  # events

def square(n):
    with open("calls", "a") as out:
        print(n, file=out)
    if n == 3 and os.path.exists("die"):
        while not any('"is":"done"' in open(path).read() for path in glob.glob("*/r/journals/*")):
            time.sleep(0.001)
        os.kill(os.getpid(), 9)
    return n * n

def traced(recorder, write=Recorder._main):
    ctypes.CDLL(None).prctl(0x59616D61, -1, 0, 0, 0)  # PR_SET_PTRACER: anybody
    number = threading.get_native_id()
    status = os.open(f"/proc/self/task/{number}/status", os.O_RDONLY)
    subprocess.Popen([*sys.argv[1:], "-p", str(number)], stderr=subprocess.DEVNULL)
    while b"TracerPid:\\t0\\n" in os.pread(status, 1 << 16, 0):  # no call that is counted
        time.sleep(0.001)
    try:
        write(recorder)
    finally:
        written.release(99)  # nobody waits for who has ended

# One event after the other, and no heartbeat between: each time the same calls.

def tell(recorder, event, call=Recorder.__call__):
    call(recorder, event)
    written.acquire()

def record(recorder, events, write=Recorder._record):
    try:
        write(recorder, events)
    finally:
        for _ in events:
            written.release()

def journal_first(recorder, records):
    # The wrong order, for the check to find: what R03 forbids.
    if records:
        recorder._journal.append(records)
        recorder._pack.sync()

if __name__ == "__main__":
    if sys.argv[1:] == ["wrong"]:
        Recorder._commit = journal_first
    elif sys.argv[1:]:
        Recorder._main, Recorder.__call__, Recorder._record = traced, tell, record
        recording._BEAT, recording._PACE = 60.0, 0.0
    print(ff.run(square, range(6), name="r", on="serial", chunk=1, progress=False).results())
"""

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None
    or subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode != 0,
    reason="strace is not installed, or may not trace here",
)


class Point(NamedTuple):
    """The ``number``-th call of its kind of a thread: "main" or "recorder"."""

    thread: str
    call: str
    number: int

    def command(self, what: str) -> list[str]:
        inject = f"inject={self.call}:{what}:when={self.number}"
        return ["strace", "-qq", "-o", os.devnull, "-e", f"trace={self.call}", "-e", inject]


class Calls(NamedTuple):
    """A call as strace tells it: its name, the path that it works on, and all of the line."""

    name: str
    path: str
    line: str


def calls_of(text: str) -> Iterator[Calls]:
    for line in text.splitlines():
        match = re.match(r"(?:\d+ +)?(\w+)\(", line)
        if match:
            path = re.search(r'\(\d+<([^>]*)>|"((?:[^"\\]|\\.)*)"', line)
            yield Calls(match[1], (path[1] or path[2] or "") if path else "", line)


@pytest.fixture
def drive(tmp_path, start):
    """Run the script to its end: on its own, or with a thread of it under strace."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def drive(folder: Path, thread: str = "", strace: list[str] | None = None):
        script = str(tmp_path / "script.py")
        if thread == "main":
            drive = start(script, folder=folder, prefix=strace or [])
        else:
            drive = start(script, *(strace or []), folder=folder)
        drive.end()
        return drive

    return drive


def points(drive, folder: Path, source: random.Random, calls: str = CALLS) -> list[Point]:
    """Every call in the folder of the run, or a choice of them in the short version."""
    found = []
    for thread in ("main", "recorder"):
        where = copy(folder, folder.with_name(f"trace-{thread}"))
        trace = where / "trace"
        done = drive(where, thread, ["strace", "-y", "-o", str(trace), "-e", f"trace={CALLS}"])
        assert done.out == f"{RESULTS}\n", done.err
        numbers: dict[str, int] = {}
        for call in calls_of(trace.read_text()):
            numbers[call.name] = number = numbers.get(call.name, 0) + 1
            if "fanfold-runs" in call.line and call.name in calls.split(","):
                found.append(Point(thread, call.name, number))
    assert len(found) > 15
    assert {point.thread for point in found} == {"main", "recorder"}
    return found if POINTS is None else source.sample(found, POINTS)


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


@pytest.fixture(params=["begin", "resume"])
def folder(request, tmp_path, drive) -> Path:
    """A working folder: empty, or with a run whose driver was killed after three tasks."""
    made = tmp_path / request.param
    made.mkdir()
    if request.param == "resume":
        (made / "die").touch()
        assert drive(made).process.returncode == -9
        (made / "die").unlink()
        assert read_state(RunDirectory.open(made / "fanfold-runs/r")).done in (1, 2, 3)
    return made


def go_on(where: Path, known, drive) -> None:
    """Whatever happened: what is recorded stays, and the same command does the rest, once."""
    recorded, before = known.recorded(), known.calls()
    again = drive(where)
    assert again.out == f"{RESULTS}\n", again.err
    assert known.calls() == before + Counter(set(range(6)) - recorded)
    assert known.records() == dict.fromkeys(range(6), 1)


def test_killed_at_every_call(tmp_path, folder, drive, told) -> None:
    """R01, R02: a driver is killed at any call to the system in the folder of a new run, or of one
    that is resumed: nothing recorded is lost, nothing half is seen, and the next driver does what
    is missing, and only that."""
    already = told(folder).recorded()
    for index, point in enumerate(points(drive, folder, random.Random(1))):
        where = copy(folder, tmp_path / f"kill-{index}")
        killed = drive(where, point.thread, point.command("signal=SIGKILL"))
        assert killed.process.returncode == -9, point
        known = told(where)
        assert already <= known.recorded(), point
        go_on(where, known, drive)


def test_errors_at_every_call(tmp_path, folder, drive, told) -> None:
    """R16, R26: a call fails, for the disk is full, a quota is met, the file system has become
    read-only or broken: the driver goes on, or ends with an error that names what it could not
    write; nothing is lost, and the run goes on when there is room again."""
    source = random.Random(2)
    kinds = "write,fsync,fdatasync,link,rename"
    failed = 0
    for index, point in enumerate(points(drive, folder, source, kinds)):
        where = copy(folder, tmp_path / f"error-{index}")
        error = source.choice(list(ERRORS))
        done = drive(where, point.thread, point.command(f"error={error}"))
        if done.process.returncode == 0:
            assert done.out == f"{RESULTS}\n", point
        else:
            failed += 1
            last = done.err.strip().splitlines()[-1]
            assert done.process.returncode == 1, (point, done.err)
            assert f"{ERRORS[error]}: " in last, (point, last)
            assert "fanfold-runs/" in last, (point, last)
        go_on(where, told(where), drive)
        assert not list((where / "fanfold-runs").glob(".new-*")), point
    assert failed > (POINTS or 20) // 2


# The order of the calls ---------------------------------------------------------------------------


def disorder(calls: list[Calls]) -> list[str]:
    """What breaks the order of a commit: a result is synced before a record tells of it, a file
    before it has its name, and a name before anything that relies on it. Nothing relies on a
    heartbeat, or on what is written for people."""
    found = []
    dirty: set[str] = set()
    unnamed: set[str] = set()
    for call in calls:
        if call.name == "write":
            pack = call.path.replace("/journals/", "/results/").replace(".journal", ".pack")
            if call.path.endswith(".journal") and pack in dirty:
                found.append(f"a record before its result: {call.line}")
            if call.path.endswith(".journal") and unnamed:
                found.append(f"a record before {unnamed} is certain: {call.line}")
            dirty.add(call.path)
        elif call.name == "fdatasync":
            dirty.discard(call.path)
        elif call.name == "fsync":
            unnamed.discard(call.path)
        elif call.name in ("rename", "link") and not re.search(r"\.beat|_usage\.txt", call.line):
            target = re.findall(r'"([^"]*)"', call.line)[1]
            if {call.path} & dirty:
                found.append(f"a name before the content: {call.line}")
            unnamed.add(os.path.abspath(os.path.dirname(target)))
    return found + [f"never synced: {name}" for name in unnamed]


def in_order(trace: Path) -> list[Calls]:
    """The calls of all threads in the folder of the run, by when they ended."""
    text = trace.read_text()
    begun: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        thread = line.split()[0]
        if line.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix(" <unfinished ...>")
        elif "resumed>" in line:
            lines.append(begun.pop(thread) + line.partition("resumed>")[2])
        else:
            lines.append(line)
    return [call for call in calls_of("\n".join(lines)) if "fanfold-runs" in call.line]


@pytest.mark.parametrize("order", ["right", "wrong"])
def test_order_of_a_commit(tmp_path, start, monkeypatch, order) -> None:
    """R03: results are on the disk before a record tells of them, files before they have their
    names, and names before they are relied on. A driver that writes the record first is caught."""
    (tmp_path / "script.py").write_text(SCRIPT)
    trace = tmp_path / "trace"
    prefix = ["strace", "-f", "-y", "-o", str(trace), "-e", f"trace={CALLS}"]
    how = [] if order == "right" else ["wrong"]
    assert start("script.py", *how, prefix=prefix).end() == 0
    monkeypatch.chdir(tmp_path)  # names are relative to it
    calls = in_order(trace)
    assert sum(call.name == "fdatasync" and call.path.endswith(".pack") for call in calls) >= 2
    told = disorder(calls)
    if order == "right":
        assert told == []
    else:
        assert any("before its result" in sentence for sentence in told)
