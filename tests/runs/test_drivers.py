"""Two drivers, drivers that stand still, drivers that are gone: one works, and nothing is mixed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest

import fanfold as ff
from fanfold.cli import main
from fanfold.store.lease import Lease
from fanfold.testing.functions import until

WHOLE = os.environ.get("FANFOLD_FAULTS") == "whole"
RACES = 200 if WHOLE else 50
SPLITS = 50 if WHOLE else 4


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# At once ------------------------------------------------------------------------------------------

RACE = """
import os, sys, time, traceback
from pathlib import Path
import fanfold as ff
from fanfold.testing.functions import until

def task(n):
    name = Path("name").read_text()
    with open(f"calls-{name}", "a") as out:
        print(n, file=out)
    if Path("half").exists() and n > 1:
        raise ValueError
    until(Path(f"refused-{name}").exists, "the other to be refused")
    return n * n

def compete(name, gate):
    os.read(gate, 1)
    try:
        run = ff.run(task, range(4), name=name, on="serial", progress=False)
        assert run.results() == [0, 1, 4, 9]
        os._exit(0)
    except ff.RunBusy as error:
        assert f"process {os.getpid()}" not in str(error)
        Path(f"refused-{name}").touch()
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(2)

for number in range(int(sys.argv[1])):
    name = f"r{number}"
    Path("name").write_text(name)
    if number % 2:  # a run that is there, and not at its end
        Path("half").touch()
        Path(f"refused-{name}").touch()
        ff.run(task, range(4), name=name, on="serial", progress=False).wait()
        os.unlink(f"refused-{name}")
        os.unlink("half")
    gate, opener = os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            compete(name, gate)
        children.append(child)
    os.write(opener, b"go")
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    os.close(gate), os.close(opener)
    print(name, *codes, flush=True)
"""


NEW = {0: 1, 1: 1, 2: 1, 3: 1}  # how often each task is done
RESUMED = {0: 1, 1: 1, 2: 2, 3: 2}  # two had failed


def test_races(tmp_path: Path, start, told) -> None:
    """R04: of two that begin or resume the same run at the same moment one does, and the other is
    refused by name; each task is done once, and nothing unfinished stays."""
    (tmp_path / "race.py").write_text(RACE)
    racers = start("race.py", str(RACES))
    assert racers.end(250) == 0, racers.err
    assert racers.out.splitlines() == [f"r{number} 0 1" for number in range(RACES)], racers.err
    for number in range(RACES):
        calls = Counter(map(int, Path(f"calls-r{number}").read_text().split()))
        assert calls == (
            dict.fromkeys(range(4), 1) if number % 2 == 0 else {0: 1, 1: 1, 2: 2, 3: 2}
        )
        assert set(told(name=f"r{number}").records().values()) == {1}
    assert not list(Path("fanfold-runs").glob(".*"))


# Stopped, and taken over --------------------------------------------------------------------------

SPLIT = """
import time
from pathlib import Path

def task(n):
    with open("calls", "a") as out:
        print(n, file=out)
    time.sleep(0.02)
    while n > 20 and not Path("stopped").exists():  # not to the end before that
        time.sleep(0.01)
    return n * n
"""


@pytest.mark.parametrize("seed", range(SPLITS))
def test_split_brain(tmp_path: Path, start, told, seed: int) -> None:
    """R04, R22, X16: a driver is stopped at a random moment, and another takes the run over: when
    the first goes on it finds out, records nothing more, says so and ends with status 1; no record
    counts twice."""
    (tmp_path / "split.py").write_text(SPLIT)
    on = ("serial", "processes")[seed % 2]
    command = [
        "-m",
        "fanfold",
        "run",
        "split.py:task",
        "--range",
        "0-29",
        "--name",
        "r",
        "--on",
        on,
    ]
    first = start(*command)
    until(lambda: sum(told().calls().values()) >= 2, "the run to begin")
    time.sleep(random.Random(seed).uniform(0, 0.3))  # the moment: no synchronisation
    os.kill(first.pid, signal.SIGSTOP)
    (tmp_path / "stopped").touch()
    assert start(*command).end() == 1  # a stopped process lives
    second = start(*command, "--steal")
    assert second.end() == 0, second.err
    recorded = told().records()
    assert recorded == dict.fromkeys(range(30), 1)
    os.kill(first.pid, signal.SIGCONT)
    assert first.end() == 1, first.err
    assert "another driver has taken over this run" in first.err.splitlines()[-1]
    assert "Traceback" not in first.err
    assert told().records() == recorded
    run = ff.Run.open("r")
    assert run.results() == [n * n for n in range(30)]
    assert run.history().duplicates == 0
    assert max(told().calls().values()) <= 2


def test_a_driver_that_begins_too_late(tmp_path: Path) -> None:
    """R04: whoever took the lease but had not written a word when the run was taken over has no
    say, whatever it writes later."""
    run = ff.run(lambda n: n, range(4), name="r", on="serial").wait()
    run.retry(all=True).wait()
    run.retry(all=True).wait()
    late = tmp_path / "fanfold-runs/r/journals/e0-a2.journal"
    third = late.with_name("e0-a3.journal")
    header, rest = third.read_bytes().split(b"\n", 1)
    told = json.loads(header[9:])
    del told["after"][late.name]  # it was not there when the third began
    body = json.dumps(told, separators=(",", ":")).encode()
    third.write_bytes(b"%08x %b\n" % (crc32(body), body) + rest)
    sessions = [session.writer for session in run.history().sessions]
    assert sessions == ["e0-a1", "e0-a3"]
    assert run.results() == [0, 1, 2, 3]


# Who cannot be asked ------------------------------------------------------------------------------


def unfinished() -> Path:
    """A run whose driver ended without a word; its lease."""
    ff.run(lambda n: 1 // n, [1, 0], name="r", on="serial").wait()
    journal = Path("fanfold-runs/r/journals/e0-a1.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"is":"end"' not in line))
    return Path("fanfold-runs/r/leases/e0-a1.json")


def forge(lease: Path, **told: object) -> None:
    lease.write_text(json.dumps({**json.loads(lease.read_text()), **told}))


@pytest.mark.parametrize("forged", [{"started": "1"}, {"boot": "another"}, {"pid": 2**22 + 9}])
def test_a_driver_that_is_proved_dead(forged: dict[str, object]) -> None:
    """R05, X15: its process id belongs to another process now, or the machine was started anew, or
    there is no such process: the run is unfinished, and is taken over at once."""
    forge(unfinished(), **{"pid": os.getppid(), **forged})
    run = ff.Run.open("r")
    assert run.status().state == "failed"
    began = time.monotonic()
    run.retry().wait()
    assert time.monotonic() - began < 30
    assert [session.writer for session in run.history().sessions] == ["e0-a1", "e0-a2"]


def test_a_driver_on_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """R04, R05: on another host death cannot be proved: whoever lives there is told of, and the run
    is taken over when its heartbeat has stood still for a time of watching, or with ``steal``."""
    forge(unfinished(), host="node-7")
    run = ff.Run.open("r")
    assert (run.status().state, run.status().driver[0]) == ("running", "node-7")
    beat = Path("fanfold-runs/r/leases/e0-a1.beat")

    def beating() -> float:
        told = json.loads(beat.read_text())
        beat.write_text(json.dumps({**told, "count": told["count"] + 1}))
        return time_of_day()

    time_of_day = time.monotonic
    monkeypatch.setitem(Lease.take.__kwdefaults__, "watch", 0.5)
    with monkeypatch.context() as patched:
        patched.setattr("fanfold.store.lease.time.monotonic", beating)
        with pytest.raises(ff.RunBusy, match="on node-7 works on the run"):
            run.retry()
    run.retry().wait()
    assert run.history().sessions[-1].host == socket.gethostname()


# What a second one may not do ---------------------------------------------------------------------

WAITS = """
import sys, time
from pathlib import Path
import fanfold as ff

def task(n):
    while not Path("gate").exists():
        time.sleep(0.01)
    return n * n

if __name__ == "__main__":
    run = ff.run(task, range(int(sys.argv[1])), name="r", workers=1, resume=sys.argv[2])
    print("begun", flush=True)
    print(run.results())
"""


@pytest.mark.parametrize(("total", "resume"), [("3", "ask"), ("9", "ask"), ("3", "fresh")])
def test_a_live_run_is_left_alone(tmp_path: Path, start, total: str, resume: str) -> None:
    """R04, R12: while a run is driven, nobody gives it other inputs, or moves it aside: who tries
    is refused, and it ends as if nobody had tried."""
    (tmp_path / "waits.py").write_text(WAITS)
    first = start("waits.py", "3", "ask")
    first.wait_for("begun")
    folder = Path("fanfold-runs/r")
    until(lambda: list(folder.glob("journals/*.journal")), "the driver to write")
    before = {path.name for path in folder.iterdir()}
    second = start("waits.py", total, resume)
    assert second.end() == 1
    assert f"process {first.pid} on" in second.err
    assert {path.name for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["r"]
    (tmp_path / "gate").touch()
    assert first.end() == 0
    assert "[0, 1, 4]" in first.out


def test_a_folder_that_is_no_run(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """R17, X11: a folder in the way that is no run is not touched: the command is wrong."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    (tmp_path / "t.py").write_text("def t(n): return n\n")
    assert main(["run", "t.py:t", "1", "--dir", ".", "--name", "mine", "--on", "serial"]) == 2
    assert "mine is there already, and is no run" in capfd.readouterr().err
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_what_was_never_finished_is_removed(tmp_path: Path) -> None:
    """R01: what a driver left that died while it made a run goes when the next is made, a day
    later; what may be in the making stays."""
    old, new = tmp_path / "fanfold-runs/.new-1", tmp_path / "fanfold-runs/.new-2"
    for folder in (old, new):
        (folder / "r").mkdir(parents=True)
    os.utime(old, (1, 1))
    ff.run(abs, [1], name="r", on="serial").wait()
    assert not old.exists()
    assert new.exists()


FORKS = """
import os, sys
import fanfold as ff

def task(n):
    child = os.fork()
    if child == 0:
        os._exit(0) if sys.argv[1] == "processes" else sys.exit(0)
    os.waitpid(child, 0)
    return n * n

if __name__ == "__main__":
    run = ff.run(task, range(4), name="r", on=sys.argv[1], workers=2, progress=False)
    assert run.results() == [0, 1, 4, 9]
"""


@pytest.mark.parametrize("on", ["serial", "processes"])
def test_forks_in_a_task(tmp_path: Path, start, told, on: str) -> None:
    """R27: a task may fork, in a worker and in the driver itself, and even leave the child to go on
    as if it were the driver: it writes nothing into the run."""
    (tmp_path / "forks.py").write_text(FORKS)
    driver = start("forks.py", on)
    assert driver.end() == 0, driver.err
    assert ff.Run.open("r").results() == [0, 1, 4, 9]
    assert told().records() == dict.fromkeys(range(4), 1)
