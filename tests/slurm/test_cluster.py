"""The Slurm that the tests start: it is whole, it is alone, and nothing of it is left."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.slurm.cluster import PrivateSlurm, _lives, missing_packages, opened, processes

from fanfold.testing import descendants
from fanfold.testing.functions import until

CLUSTER = Path(__file__).with_name("cluster.py")

pytestmark = pytest.mark.skipif(
    bool(missing_packages()),
    reason=f"Debian's packages {', '.join(missing_packages())} are not installed here",
)


def test_nodes_run_jobs(any_slurm, tmp_path):
    """Four nodes are there, and a job on each of them runs."""
    answer = any_slurm.ask("srun", "--nodes=4", "--ntasks=4", "printenv", "SLURMD_NODENAME")
    assert sorted(answer.stdout.split()) == ["n1", "n2", "n3", "n4"], answer.stderr


def test_accounting_as_asked(slurm, slurm_with_records):
    """One keeps records, the other does not; the two run side by side."""
    assert "disabled" in slurm.ask("sacct").stderr
    assert slurm_with_records.ask("sacct").returncode == 0


def test_only_this_machine_reaches_it(slurm):
    """Its daemons believe whoever asks, so they listen on the loopback only."""
    found = {place for pid in processes(slurm.folder) for place in listening(pid)}
    assert {address for address, _ in found} == {"0100007F"}
    assert len(found) == 5  # slurmctld and four slurmd


def listening(pid: int) -> list[tuple[str, str]]:
    """Where a process listens: addresses and ports in hexadecimal digits."""
    sockets = set(map(str, opened(Path(f"/proc/{pid}"))))
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    rows = [
        line.split()
        for table in tables
        if table.exists()
        for line in table.read_text().splitlines()[1:]
    ]
    listen = "0A"
    return [
        (row[1].partition(":")[0], row[1].partition(":")[2])
        for row in rows
        if row[3] == listen and f"socket:[{row[9]}]" in sockets
    ]


def test_missing_packages(tmp_path, monkeypatch):
    """Where programs are missing, the packages that have them are named."""
    monkeypatch.setattr("tests.slurm.cluster.SEARCHED", str(tmp_path))
    plain = ["slurmctld", "slurmd", "slurm-client"]
    assert missing_packages() == plain
    accounting = ["slurmdbd", "mariadb-server-core", "mariadb-client-core"]
    assert missing_packages(accounting=True) == plain + accounting


def test_settings(tmp_path):
    """A setting given takes the place of its own."""
    with PrivateSlurm(tmp_path, nodes=1, MaxArraySize=7, KillWait=9) as slurm:
        told = slurm.ask("scontrol", "show", "config").stdout
    assert "MaxArraySize            = 7\n" in told
    assert "KillWait                = 9 sec\n" in told


def test_controller_comes_back(slurm):
    """While the controller is away its jobs run on, and it knows them when it is back."""
    slurm.ask("sbatch", "--output=/dev/null", "--wrap", "sleep 60")
    until(lambda: "RUNNING" in slurm.ask("squeue", "-o%T").stdout, "the job to run", 60)
    slurm.stop_controller()
    assert slurm.ask("scontrol", "ping").returncode == 1
    slurm.start_controller()
    assert "RUNNING" in slurm.ask("squeue", "-o%T").stdout


def test_node_lost(slurm):
    """A node that is killed takes its jobs with it, Slurm says so, and it can come back."""
    slurm.ask("sbatch", "--no-requeue", "-wn2", "--output=/dev/null", "--wrap", "sleep 61")
    until(lambda: "RUNNING" in slurm.ask("squeue", "-o%T").stdout, "the job to run", 60)
    slurm.kill_node("n2")
    assert slurm.ask("squeue", "-tall", "-h", "-o%T").stdout.split()[-1] == "NODE_FAIL"
    assert not running("sleep 61")
    slurm.start_node("n2")
    assert slurm.ask("srun", "-wn2", "true").returncode == 0


def running(command: str) -> list[int]:
    """The processes of this test with this command line."""
    found = []
    for process in descendants():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if process.status() != "zombie" and " ".join(process.cmdline()) == command:
                found.append(process.pid)
    return found


def test_requeued_job_begins_soon(slurm, tmp_path):
    """A requeued job waits seconds, not the two minutes that are usual."""
    script = f"echo $SLURM_RESTART_COUNT >> {tmp_path}/starts; sleep 60"
    slurm.ask("sbatch", "--requeue", "--output=/dev/null", "--wrap", script)
    until((tmp_path / "starts").exists, "the first start", 60)
    slurm.ask("scontrol", "requeue", slurm.ask("squeue", "-h", "-o%i").stdout.strip())
    until(lambda: (tmp_path / "starts").read_text() == "\n1\n", "the second start", 60)


def test_clear_leaves_nothing(slurm):
    """After a test there is no job and no process of one, whatever it has broken."""
    slurm.ask("sbatch", "--array=0-40", "--output=/dev/null", "--wrap", "sleep 62")
    until(lambda: running("sleep 62"), "the job to run", 60)
    slurm.kill_node("n3")
    slurm.stop_controller()
    slurm.clear()
    assert slurm.ask("squeue", "-h").stdout == ""
    assert slurm.ask("sinfo", "-h", "-tidle", "-pwork", "-o%D").stdout.strip() == "4"
    until(lambda: not running("sleep 62"), "the processes to end", 60)


def test_stop_ends_everything(tmp_path):
    """After `stop` no daemon is left and no process of a job, and the ports are free."""
    slurm = PrivateSlurm(tmp_path)
    for _ in range(2):
        slurm.start()
        slurm.ask("sbatch", "--output=/dev/null", "--wrap", "sleep 63")
        until(lambda: running("sleep 63"), "the job to run", 60)
        slurm.stop()
        assert not processes(slurm.folder)
        assert not running("sleep 63")


@pytest.mark.parametrize("guarded", [True, False])
def test_tests_killed(tmp_path, guarded):
    """When the tests are killed their Slurm ends; if its guard was too, with the next start."""
    script = (
        "import sys, time; from pathlib import Path; sys.path[:0] = [sys.argv[1]]\n"
        "from cluster import PrivateSlurm\n"
        "slurm = PrivateSlurm(Path(sys.argv[2])); slurm.start()\n"
        "slurm.ask('sbatch', '--output=/dev/null', '--wrap', 'sleep 64')\n"
        "print(slurm._guard.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(CLUSTER.parent), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tests:
        guard = int(tests.stdout.readline())
        until(lambda: running("sleep 64"), "the job to run", 60)
        if not guarded:
            os.kill(guard, signal.SIGKILL)
        tests.kill()
    slurm = PrivateSlurm(tmp_path)
    if guarded:
        until(lambda: not _lives(guard), "the guard to end", 60)
    else:
        assert processes(slurm.folder)
        slurm.start()
        slurm.stop()
    assert not processes(slurm.folder)
    assert not running("sleep 64")


def test_ordinary_user():
    """It needs no root: daemons and jobs are those of whoever starts it."""
    python = next(filter(runs_for_nobody, [sys.executable, "/usr/bin/python3"]), None)
    if os.getuid() != 0:
        pytest.skip("every other test here shows it: they are not run as root")
    if python is None:
        pytest.skip("no Python here may be run by the user nobody")
    folder = tempfile.mkdtemp()
    try:
        copy = shutil.copy(CLUSTER, folder)
        os.chmod(folder, 0o777)
        answer = as_nobody(python, copy, "run", "srun", "--nodes=2", "id", "--user")
        assert answer.stdout.split() == [str(pwd.getpwnam("nobody").pw_uid)] * 2, answer.stderr
    finally:
        shutil.rmtree(folder)


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user="nobody",
        group=pwd.getpwnam("nobody").pw_gid,
        extra_groups=[],
        env={**os.environ, "TMPDIR": tempfile.gettempdir()},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


def runs_for_nobody(python: str) -> bool:
    try:
        return as_nobody(python, "-c", "").returncode == 0
    except OSError:
        return False
