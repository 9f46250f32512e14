"""Long work while workers die: the soak, scaled down (`make soak` runs it whole), and chaos."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WHOLE = os.environ.get("FANFOLD_FAULTS") == "whole"
SECONDS = 30 if WHOLE else 2
POOLS = [("forkserver", 0), ("spawn", 0), ("fork", 0), ("forkserver", 20)][: None if WHOLE else 2]
CHAOS = Path(__file__).parent / "chaos.py"
SOAK = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.mark.parametrize("seed", [1, 2])
def test_soak(seed):
    """L02, L52: while workers are killed at random, every task's result arrives exactly once and is
    right; no task runs more often than once and each time that it lost its worker; nothing leaks,
    and the driver does not grow."""
    options = ["--tasks", "1500", "--kills", "45", "--idle", "200000", "--seed", str(seed)]
    command = [sys.executable, str(SOAK), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all is well\n")


@pytest.mark.parametrize(("method", "tasks_per_child"), POOLS)
def test_chaos(method, tasks_per_child, tmp_path, launch):
    """L02: while four threads use one pool in every way there is, and somebody kills or stops its
    workers 15 times a second, every call ends, with its own results and no others."""
    options = [31, SECONDS, method, tasks_per_child]
    driver = launch([sys.executable, str(CHAOS), *map(str, options)], tmp_path)
    assert driver.end(limit=SECONDS + 100) == 0, driver.report()
    driver.nothing_is_left()
