"""kill -9 of drivers and workers at any moment: nothing recorded is lost, nor done again."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import fanfold as ff

WHOLE = os.environ.get("FANFOLD_FAULTS") == "whole"
KILLS = 3  # of a run, one after the other
RUNS = 67 if WHOLE else 20
TASKS = 24
LENGTH = 0.35  # seconds: about what such a run takes after its begin

SCRIPT = f"""
import sys, time
import fanfold as ff

def square(n):
    with open("calls", "a") as out:
        print(n, file=out)
    time.sleep(0.01)
    return n * n

if __name__ == "__main__":
    chunk = int(sys.argv[1]) or None
    run = ff.run(square, range({TASKS}), name="r", workers=2, chunk=chunk, progress=False)
    print("begun", flush=True)
    run.wait()
"""


def strike(whom: str, drive, source: random.Random) -> None:
    """Kill the driver, one of its workers or their launcher, or everything at once."""
    children = drive.children()
    if whom == "all":
        drive.kill_everything()
    elif whom == "worker" and children:
        with suppress(psutil.NoSuchProcess):
            source.choice(children).kill()
        drive.end()
    else:
        drive.kill()


@pytest.mark.parametrize("seed", range(RUNS))
def test_kills_at_random_moments(tmp_path: Path, start, told, seed: int) -> None:
    """R01, R02: drivers, workers and both are killed at random moments, three times a run, while
    it begins and while it resumes: what is recorded is never lost and never done again, nothing
    is done more often than once and once for each kill, and the last driver does the rest."""
    source = random.Random(seed)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = "script.py", str(source.choice([0, 1, 3]))
    known = told()
    before: dict[int, int] = {}  # recorded task: how often it was begun
    for _ in range(KILLS):
        drive = start(*command)
        if source.random() < 0.85:
            drive.wait_for("begun")
        time.sleep(source.uniform(0, LENGTH))  # the moment: no synchronisation
        strike(source.choice(["driver", "driver", "worker", "all"]), drive, source)
        recorded, calls = known.recorded(), known.calls()
        assert before.keys() <= recorded, "a record was lost"
        assert {n: calls[n] for n in before} == before, "a recorded task was done again"
        before = {n: calls[n] for n in recorded}
    last = start(*command)
    assert last.end() == 0, last.err
    assert ff.Run.open(tmp_path / "fanfold-runs/r").results() == [n * n for n in range(TASKS)]
    calls = known.calls()
    assert {n: calls[n] for n in before} == before, "a recorded task was done again"
    assert max(calls.values()) <= 1 + KILLS
    assert known.records() == dict.fromkeys(range(TASKS), 1)
    assert start(*command).end() == 0
    assert known.calls() == calls, "a second resume did something"
