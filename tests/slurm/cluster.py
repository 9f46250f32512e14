"""A Slurm of one's own: its real daemons, in a folder, for as long as a test needs them.

No root, no munge, nothing in /etc: the daemons are the caller's own, and believe what a client says
about who it is (auth/none); so they listen on the loopback only. They need nothing but Python, and
end with the process that started them, however it ends.

    python tests/slurm/cluster.py run COMMAND ...     a command with a Slurm, to try things by hand
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
}
ACCOUNTING_PACKAGES = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
}
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
PATIENCE = 60.0  # seconds for anything to begin or to end, on a busy machine


def missing_packages(accounting: bool = False) -> list[str]:
    """Debian's names of what is not installed here."""
    wanted = {**PACKAGES, **(ACCOUNTING_PACKAGES if accounting else {})}
    return [name for program, name in wanted.items() if not shutil.which(program, path=SEARCHED)]


class PrivateSlurm:
    """A Slurm in a folder, of nodes n1, n2 ... with 4 CPUs and 4000 MB each, all of them here.

    Queues are ``work``, the default, and ``short``, five minutes on n1. ``accounting`` gives it a
    slurmdbd with a MariaDB of its own. ``settings`` are lines of slurm.conf, such as
    ``MaxArraySize=101``. ``start`` always begins anew.

        with PrivateSlurm(folder) as slurm:
            subprocess.run(["squeue"], env={**os.environ, **slurm.environment})
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 4,
        accounting: bool = False,
        **settings: object,
    ) -> None:
        self.folder = folder.resolve() / "slurm"
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.accounting = accounting
        self.settings = settings
        self._claim: socket.socket | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a client here."""
        return {"SLURM_CONF": str(self.folder / "client.conf")}

    def start(self) -> None:
        """Start everything, and return when all nodes are idle."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._guard = subprocess.Popen(
            [sys.executable, __file__, "guard", str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        try:
            self._configure()
            if self.accounting:
                self._start_database()
                self.start_records()
                self._command("sacctmgr", "--immediate", "add", "cluster", "private")
            self.start_controller()
            for name in self.nodes:
                self._daemon("slurmd", "-N", name)
            self._wait_for_nodes()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of it, those of its jobs included, at once; the logs stay."""
        end(self.folder)
        shutil.rmtree(self.folder / "mariadb", ignore_errors=True)  # 100 MB
        if self._guard is not None:
            self._guard.communicate()
            self._guard = None
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def __enter__(self) -> PrivateSlurm:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_controller(self) -> None:
        """Start slurmctld, and return when it answers."""
        self._daemon("slurmctld")
        self._until(lambda: self.ask("scontrol", "ping").returncode == 0, "slurmctld to answer")

    def stop_controller(self) -> None:
        """End slurmctld in good order; its jobs run on."""
        end(self.folder, "slurmctld.log", signal.SIGTERM)

    def start_records(self) -> None:
        """Start slurmdbd, and return when it answers."""
        self._daemon("slurmdbd", MYSQL_UNIX_PORT=str(self.folder / "mariadb.sock"))
        known = ("sacctmgr", "list", "cluster")
        self._until(lambda: self.ask(*known).returncode == 0, "slurmdbd to answer")

    def stop_records(self) -> None:
        """End slurmdbd in good order."""
        end(self.folder, "slurmdbd.log", signal.SIGTERM)

    def kill_node(self, name: str) -> None:
        """Lose a node: everything on it is killed at once, and the controller told."""
        end(self.folder, f"{name}.log")
        self._command("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")

    def start_node(self, name: str) -> None:
        """Bring a lost node back, and return when all nodes answer."""
        self._daemon("slurmd", "-N", name)
        self._wait_for_nodes()

    def expire(self, job: str) -> None:
        """Let the walltime of a running job, or of an element, be over: a minute is the shortest
        that Slurm takes. It looks for such jobs every 30 seconds."""
        self._command("scontrol", "update", f"jobid={job}", "endtime=now+1")

    def clear(self) -> None:
        """As it was after ``start``: everything runs, the nodes are idle, and no job is left."""
        if self.accounting and not processes(self.folder, "slurmdbd.log"):
            self.start_records()
        if not processes(self.folder, "slurmctld.log"):
            self.start_controller()
        for name in self.nodes:
            if not processes(self.folder, f"{name}.log"):
                self.start_node(name)
        self._command("scancel", f"--user={user()}")
        self._until(lambda: not self._said("squeue", "--noheader"), "the jobs to end")
        self._wait_for_nodes()

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a client of this Slurm."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )

    def _command(self, *command: str) -> None:
        answer = self.ask(*command)
        if answer.returncode:
            raise RuntimeError(f"{' '.join(command)}: {answer.stderr.strip()}")

    def _said(self, *command: str) -> str:
        """What a command prints; the error where it fails, which is not nothing."""
        answer = self.ask(*command)
        return answer.stdout.strip() if answer.returncode == 0 else answer.stderr

    def _wait_for_nodes(self) -> None:
        # those that run a job are well, too
        count = ("sinfo", "--noheader", "--states=idle,mixed,alloc", "--partition=work", "-o%D")
        self._until(
            lambda: sum(map(int, self._said(*count).split())) == len(self.nodes),
            "the nodes to answer",
        )

    def _daemon(self, *command: str, **variables: str) -> None:
        """Start what goes into the background by itself.

        Without our variables of our own: by them tests know what a test has started.
        """
        conf = str(self.folder / "slurm.conf")
        kept = {name: text for name, text in os.environ.items() if not name.startswith("FANFOLD")}
        with open(self.folder / "start.txt", "ab") as told:
            ended = subprocess.run(
                command,
                env={**kept, "SLURM_CONF": conf, **variables, "PATH": SEARCHED},
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                start_new_session=True,
                timeout=PATIENCE,
            )
        if ended.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {self._last_words()}")

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {PATIENCE:g} s for {what}: {self._last_words()}")
            time.sleep(0.02)

    def _last_words(self) -> str:
        """The end of everything that was logged."""
        texts = [
            f"{path.name}: {path.read_text(errors='replace')[-600:]}"
            for path in sorted([*self.folder.glob("*.log"), self.folder / "start.txt"])
        ]
        return "\n".join(texts)

    def _configure(self) -> None:
        self._claim, ports = claim_ports(len(self.nodes) + 2)
        settings = {**self._basics(ports), **self.settings}
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines += [
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=4"
            " RealMemory=4000"
            for name, port in zip(self.nodes, ports[2:], strict=True)
        ]
        lines += [
            "PartitionName=work Nodes=ALL Default=YES MaxTime=1-00:00:00 DefMemPerCPU=100",
            "PartitionName=short Nodes=n1 MaxTime=5 DefaultTime=2 DefMemPerCPU=100",
        ]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        hurried = [*lines, "MessageTimeout=5"]  # 10 is usual: so long nobody answers, to a client
        (self.folder / "client.conf").write_text("\n".join(hurried) + "\n")
        (self.folder / "state").mkdir()
        if self.accounting:
            self._configure_records(ports[1])

    def _basics(self, ports: Sequence[int]) -> dict[str, object]:
        folder = self.folder
        basics: dict[str, object] = {
            "ClusterName": "private",
            "SlurmctldHost": "localhost",
            "SlurmctldPort": ports[0],
            "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
            "SlurmUser": user(),
            "SlurmdUser": user(),
            "AuthType": "auth/none",
            "CredType": "cred/none",
            "AuthInfo": "cred_expire=5",  # so long a requeued job waits; 120 is usual, 5 least
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "%n",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "%n.pid",
            "SlurmctldLogFile": folder / "slurmctld.log",
            "SlurmdLogFile": folder / "%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=1",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SlurmdParameters": "config_overrides",  # more CPUs than there are
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,sched_min_interval=0,"
            "bf_interval=1",
            "KillWait": 2,
            "ReturnToService": 2,
            "MpiDefault": "none",
            "AccountingStorageType": "accounting_storage/none",
        }
        if self.accounting:
            basics["AccountingStorageType"] = "accounting_storage/slurmdbd"
            basics["AccountingStorageHost"] = "localhost"
            basics["AccountingStoragePort"] = ports[1]
        return basics

    def _configure_records(self, port: int) -> None:
        lines = [
            "AuthType=auth/none",
            "DbdHost=localhost",
            f"DbdPort={port}",
            "CommunicationParameters=NoInAddrAny",
            f"SlurmUser={user()}",
            "StorageType=accounting_storage/mysql",
            "StorageHost=localhost",
            f"StorageUser={user()}",
            "StorageLoc=records",
            f"LogFile={self.folder / 'slurmdbd.log'}",
            f"PidFile={self.folder / 'slurmdbd.pid'}",
        ]
        path = self.folder / "slurmdbd.conf"
        path.touch(0o600)  # slurmdbd refuses one that others can read
        path.write_text("\n".join(lines) + "\n")

    def _start_database(self) -> None:
        data, sock = f"--datadir={self.folder / 'mariadb'}", self.folder / "mariadb.sock"
        small = ("--innodb-log-file-size=4M", "--innodb-buffer-pool-size=32M")
        install = ("mariadb-install-db", "--no-defaults", data, *small, "--skip-test-db")
        known = (f"--auth-root-socket-user={user()}", "--auth-root-authentication-method=socket")
        self._daemon(*install, *known)
        serve = ("mariadbd", "--no-defaults", data, *small, f"--socket={sock}", f"--user={user()}")
        quick = ("--innodb-flush-log-at-trx-commit=0", "--skip-networking")
        named = (f"--pid-file={self.folder / 'mariadb.pid'}",)
        log = str(self.folder / "mariadb.log")
        self._daemon(
            "sh", "-c", 'log=$1; shift; "$@" 2>"$log" &', "sh", log, *serve, *quick, *named
        )
        create = "CREATE DATABASE IF NOT EXISTS records"
        client = ("mariadb", "--no-defaults", f"--socket={sock}", "-e", create)
        self._until(lambda: self.ask(*client).returncode == 0, "MariaDB to answer")


def user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def claim_ports(count: int) -> tuple[socket.socket, range]:
    """Ports in a row that nobody listens at, and the socket that keeps others of us from them.

    They lie below those that systems give to clients.
    """
    for first in range(20_000, 30_000, count + 1):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
            ports = range(first + 1, first + 1 + count)
            if all(map(_is_free, ports)):
                return claim, ports
        except OSError:
            pass
        claim.close()
    raise RuntimeError("no free ports between 20000 and 30000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the daemons do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def processes(folder: Path, log: str = "*.log") -> set[int]:
    """The daemons that log into ``folder``, into the file ``log``: that of a node is the log of the
    steps on it, too. Their pid files are not asked, for numbers are used again."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or it is somebody else's
            if (entry / "comm").read_text().startswith(("slurm", "mariadbd")) and any(
                path.parent == folder and path.match(log) for path in opened(entry)
            ):
                found.add(int(entry.name))
    return found


def opened(process: Path) -> Iterator[Path]:
    """What a process, by its folder in /proc, has opened and does not close meanwhile."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for link in (process / "fd").iterdir():
            with suppress(FileNotFoundError):
                yield Path(os.readlink(link))


def _with_descendants(pids: set[int]) -> set[int]:
    """The processes, and those that they have started, such as the scripts of jobs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found, new = set(pids), list(pids)
    while new:
        new = [child for pid in new for child in children.get(pid, []) if child not in found]
        found.update(new)
    return found


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def end(folder: Path, log: str = "*.log", by: signal.Signals = signal.SIGKILL) -> None:
    """End the daemons that log there; killed, with everything that they have started."""
    deadline = time.monotonic() + PATIENCE
    while daemons := processes(folder, log):
        doomed = _stopped(daemons) if by == signal.SIGKILL else daemons
        _signal(doomed, by)
        while any(map(_lives, doomed)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {PATIENCE:g} s for the end of {doomed}")
            time.sleep(0.005)


def _stopped(pids: set[int]) -> set[int]:
    """The processes and all they have started, stopped: none of them can start another, or tell
    of the end of another."""
    stopped: set[int] = set()
    while new := _with_descendants(pids) - stopped:
        _signal(new, signal.SIGSTOP)
        stopped |= new
    return stopped


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="A Slurm of one's own.")
    commands = parser.add_subparsers(dest="what", required=True)
    run = commands.add_parser("run", help="run a command with a Slurm")
    run.add_argument("--accounting", action="store_true")
    run.add_argument("command", nargs=argparse.REMAINDER)
    guard = commands.add_parser("guard", help="end everything in FOLDER when stdin is closed")
    guard.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    if given.what == "guard":
        sys.stdin.read()
        end(given.folder)
        return 0
    with (
        tempfile.TemporaryDirectory() as folder,
        PrivateSlurm(Path(folder), accounting=given.accounting) as slurm,
    ):
        return subprocess.run(given.command, env={**os.environ, **slurm.environment}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
