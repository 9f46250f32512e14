"""The example of expressions, as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_three_ways_agree() -> None:
    """NumPy, ff.evaluate and ff.evaluate on files give the same bits; the variance is 1/12."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples/expressions.py", "--elements", "300000"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    memory, files, variance = done.stdout.splitlines()
    assert re.fullmatch(r"in memory: NumPy .* ms, ff.evaluate .* ms, the same bits", memory)
    assert files == "on files: 2 MB written, the same bits"
    assert re.fullmatch(r".*1/12: 0\.083\d", variance)
