"""``fanfold translate`` as its users meet it: two outputs, exit statuses, nothing run."""

import os
import subprocess
import sys

import pytest

SCRIPT = b"#!/bin/sh\n#PBS -N demo\n#PBS -J 1-3\n#PBS -W umask=022\n\xff $PBS_ARRAY_INDEX\n"


@pytest.fixture
def fanfold(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "fanfold", "translate", *arguments],
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
        )

    return run


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job.pbs").write_bytes(SCRIPT)
    return "job.pbs"


def test_the_twin_is_on_stdout_and_the_notes_on_stderr(fanfold, job):
    """Bytes that are no text come out as they were; each note names file and line."""
    done = fanfold(job, "--to", "slurm")
    assert done.stdout == (
        b"#!/bin/sh\n#SBATCH --job-name=demo\n#SBATCH --array=1-3\n"
        b"# no twin on Slurm: -W umask=022: put the line umask and its value before your first "
        b"command\n\xff $SLURM_ARRAY_TASK_ID\n"
    )
    notes = done.stderr.decode().splitlines()
    assert notes[0].startswith("job.pbs:4: no twin: -W umask=022: ")
    assert all(note.startswith("job.pbs: differs: ") for note in notes[1:])
    assert done.returncode == 0


def test_strict(fanfold, job, tmp_path):
    """With --strict the exit status is 1 if anything has no twin; differences do not count."""
    assert fanfold(job, "--strict").returncode == 1
    (tmp_path / "good.pbs").write_bytes(SCRIPT.replace(b"#PBS -W umask=022\n", b""))
    done = fanfold("good.pbs", "--strict")
    assert b"differs" in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot read job.sh: No such file or directory"),
        (b"", "job.sh: it is no job script"),
        (b"#!/bin/sh\ntrue\n", "no line begins with #PBS or #SBATCH"),
        (b"\x7fELF\0\0", "job.sh: it is no script: it holds NUL bytes"),
        (b"#PBS -N a\n#SBATCH -J b\n", "say --to slurm or --to pbs"),
        (b"#PBS -N a\n" + b"x" * (4 << 20), "larger than 4 MB"),
    ],
)
def test_what_is_refused(fanfold, tmp_path, content, sentence):
    """Exit status 2, a sentence on stderr, nothing on stdout."""
    if content is not None:
        (tmp_path / "job.sh").write_bytes(content)
    done = fanfold("job.sh")
    assert (done.returncode, done.stdout) == (2, b"")
    assert sentence in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_folder_is_refused(fanfold):
    """It is no script, either."""
    done = fanfold(".")
    assert (done.returncode, done.stderr) == (2, b"fanfold: cannot read .: Is a directory\n")


def test_nothing_of_a_script_is_run(fanfold, tmp_path):
    """S21: names, paths and values with shell metacharacters are text, in both directions."""
    hostile = "$(touch canary) `touch canary` ; touch canary & | > canary"
    for prefix, options in (("#PBS", "NoeqPvM"), ("#SBATCH", "JoepADC")):
        lines = [f"{prefix} -{option} '{hostile}'" for option in options]
        script = "\n".join(["#!/bin/sh", *lines, "touch canary", ""])
        (tmp_path / "job.sh").write_text(script)
        assert fanfold("job.sh").returncode == 0
    assert os.listdir(tmp_path) == ["job.sh"]
