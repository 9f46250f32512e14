"""The example: a mean by blocks is that of the loop, and a file without its dtype is bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples/large_mean.py"


def test_the_example() -> None:
    """All ways print their mean; only the one that forgets the dtype is wrong."""
    command = [sys.executable, EXAMPLE, "--rows", "40", "--columns", "5000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert float(lines["by rows"]) == float(lines["blocks"]) == 20, done.stderr
    assert 0 < float(lines["as bytes"]) < 256
    assert lines["largest"].split() == ["40.000000,", "element", "199999"]
