"""A scaling study on a real Slurm: one job array, with an element for each number of workers."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import fanfold as ff

TASKS = """
import time


def nap(seconds):
    time.sleep(seconds)
"""


def test_one_element_for_each_number(slurm, tmp_path, monkeypatch):
    """The study is one array; each element measures one number, with its own worker processes."""
    (tmp_path / "naps.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "naps", raising=False)
    nap = importlib.import_module("naps").nap
    asked = ff.Resources(cores=2, memory="500MB", walltime="5m")
    study = ff.scaling(nap, [0.2] * 4, workers=[1, 2], repeats=3, on="slurm", resources=asked)
    assert study.workers == [1, 2]
    assert study.measured.place == "slurm"
    assert study.measured.target == "naps.nap"
    assert [len(study.measured.times[n]) for n in (1, 2)] == [3, 3]
    assert study.best == 2
    (folder,) = (tmp_path / "fanfold-runs").iterdir()
    assert folder.name == "scaling-naps.nap-1"
    run = ff.Run.open(folder)
    elements = run.status().elements
    assert [element.number for element in elements] == [1, 2]
    assert len({element.job for element in elements}) == 1


def test_command(slurm, tmp_path):
    """`fanfold scale --on slurm` asks for a core for each worker of the largest number."""
    (tmp_path / "naps.py").write_text(TASKS)
    done = subprocess.run(
        [
            sys.executable, "-m", "fanfold", "scale", "naps.py:nap", "0.05", "0.06",
            "--on", "slurm", "--workers", "1,3", "--repeats", "1", "--memory", "500MB", "--json",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["on"] == "slurm"
    assert [row["workers"] for row in record["workers"]] == [1, 3]
    (folder,) = (tmp_path / "fanfold-runs").iterdir()
    assert ff.Run.open(folder).resources.cores == 3
