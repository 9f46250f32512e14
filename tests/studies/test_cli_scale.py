"""`fanfold scale`, as a user types it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

TASKS = """
import time


def nap(seconds):
    time.sleep(seconds)


def chatty(seconds):
    print("napping")
    time.sleep(seconds)


def picky(n):
    if n == 3:
        raise ValueError("unlucky")


def both(rate, depth):
    time.sleep(rate)
"""


@pytest.fixture
def fanfold(tmp_path):
    """Runs a command in a folder with a module of tasks."""
    (tmp_path / "work.py").write_text(TASKS)

    def fanfold(*arguments, code=0, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "fanfold", "scale", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, **environment},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return fanfold


HOW = ("--workers", "1,2", "--repeats", 2, "--on", "threads")
NAPS = ("work.py:nap", *["0.03"] * 4, *HOW)
LONG = (*["0.15"] * 4, *HOW)  # a busy machine wakes sleepers late


def test_chart(fanfold):
    """The chart goes to standard output and fits 80 columns, also in a pipe; nothing else does."""
    done = fanfold("work.py:chatty", *LONG)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Scaling of work.chatty: ")
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("* Take 2 workers: ") for line in lines)
    assert any(line.startswith("2 workers  ") and "█" in line for line in lines)
    assert "napping" not in done.stdout


def test_ascii(fanfold):
    """Where the output has no other characters the bars are ASCII."""
    done = fanfold(*NAPS, PYTHONIOENCODING="ascii")
    assert done.stdout.isascii()
    assert "#####" in done.stdout


def test_json_and_files(fanfold, tmp_path):
    """--json prints one record, and --html and --plot write files beside it."""
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    done = fanfold("work.py:nap", *LONG, "--json", "--html", "a.html", "--plot", "a.svg")
    record = json.loads(done.stdout)
    assert record["best"] == 2
    assert record["target"] == "work.nap"
    assert [len(row["times"]) for row in record["workers"]] == [2, 2]
    assert record["sentences"][0] in (tmp_path / "a.html").read_text("utf-8")
    assert (tmp_path / "a.svg").read_text("utf-8").startswith("<?xml")
    assert done.stderr.splitlines() == ["fanfold: wrote a.html", "fanfold: wrote a.svg"]


def test_weak_and_params(fanfold):
    """The inputs may be --param, for keyword arguments, and --weak makes the work grow."""
    done = fanfold(
        "work.py:both", "--param", "rate=0.01,0.02", "--param", "depth=1,2", "--weak",
        "--workers", "1,2", "--repeats", 1, "--on", "threads", "--json",
    )  # fmt: skip
    record = json.loads(done.stdout)
    assert record["mode"] == "weak"
    assert [row["profile"]["tasks"] for row in record["workers"]] == [4, 8]


def test_progress_on_a_terminal(fanfold, tmp_path):
    """A terminal is told what is being measured, in one line that is gone in the end."""
    above, below = pty.openpty()
    command = [sys.executable, "-m", "fanfold", "scale", *map(str, NAPS)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=below
    ) as process:
        os.close(below)
        told = b""
        while part := _read(above):
            told += part
    os.close(above)
    assert process.returncode == 0
    assert b"run 4 of 4: " in told
    assert b"\n" not in told
    assert told.endswith(b"\r\x1b[K")


def _read(terminal):
    """What was written; nothing when the other end is closed."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def test_failing_task(fanfold):
    """A task that fails ends the study with its error, task and input, and exit status 1."""
    done = fanfold("work.py:picky", 1, 2, 3, "--workers", 1, "--repeats", 1, code=1)
    assert done.stdout == ""
    assert "a task failed: ValueError: unlucky" in done.stderr
    assert "input 3" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("work.py:nap",), "there is no input"),
        (("work.py:nap", "1", "--workers", "0,1"), "whole numbers from 1, not 0"),
        (("work.py:nap", "1", "--workers", "two"), "write 1-100, 1-100:3 or 1,4,7-9"),
        (("work.py:nap", "1", "--repeats", "0"), "whole number of at least 1"),
        (("work.py:nap", "1", "--html", "no/a.html"), "no folder no; make it first"),
        (("work.py:nap", "1", "--plot", "a.bmp"), ".svg, .png or .pdf"),
        (("work.py:nap", "1", "--cores", "4"), "add --on slurm or --on pbs"),
        (("work.py:none", "1"), "has no function none"),
    ],
    ids=["input", "workers", "words", "repeats", "html", "plot", "cores", "target"],
)
def test_wrong_commands(fanfold, arguments, words):
    """A wrong command is refused before any work, with what is right, and exit status 2."""
    done = fanfold(*arguments, code=2)
    assert words in done.stderr
    assert done.stdout == ""


def test_without_matplotlib(fanfold, tmp_path):
    """Without the extra the remedy is one line to type, and nothing has been measured."""
    hidden = "import sys; sys.modules['matplotlib'] = None"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    done = fanfold(*NAPS, "--plot", "a.svg", code=2, PYTHONPATH=str(tmp_path))
    assert 'pip install "fanfold[plot]"' in done.stderr
    assert done.stdout == ""
