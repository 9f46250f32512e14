"""Programs and scripts on a real Slurm: the output is as here, and nothing outlives its job."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.slurm.cluster import PrivateSlurm

from fanfold.testing.functions import until

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fanfold(*arguments: str, code: int = 0) -> str:
    """The standard output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "fanfold", *arguments], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_program_over_many_inputs(folder: Path, slurm: PrivateSlurm) -> None:
    """Each input is one argument on the nodes, too."""
    printed = fanfold(
        "run", "--command", "printf '<%s>' {}", "a b", "$(ls)", "c'd", "--on", "slurm",
        "--elements", "2", "--walltime", "5m",
    )  # fmt: skip
    assert [line.split("\t")[-1] for line in printed.splitlines()[1:]] == [
        "<a b>",
        "<$(ls)>",
        "<c'd>",
    ]


def test_a_cancelled_job_leaves_no_program(folder: Path, slurm: PrivateSlurm) -> None:
    """What the program has started in the background ends, too."""
    (folder / "prog").write_text(
        "#!/bin/sh\n(while true; do sleep 0.05; done) &\necho $! $$ > pids.new\n"
        "mv pids.new pids\nwait\n"
    )
    (folder / "prog").chmod(0o755)
    fanfold("run", "--command", "./prog {}", "1", "--on", "slurm", "--detach", "--name", "r")
    pids = folder / "pids"
    until(pids.exists, "the program to begin", 60)
    fanfold("cancel", "r")
    until(lambda: all(gone(int(pid)) for pid in pids.read_text().split()), "its end", 60)


def test_a_script_for_pbs(folder: Path, slurm: PrivateSlurm) -> None:
    """An array of PBS is translated and runs: each element writes where its directives say."""
    shutil.copy(EXAMPLES / "array_demo.pbs", folder)
    for index in range(1, 11):
        (folder / f"Demo{index}").mkdir()
    job = fanfold("submit", "array_demo.pbs", "--on", "slurm").strip()

    def ended() -> bool:
        told = slurm.ask("squeue", "-h", "-j", job)
        return told.returncode == 0 and not told.stdout  # else it was too busy to tell

    until(ended, "the job to end", 60)
    for index in range(1, 11):
        printed = (folder / f"Demo{index}" / "stdout").read_text()
        assert printed == f"This is job number {index} in the array\n"


def test_what_became_of_a_job(folder: Path, any_slurm: PrivateSlurm) -> None:
    """`fanfold jobs` tells how each element of any array ended, with and without accounting."""
    array = ["sbatch", "--parsable", "--array=1-3", "--output=/dev/null", "--wrap"]
    run = "test $SLURM_ARRAY_TASK_ID -ne 2 || exit 3"
    job = subprocess.run([*array, run], capture_output=True, text=True, check=True).stdout.strip()
    head, *lines = fanfold("jobs", "--on", "slurm", "--wait", job, code=1).splitlines()
    assert head == f"job {job}: 3 elements: 2 done, 1 failed"
    assert [line.split(", on")[0] for line in lines] == [
        "  [1] done, exit status 0",
        "  [2] failed, exit status 3",
        "  [3] done, exit status 0",
    ]
    one = fanfold("jobs", "--on", "slurm", f"{job}_3").splitlines()[1:]
    assert [line.split(", on")[0] for line in one] == ["  [3] done, exit status 0"]
