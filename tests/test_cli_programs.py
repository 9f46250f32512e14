"""``fanfold run --command``: a durable run of any program, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fanfold.testing import Cluster

PROGRAM = """#!/bin/sh
echo "$1" >> tried
echo "seen: $1" >&2
test "$1" = bad && exit 3
echo "<$*>"
"""


@pytest.fixture
def folder(tmp_path):
    """A user's folder, with a program that keeps count of what it was run for."""
    (tmp_path / "prog").write_text(PROGRAM)
    (tmp_path / "prog").chmod(0o755)
    (tmp_path / "table.csv").write_text("x,y\n0.10,a b\n1e-3,$(ls)\n")
    return tmp_path


@pytest.fixture
def run(folder):
    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "fanfold", "run", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=folder,
            env=os.environ | environment,
        )

    return run


def results(done):
    assert done.returncode == 0, done.stderr
    return [line.split("\t")[-1] for line in done.stdout.splitlines()[1:]]


def tried(folder):
    return sorted((folder / "tried").read_text().split("\n")[:-1])


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["./prog {}", "a b", "$(ls)"], ["<a b>", "<$(ls)>"]),
        (["./prog {0} --same={0}", "a"], ["<a --same=a>"]),
        (["./prog {file}", "007", "1.50"], ["<007>", "<1.50>"]),
        (["./prog {}", "--range", "1-3"], ["<1>", "<2>", "<3>"]),
        (["./prog --x={x} {y}", "--over", "table.csv"], ["<--x=0.10 a b>", "<--x=1e-3 $(ls)>"]),
        (["./prog {x} {y}", "--param", "x=1,2.0", "--param", "y=t"], ["<1 t>", "<2.0 t>"]),
    ],
)
def test_every_kind_of_input_fills_placeholders(run, words, printed):
    """INPUTs, ranges, tables and products; text stays as it is written."""
    assert results(run("--command", *words)) == printed


def test_json_lines_fill_placeholders_by_name(folder, run):
    """Numbers as JSON means them."""
    (folder / "rows.jsonl").write_text('{"x": 0.5}\n{"x": "a"}\n')
    assert results(run("--command", "./prog {x}", "--over", "rows.jsonl")) == ["<0.5>", "<a>"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["./prog", "a"], "no placeholders for the input: write {}"),
        (["./prog {} {}", "a"], "{0} is the same input in several places"),
        (["./prog {x} {y}", "--param", "x=1"], "no input fills {y}"),
        (["./prog {x}", "--over", "table.csv"], "no placeholder takes the input y"),
        (["./prog {} | sort", "a"], "no shell reads it"),
        (["./prog {}"], "there is no input"),
        (["prog {}", "a"], "write ./prog for the file here"),
        (["no-such {}", "a"], "there is no program no-such here"),
        (["./prog {x}", "--over", "rows.jsonl"], "task 1, input x=None: the input x is None"),
    ],
)
def test_what_does_not_fit_is_refused_before_work(folder, run, words, why):
    """Exit status 2, one line that says what to write, and nothing has run."""
    (folder / "rows.jsonl").write_text('{"x": 0.5}\n{"x": null}\n')
    done = run("--command", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "tried").exists()
    assert not (folder / "fanfold-runs").exists()


def test_without_a_target_or_a_command_there_is_nothing_to_run(run):
    """Exit status 2, and both are named."""
    done = run("--range", "1-3")
    assert done.returncode == 2
    assert "file.py:function, or a program with --command" in done.stderr


def test_a_failure_is_told(run):
    """The others have their results; the exit status and the last line are told, and the traceback
    where the program was one of Python."""
    done = run("--command", "./prog {}", "a", "bad", "b")
    assert done.returncode == 1
    assert [line.split("\t")[-1] for line in done.stdout.splitlines()] == ["result", "<a>", "<b>"]
    assert "ended with exit status 3: seen: bad" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("--command", f"{sys.executable} -c 'int(\"x\")' {{}}", "a")
    assert "ValueError: invalid literal" in done.stderr
    assert 'File "<string>", line 1' in done.stderr
    assert "programs.py" not in done.stderr


def test_the_same_command_goes_on(folder, run):
    """What is done is not done again; what has failed is."""
    command = ["--command", "./prog {}", "a", "bad", "b"]
    assert run(*command).returncode == 1
    assert run(*command).returncode == 1
    assert tried(folder) == ["a", "b", "bad", "bad"]
    assert results(run("--command", "./prog -q {}", "a")) == ["<-q a>"]  # another command


def test_a_changed_program_is_asked_about(folder, run):
    """Its size and time are part of what a run is; and so is a script that the line names."""
    command = ["--command", "./prog {}", "a", "--name", "r"]
    assert results(run(*command)) == ["<a>"]
    (folder / "prog").write_text(PROGRAM.replace("<", "<<"))
    done = run(*command)
    assert done.returncode == 2
    assert "program ./prog has changed" in done.stderr
    assert results(run(*command, "--resume", "anyway")) == ["<a>"]
    assert results(run(*command, "--resume", "fresh")) == ["<<a>"]
    assert run("--command", "./prog {} {{}}", "a", "--name", "r").returncode == 2


def test_its_standard_error_is_in_the_logs(folder, run):
    """As all that a task prints."""
    assert results(run("--command", "./prog {}", "a", "--name", "r")) == ["<a>"]
    command = [sys.executable, "-m", "fanfold", "logs", "r", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert "seen: a" in done.stdout + done.stderr


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_a_program_runs_on_a_cluster(folder, run, scheduler, tmp_path_factory):
    """The same output as here, resumed by the same command; and a program that only the nodes
    have is looked for there."""
    there = ["--on", scheduler, "--elements", "2"]
    command = ["--command", "./prog --x={}", "1", "2", "a b"]
    here = run(*command, "--name", "here")
    with Cluster(tmp_path_factory.mktemp("cluster"), scheduler) as cluster:
        environment = cluster.environment | {"HOME": str(folder)}
        assert run(*command, *there, "--name", "there", **environment).stdout == here.stdout
        count = len(tried(folder))
        assert run(*command, *there, "--name", "there", **environment).stdout == here.stdout
        assert len(tried(folder)) == count
        done = run("--command", "no-such {}", "1", *there, **environment)
        assert done.returncode == 1
        assert "there is no program no-such on" in done.stderr


def test_the_run_is_told_by_its_command(folder, run):
    """Its name begins with that of the program, and its target is the line."""
    assert results(run("--command", "./prog {}", "a")) == ["<a>"]
    [path] = Path(folder, "fanfold-runs").iterdir()
    assert path.name.startswith("prog-")
    assert json.loads((path / "run.json").read_text())["target"] == "./prog {}"
