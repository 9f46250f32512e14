"""The soak, scaled down; `make soak` runs it whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.mark.parametrize("seed", [1, 2])
def test_soak(seed):
    """L02, L52: while workers are killed at random, every task's result arrives exactly once and is
    right; no task runs more often than once and each time that it lost its worker; nothing leaks,
    and the driver does not grow."""
    options = ["--tasks", "1500", "--kills", "45", "--idle", "200000", "--seed", str(seed)]
    command = [sys.executable, str(SOAK), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all is well\n")
