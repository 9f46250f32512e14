"""``fanfold submit``, as a user types it: job scripts on this machine, and on a scheduler."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fanfold.testing.cluster.cluster import Cluster
from fanfold.testing.functions import until

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "fanfold", "submit"]
FOR_EVER = "while true; do sleep 0.02; done"


@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    """A folder with the commands of this machine, but for those of schedulers."""
    folder = tmp_path_factory.mktemp("tools")
    for path in [*Path("/usr/bin").iterdir(), *Path("/bin").iterdir()]:
        if path.name not in ("sbatch", "qsub") and not (folder / path.name).is_symlink():
            (folder / path.name).symlink_to(path)
    return folder


class Here:
    """A folder with scripts, and the command."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environ = {**os.environ, "HOME": str(folder), "PATH": f"{self.bin}:{tools}"}

    def script(self, text: str, name: str = "job.sh") -> str:
        (self.folder / name).write_text(text)
        return name

    def slurm(self, body: str, *directives: str, name: str = "job.sh") -> str:
        lines = "".join(f"#SBATCH {directive}\n" for directive in ("-J demo", *directives))
        return self.script(f"#!/bin/sh\n{lines}{body}\n", name)

    def pbs(self, body: str, *directives: str, name: str = "job.sh") -> str:
        lines = "".join(f"#PBS {directive}\n" for directive in ("-N demo", *directives))
        return self.script(f"#!/bin/sh\n{lines}{body}\n", name)

    def command(self, name: str, body: str) -> None:
        """A scheduler's command on the PATH; it writes its words, NUL between them, into a file."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" > {self.folder}/{name}.words\n{body}\n")
        path.chmod(0o755)

    def words(self, name: str) -> list[str]:
        return (self.folder / f"{name}.words").read_text().split("\0")[:-1]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*COMMAND, *arguments], cwd=self.folder, env=self.environ, **pipes)

    def submit(self, *arguments: str) -> subprocess.Popen[str]:
        with self.start(*arguments) as process:
            process.out, process.err = process.communicate(timeout=100)
        return process

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def files(self, pattern: str) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.glob(pattern))


@pytest.fixture
def here(tmp_path, tools):
    return Here(tmp_path, tools)


def test_the_example(here):
    """Ten elements write Demo1/stdout to Demo10/stdout, as the example says."""
    shutil.copy(ROOT / "examples" / "array_demo.pbs", here.folder)
    for index in range(1, 11):
        (here.folder / f"Demo{index}").mkdir()
    done = here.submit("array_demo.pbs", "--on", "local")
    assert (done.returncode, re.fullmatch(r"\d+\[\]\.local\n", done.out)[0]) == (0, done.out)
    for index in range(1, 11):
        assert here.text(f"Demo{index}/stdout") == f"This is job number {index} in the array\n"
        assert here.text(f"Demo{index}/stderr") == ""
        assert re.search(
            rf"^fanfold: Demo\[{index}\] done in .*: Demo{index}/stdout$", done.err, re.M
        )
    assert "fanfold: 10 done in " in done.err


def test_the_example_without_its_folders(here):
    """Nobody makes folders: it is told before, and the output is kept under its default names."""
    shutil.copy(ROOT / "examples" / "array_demo.pbs", here.folder)
    done = here.submit("array_demo.pbs", "--on", "local")
    assert done.returncode == 0
    assert "there is no folder Demo1 (nor 9 others) for the output, and PBS makes none" in done.err
    (kept,) = here.files("Demo.o*.7")
    assert here.text(kept) == "This is job number 7 in the array\n"
    assert f"Demo7/stdout cannot be written: the output is in {kept}" in done.err
    assert here.files("Demo.e*") == []  # nothing was in them


def test_missing_folders_on_slurm(here):
    """Slurm does not run such an element; the status is 1."""
    script = here.slurm("touch ran", "-o logs/%a --array=1-2")
    failed = here.submit(script, "--on", "local")
    assert failed.returncode == 1
    assert "there is no folder logs for the output" in failed.err
    assert "demo[1] did not run: cannot open " in failed.err
    assert not (here.folder / "ran").exists()


def test_where_it_runs_by_default(here):
    """Where no scheduler is, it runs here, and says so."""
    done = here.submit(here.slurm("echo hello; pwd", "-o out"))
    assert done.returncode == 0
    assert "fanfold: on this machine, for neither qsub nor sbatch is here" in done.err
    assert here.text("out") == f"hello\n{here.folder}\n"


def test_how_elements_end(here):
    """A line for each that says how, and a status of 1 when any has failed."""
    body = "case $SLURM_ARRAY_TASK_ID in 1) exit 0;; 2) exit 3;; 3) kill -9 $$;; esac; " + FOR_EVER
    failed = here.submit(
        here.slurm(body, "--array=1-4", "-t 0:04", "-o %a.out"), "--on", "local", "--workers", "4"
    )
    assert failed.returncode == 1
    assert re.search(r"demo\[1\] done in \S+ \(CPU .*\): 1\.out\n", failed.err)
    assert re.search(r"demo\[2\] failed after \S+ with exit status 3 .*: see 2\.out\n", failed.err)
    assert re.search(r"demo\[3\] failed after \S+ with signal SIGKILL .*: see 3\.out\n", failed.err)
    assert re.search(r"demo\[4\] ended for its walltime of 00:00:04 .*: see 4\.out\n", failed.err)
    assert re.search(r"fanfold: 1 done, 2 failed, 1 walltime in ", failed.err)


def test_arguments_go_to_the_script(here):
    """As sbatch does; PBS has none."""
    script = here.slurm('printf "%s|" "$@"', "-o out")
    assert (
        here.submit(script, "--on", "local", "--", "a b", "-x", "$(touch canary)").returncode == 0
    )
    assert here.text("out") == "a b|-x|$(touch canary)|"
    assert not (here.folder / "canary").exists()
    refused = here.submit(here.pbs("true"), "--on", "local", "one")
    assert refused.returncode == 2
    assert "PBS gives no arguments to a script" in refused.err


def test_workers(here):
    """Not more elements run at once than it is allowed."""
    body = "touch began.$SLURM_ARRAY_TASK_ID; while [ ! -e gate ]; do sleep 0.01; done; touch ended"
    script = here.slurm(f"[ $SLURM_ARRAY_TASK_ID = 3 ] && ls > seen; {body}", "--array=1-3")
    with here.start(script, "--on", "local", "--workers", "2") as process:
        until(lambda: len(here.files("began.*")) == 2, "two elements")
        (here.folder / "gate").touch()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "ended" in here.text("seen").split()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(here, signum):
    """A signal ends everything that was started, tells what was done, and the status is 130."""
    body = f"[ $SLURM_ARRAY_TASK_ID = 1 ] && exit 0; (echo $$ >> pids; {FOR_EVER}) & {FOR_EVER}"
    script = here.slurm(f"echo $$ >> pids; {body}", "--array=1-4")
    with here.start(script, "--on", "local", "--workers", "2") as process:
        until(lambda: len(here.text("pids").split()) >= 5 if here.files("pids") else 0, "three")
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"demo\[2\] cancelled after ", err)
    assert re.search(r"fanfold: 3 cancelled, 1 done in ", err)
    pids = [int(pid) for pid in here.text("pids").split()]
    until(lambda: not any(map(psutil.pid_exists, pids)), "all of them to end")


def test_interrupted_twice(here):
    """A second signal does not wait for those who ignore the first."""
    script = here.slurm(f"trap '' TERM; echo $$ > pid; {FOR_EVER}")
    for _ in range(3):  # on a busy machine it may take long for other reasons
        with here.start(script, "--on", "local") as process:
            until(lambda: here.files("pid") and here.text("pid"), "the script")
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
            seconds = time.monotonic() - began
        assert process.returncode == 130
        pid = int(here.text("pid"))
        until(lambda pid=pid: not psutil.pid_exists(pid), "the script to end")
        (here.folder / "pid").unlink()
        if seconds < 8:
            break
    assert seconds < 8  # the grace alone is longer


@pytest.mark.parametrize(
    ("directives", "said"),
    [
        (["-t 5m"], "job.sh: line 3: --time=5m: Slurm refuses it: write minutes"),
        (["--array=5-1"], "job.sh: line 3: --array=5-1: "),
        (["-d afterok:91"], "it waits for job 91 of a cluster, which is not known here"),
        (["--hold"], "take --hold out"),
        (["nonsense"], "'nonsense' is no option of sbatch"),
    ],
)
def test_scripts_that_are_refused(here, directives, said):
    """S20: the line, the wrong thing and the right one; nothing runs, and the status is 2."""
    refused = here.submit(here.slurm("touch ran", *directives), "--on", "local")
    assert (refused.returncode, refused.out) == (2, "")
    assert said in refused.err
    assert not (here.folder / "ran").exists()


def test_no_job_script(here):
    """A script without directives, one that is not there, and what is no text."""
    for name, content, said in [
        ("plain.sh", b"#!/bin/sh\ntrue\n", "no line begins with #PBS or #SBATCH"),
        ("binary", b"#SBATCH\0", "it is no script: it holds NUL bytes"),
        ("missing", None, "cannot read missing: No such file or directory"),
    ]:
        if content is not None:
            (here.folder / name).write_bytes(content)
        refused = here.submit(name, "--on", "local")
        assert refused.returncode == 2
        assert said in refused.err


def test_what_pbs_would_not_do_is_told(here):
    """-V passes nothing, several chunks are one machine, and line ends of Windows do not run."""
    told = here.submit(here.pbs("echo $SECRET", "-V -l select=2:ncpus=1"), "--on", "local").err
    assert "-V passes nothing in OpenPBS 23.06, nor here" in told
    assert "it asks for 2 nodes or chunks: all of it runs on this machine" in told
    (here.folder / "dos.sh").write_bytes(b"#!/bin/sh\r\n#PBS -N dos\r\ntrue\r\n")
    failed = here.submit("dos.sh", "--on", "local")
    assert failed.returncode == 1
    assert "its lines end as on Windows" in failed.err
    assert "dos failed after" in failed.err
    assert "with exit status 127" in failed.err


def test_directives_of_both(here):
    """Here those of the first directive count; it is said."""
    text = "#!/bin/sh\n#PBS -N a\n#SBATCH -J b\necho $PBS_JOBNAME $SLURM_JOB_NAME\n"
    done = here.submit(here.script(text), "--on", "local")
    assert "it has directives of both schedulers: those for PBS count here" in done.err
    (output,) = here.files("a.o*")
    assert here.text(output) == "a\n"


# On a scheduler -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["slurm", "pbs"])
def test_the_example_on_a_scheduler(here, place):
    """The same script runs on either, translated where it must be."""
    shutil.copy(ROOT / "examples" / "array_demo.pbs", here.folder)
    for index in range(1, 11):
        (here.folder / f"Demo{index}").mkdir()
    with Cluster(here.folder / "cluster", place) as cluster:
        here.environ = {**cluster.environment, "HOME": str(here.folder)}
        done = here.submit("array_demo.pbs", "--on", place)
        assert done.returncode == 0, done.err
        cluster.wait(done.out.strip())
    for index in range(1, 11):
        assert here.text(f"Demo{index}/stdout") == f"This is job number {index} in the array\n"


def test_on_slurm(here):
    """The script goes to sbatch as it is, with its arguments; the id comes out."""
    here.command("sbatch", "echo 12; echo 'sbatch: a warning' >&2")
    script = here.slurm("true")
    done = here.submit(script, "one", "two three")
    assert (done.returncode, done.out) == (0, "12\n")
    assert here.words("sbatch")[-3:] == [script, "one", "two three"]
    assert "fanfold: on Slurm, for sbatch is here" in done.err
    assert "sbatch: a warning" in done.err


def test_on_pbs(here):
    """The script goes to qsub as it is; the id comes out as qsub prints it."""
    here.command("qsub", "echo '12[].pbshost'")
    script = here.pbs("true", "-J 1-3")
    done = here.submit(script)
    assert (done.returncode, done.out) == (0, "12[].pbshost\n")
    assert here.words("qsub")[-1] == script


def test_the_scheduler_of_the_script_comes_first(here):
    """Where both are, a script goes to the one that it is written for."""
    here.command("sbatch", "echo 12")
    here.command("qsub", "echo 12.pbshost")
    assert here.submit(here.pbs("true")).out == "12.pbshost\n"
    assert here.submit(here.slurm("true")).out == "12\n"
    assert here.submit(here.slurm("true"), "--on", "local").out.strip().isdigit()


def test_a_qsub_that_is_slurms(here):
    """Slurm has a qsub of its own, without arrays, and without --version: it is passed by."""
    here.command("sbatch", "echo 12")
    here.command("qsub", "echo 'Unknown option: version' >&2; exit 1")
    done = here.submit(here.pbs("true", "-l walltime=60"))
    assert (done.returncode, done.out) == (0, "12\n")


def test_translated(here):
    """A script of the other scheduler is translated, keeps its name, and what differs is told."""
    here.command("sbatch", f'for last; do :; done; cp "$last" {here.folder}/sent; echo 12')
    done = here.submit(here.pbs("echo $PBS_ARRAY_INDEX", "-J 1-3", name="work.pbs"))
    assert (done.returncode, done.out) == (0, "12\n")
    assert "#SBATCH --array=1-3\n" in here.text("sent")
    assert "echo $SLURM_ARRAY_TASK_ID\n" in here.text("sent")
    assert os.path.basename(here.words("sbatch")[-1]) == "work.pbs"
    assert not os.path.exists(here.words("sbatch")[-1])
    assert "work.pbs: differs: " in done.err


def test_what_has_no_twin_is_not_submitted(here):
    """Unless the user says so: nothing is lost behind their back."""
    here.command("sbatch", "echo 12")
    script = here.pbs("true", "-l cput=1:00:00")
    refused = here.submit(script)
    assert (refused.returncode, refused.out) == (2, "")
    assert "job.sh:3: no twin: " in refused.err
    assert "1 thing has no twin on Slurm, so nothing was submitted" in refused.err
    assert not here.files("sbatch.words")
    assert here.submit(script, "--anyway").out == "12\n"


def test_refused_by_the_scheduler(here):
    """Its own words and what to do; the status is 2, and nothing is on stdout."""
    here.command(
        "sbatch",
        "echo 'sbatch: error: invalid partition specified: nowhere' >&2; "
        "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2; "
        "exit 1",
    )
    refused = here.submit(here.slurm("true", "-p nowhere"))
    assert (refused.returncode, refused.out) == (2, "")
    assert "invalid partition specified: nowhere" in refused.err
    assert "sinfo" in refused.err


def test_the_scheduler_is_not_here(here):
    """Named, but not installed: what to do, and status 2."""
    refused = here.submit(here.slurm("true"), "--on", "pbs", "--anyway")
    assert refused.returncode == 2
    assert "there is no command qsub here" in refused.err


def test_workers_are_for_this_machine(here):
    """On a cluster the script says how many run at once."""
    refused = here.submit(here.slurm("true"), "--on", "slurm", "--workers", "2")
    assert refused.returncode == 2
    assert "#SBATCH --array=1-10%2" in refused.err


HOSTILE = [
    "$(touch canary).sh",
    ";touch canary;.sh",
    "-rf.sh",
    "--help",
    "a b'\"`touch canary`",
    "\n",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["slurm", "local"])
def test_hostile_names_of_scripts(here, name, place):
    """S21: the name of a script is one word, and no option, to whoever gets it."""
    here.command("sbatch", "echo 12")
    script = here.slurm("echo ran > ran", "-o out", name=name)
    done = here.submit("--on", place, "--", script)
    assert done.returncode == 0, done.err
    if place == "slurm":
        assert os.path.normpath(here.words("sbatch")[-1]) == name
    else:
        assert here.text("ran") == "ran\n"
    assert not (here.folder / "canary").exists()
