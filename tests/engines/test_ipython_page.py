"""The cells of docs/guides/ipython-engines.md, in a kernel, as a notebook runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ipyparallel", reason="ipyparallel is not installed here")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "ipython-engines.md"


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_cells_print_what_stands_on_the_page():
    """%%px, %px, views and ff.map live side by side in a notebook."""
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("notebook.py")],
        input=json.dumps(blocks("ipython")),
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert ended.returncode == 0, ended.stderr
    [expected] = blocks("output")
    assert sorted(ended.stdout.split("\n")) == sorted(expected.split("\n")), ended.stdout


def test_the_example_compares_three_ways():
    """examples/engines.py maps by both kinds of view and by fanfold, with the same results."""
    ended = subprocess.run(
        [sys.executable, ROOT / "examples" / "engines.py", "--engines", "2", "--tasks", "200"],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    ways = [line.split("  ")[0] for line in ended.stdout.splitlines()]
    assert ways == ["200 tasks on engines [0, 1]", "direct view", "load-balanced view", "fanfold"]
