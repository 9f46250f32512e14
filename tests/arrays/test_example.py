"""The example of the counter, as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_counter_of_the_textbooks() -> None:
    """E18: ten processes that add 1 fifty times lose updates without the lock (fewer than 500),
    and none with it, nor by add."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples/shared_counter.py"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    careless, locked, adding = done.stdout.splitlines()
    found, lost = map(int, re.fullmatch(r"careless: (\d+) of 500, (\d+) lost", careless).groups())
    assert found + lost == 500
    assert (locked, adding) == ("locked: 500 of 500", "adding: 500 of 500")
