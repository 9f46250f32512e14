"""Leases: one driver at a time, and never behind a dead one."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from fanfold.errors import RunBusy, RunDamaged, RunReadOnly
from fanfold.store.directory import RunDirectory
from fanfold.store.files import create
from fanfold.store.journal import JournalWriter
from fanfold.store.lease import Lease, holder
from fanfold.testing.functions import until

IMPORTS = """\
import sys
from pathlib import Path
from fanfold.store.directory import RunDirectory
from fanfold.store.lease import Lease
"""

Forbidden = Callable[[Path, int], AbstractContextManager[None]]

# A driver in a process of its own: it takes the leases of the runs that it is told, and answers
# whether it still has the last one.
DRIVER = """\
for line in sys.stdin:
    command, _, path = line.strip().partition(" ")
    if command == "take":
        lease = Lease.take(RunDirectory(Path(path)), 0)
        print(lease.writer, flush=True)
    else:
        print(lease.superseded(), flush=True)
"""


class Driver:
    """Another process that takes leases."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", IMPORTS + DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(command, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def take(self, directory: RunDirectory) -> str:
        return self.ask(f"take {directory.path}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.pid}/stat")
        if state.exists():
            until(lambda: ") T " in state.read_text(), "the driver to stop")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.kill()


def forge(directory: RunDirectory, attempt: int = 1, **changes: Any) -> Path:
    """Change what a lease says."""
    path = directory.lease(0, attempt)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.fixture
def elsewhere(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """The lease of a driver on another host."""
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "node7")
        return Lease.take(directory, 0)


def alive(directory: RunDirectory) -> bool | None:
    last = holder(directory, 0)
    assert last is not None
    return last.alive


def test_a_run_without_a_driver(directory: RunDirectory) -> None:
    """Nobody has what nobody took."""
    assert holder(directory, 0) is None


def test_a_lease_says_who_has_it(directory: RunDirectory) -> None:
    """The holder is told by host, process and time; each element has leases of its own."""
    lease = Lease.take(directory, 0)
    last = holder(directory, 0)
    assert last is not None
    assert (last.attempt, last.host, last.pid) == (1, socket.gethostname(), os.getpid())
    assert last.alive is True
    assert (lease.element, lease.attempt, lease.writer) == (0, 1, "e0-a1")
    assert holder(directory, 1) is None
    assert Lease.take(directory, 1).writer == "e1-a1"
    assert directory.lease(0, 1).stat().st_mode & 0o7777 == 0o600


def test_a_second_driver_is_refused_by_name(directory: RunDirectory, driver: Driver) -> None:
    """R04: while a driver lives another is refused, with its process, its host, and what to do."""
    assert driver.take(directory) == "e0-a1"
    with pytest.raises(RunBusy) as caught:
        Lease.take(directory, 0)
    error = caught.value
    assert (error.host, error.pid) == (socket.gethostname(), driver.process.pid)
    assert f"kill {driver.process.pid}" in str(error)
    assert "--steal" in str(error)
    assert directory.attempts(0) == [1]


def test_a_killed_driver_is_succeeded(directory: RunDirectory, driver: Driver) -> None:
    """R05: a driver that was killed has lost its lease, even before its parent has noticed."""
    driver.take(directory)
    driver.process.kill()
    until(lambda: alive(directory) is False, "the driver to be seen dead")  # a zombie now
    assert Lease.take(directory, 0).writer == "e0-a2"


def test_a_killed_driver_is_succeeded_again_and_again(directory: RunDirectory) -> None:
    """R02: killed at each attempt, the next one takes over at once."""
    for attempt in range(1, 6):
        driver = Driver()
        assert driver.take(directory) == f"e0-a{attempt}"
        driver.kill()


def test_a_stopped_driver_lives(directory: RunDirectory, driver: Driver) -> None:
    """R04: a driver that is stopped may go on, so it is not succeeded."""
    driver.take(directory)
    driver.stop()
    with pytest.raises(RunBusy):
        Lease.take(directory, 0)


def test_split_brains(tmp_path: Path, driver: Driver) -> None:
    """G14: fifty times a stopped driver loses its lease to one that steals it, and when it goes on
    it knows."""
    for number in range(50):
        directory = RunDirectory.create(tmp_path, f"run-{number}")
        assert driver.take(directory) == "e0-a1"
        assert driver.ask("superseded?") == "False"
        driver.process.send_signal(signal.SIGSTOP)
        assert Lease.take(directory, 0, steal=True).attempt == 2
        driver.process.send_signal(signal.SIGCONT)
        assert driver.ask("superseded?") == "True"


RACE = """\
import multiprocessing, os, sys
from pathlib import Path
from fanfold.errors import RunBusy
from fanfold.store.directory import RunDirectory
from fanfold.store.lease import Lease

def race(paths, barrier, report):
    for path in paths:
        barrier.wait()
        try:
            lease = Lease.take(RunDirectory(Path(path)), 0, steal="steal" in path)
            won = lease.writer
        except RunBusy as busy:
            won = "busy"
        os.write(report, f"{Path(path).name} {won}\\n".encode())
    barrier.wait()  # a process that has ended would be dead, rightly

context = multiprocessing.get_context("fork")
barrier = context.Barrier(4)
paths = sys.argv[2:]
report = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
racers = [context.Process(target=race, args=(paths, barrier, report)) for _ in range(4)]
for racer in racers:
    racer.start()
for racer in racers:
    racer.join()
"""


def test_races_for_a_lease(tmp_path: Path) -> None:
    """R04, G14: of four processes that want a lease at the same moment one gets it, 200 times:
    where nobody had it, where somebody dead had it, and where all mean to steal it."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    expected = {}
    for number in range(200):
        kind = ("new", "dead", "steal")[number % 3]
        directory = RunDirectory.create(tmp_path / "runs", f"{kind}-{number}")
        if kind != "new":
            Lease.take(directory, 0)
        if kind == "dead":
            forge(directory, pid=dead.pid)
        expected[directory.path.name] = "e0-a1" if kind == "new" else "e0-a2"
    paths = [str(tmp_path / "runs" / name) for name in expected]
    command = [sys.executable, "-c", RACE, str(tmp_path / "report"), *paths]
    subprocess.run(command, check=True, timeout=100)
    told: dict[str, list[str]] = {name: [] for name in expected}
    for line in (tmp_path / "report").read_text().splitlines():
        name, won = line.split()
        told[name].append(won)
    for name, writer in expected.items():
        if not name.startswith("steal"):
            assert sorted(told[name]) == ["busy"] * 3 + [writer]
        else:  # who comes late steals from the one who was early: each has a lease of its own
            won = [one for one in told[name] if one != "busy"]
            assert writer in won
            assert len(set(won)) == len(won)


def test_an_end_frees_the_lease(directory: RunDirectory) -> None:
    """A driver whose journal has an end has gone, though its process lives."""
    Lease.take(directory, 0)
    with JournalWriter(directory.journal(0, 1), {}) as journal:
        assert alive(directory) is True
        journal.append([{"is": "tally"}, {"is": "end", "why": "done"}])
    assert alive(directory) is False
    assert Lease.take(directory, 0).attempt == 2


def test_a_lease_given_back_is_free(directory: RunDirectory) -> None:
    """A process that lives on may begin again, even if it could not write an end."""
    lease = Lease.take(directory, 0)
    with pytest.raises(RunBusy):
        Lease.take(directory, 0)
    lease.release()
    assert alive(directory) is False
    assert Lease.take(directory, 0).attempt == 2


def test_a_lease_does_not_outlive_exec(directory: RunDirectory) -> None:
    """R05: a process that has become another program has the same id, and nothing of the lease."""
    again = IMPORTS + "print(Lease.take(RunDirectory(Path(sys.argv[1])), 0).writer, flush=True)\n"
    command = [sys.executable, "-c", again, str(directory.path)]
    first = f"{again}import os; os.execv(sys.executable, {command!r})"
    command[2] = first
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.returncode) == (["e0-a1", "e0-a2"], 0), done.stderr


def test_a_child_does_not_have_its_parents_lease(directory: RunDirectory) -> None:
    """R27: a forked child sees that its parent has the lease."""
    script = IMPORTS + (
        "import os\n"
        "from fanfold.errors import RunBusy\n"
        "directory = RunDirectory(Path(sys.argv[1]))\n"
        "Lease.take(directory, 0)\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        Lease.take(directory, 0)\n"
        "    except RunBusy as busy:\n"
        "        os._exit(busy.pid != os.getppid())\n"
        "    os._exit(2)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    command = [sys.executable, "-c", script, str(directory.path)]
    assert subprocess.run(command, timeout=60).returncode == 0


def test_another_process_with_the_same_id(directory: RunDirectory, driver: Driver) -> None:
    """R05: a process that has the id of the driver, and started at another time, is another one."""
    Lease.take(directory, 0)
    forge(directory, pid=driver.process.pid)
    assert alive(directory) is False
    assert Lease.take(directory, 0).attempt == 2


def test_a_machine_that_was_started_anew(directory: RunDirectory, driver: Driver) -> None:
    """R05: nothing survives the start of its machine, whatever has its process id now."""
    driver.take(directory)
    assert alive(directory) is True
    forge(directory, boot="another")
    assert alive(directory) is False
    assert Lease.take(directory, 0).attempt == 2


def test_process_ids_of_another_container(directory: RunDirectory) -> None:
    """R05: where process ids are counted apart, the absence of one proves nothing."""
    Lease.take(directory, 0)
    forge(directory, pid=2**22 + 1, namespace="another")
    assert alive(directory) is None


def test_another_host_cannot_be_judged(directory: RunDirectory, elsewhere: Lease) -> None:
    """R04: whether a driver on another host lives is not known, and not guessed."""
    assert elsewhere.host == "node7"
    assert alive(directory) is None
    with JournalWriter(directory.journal(0, 1), {}) as journal:
        journal.append([{"is": "end", "why": "done"}])
    assert alive(directory) is False


def test_a_silent_driver_elsewhere_is_succeeded(directory: RunDirectory, elsewhere: Lease) -> None:
    """R05, R14: when its heartbeat does not change while we watch, it is taken for dead, whatever
    its clock says."""
    elsewhere.beat({"at": 4e9})
    assert Lease.take(directory, 0, watch=0.2).attempt == 2
    assert elsewhere.superseded()


def test_a_driver_elsewhere_that_never_beat(directory: RunDirectory, elsewhere: Lease) -> None:
    """R05: one that died before its first heartbeat is succeeded too."""
    assert Lease.take(directory, 0, watch=0.1).attempt == 2


def test_a_driver_elsewhere_that_beats(directory: RunDirectory, elsewhere: Lease) -> None:
    """R04, R14: when its heartbeat changes it lives, though its clock stands still in the past."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.02):
            elsewhere.beat({"at": 0.0})

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(RunBusy) as caught:
            Lease.take(directory, 0)
    finally:
        done.set()
        heart.join()
    assert caught.value.host == "node7"
    assert "on node7" in str(caught.value)


def test_what_happens_while_we_watch(
    directory: RunDirectory, elsewhere: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R04: an end that comes while we watch frees the lease; another driver that comes takes it."""
    looks = iter([lambda: end(directory, 1), lambda: forge_elsewhere(directory, 4)])
    monkeypatch.setattr("fanfold.store.lease.time.sleep", lambda _: next(looks)())
    assert Lease.take(directory, 0).attempt == 2  # at the next look, not after a minute
    end(directory, 2)
    forge_elsewhere(directory, 3)
    with pytest.raises(RunBusy):
        Lease.take(directory, 0)


def end(directory: RunDirectory, attempt: int) -> None:
    with JournalWriter(directory.journal(0, attempt), {}) as journal:
        journal.append([{"is": "end", "why": "done"}])


def forge_elsewhere(directory: RunDirectory, attempt: int) -> None:
    told = json.loads(directory.lease(0, 1).read_text())
    create(directory.lease(0, attempt), json.dumps({**told, "host": "node8"}).encode())


def test_stealing(directory: RunDirectory, elsewhere: Lease) -> None:
    """R04, X16: ``steal`` takes the lease from whoever has it, without watching, and who had it
    can see that at any time."""
    assert not elsewhere.superseded()
    second = Lease.take(directory, 0, steal=True)
    assert second.attempt == 2
    assert elsewhere.superseded()
    assert not second.superseded()
    assert Lease.take(directory, 0, steal=True).attempt == 3


def test_stealing_from_who_was_faster(
    directory: RunDirectory, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R04: to steal is meant for the driver that had the lease, not for one that comes between."""
    Lease.take(directory, 0)
    real = os.link

    def after_another(*paths: Path) -> None:
        if directory.attempts(0) == [1]:
            driver.take(other)
            other.lease(0, 1).rename(directory.lease(0, 2))
        real(*paths)

    other = RunDirectory.create(directory.path.parent, "other")
    monkeypatch.setattr(os, "link", after_another)
    with pytest.raises(RunBusy) as caught:
        Lease.take(directory, 0, steal=True)
    assert caught.value.pid == driver.process.pid


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"pid": "x"}', "\0" * 100, '{"host": 1, "pid": -1}']
)
def test_a_damaged_lease(directory: RunDirectory, content: str) -> None:
    """R06: a lease that cannot be read tells of nobody who could be asked: it is watched."""
    Lease.take(directory, 0)
    directory.lease(0, 1).write_text(content)
    assert alive(directory) is None
    assert Lease.take(directory, 0, watch=0.05).attempt == 2


@pytest.mark.parametrize("pid", [0, -1, 10**30, 1e400, "1"])
def test_process_ids_that_are_none(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, pid: object
) -> None:
    """X15: no process, and no group of them, is asked for whose id is not one."""
    Lease.take(directory, 0)
    forge(directory, pid=pid)
    asked: list[int] = []
    real = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: (asked.append(pid), real(pid, number)))
    assert alive(directory) is not True
    assert [pid for pid in asked if pid <= 0] == []


def test_a_lease_that_is_missing(directory: RunDirectory) -> None:
    """R07: a journal without its lease is an attempt that somebody may be at."""
    with JournalWriter(directory.journal(0, 3), {}):
        pass
    assert alive(directory) is None
    assert Lease.take(directory, 0, watch=0.05).attempt == 4


def test_the_heartbeat(directory: RunDirectory) -> None:
    """The beat counts up, tells what it is given, and is replaced: nothing piles up."""
    lease = Lease.take(directory, 0)
    for count in range(1, 4):
        lease.beat({"workers": [count]})
        told = directory.read_json("leases/e0-a1.beat")
        assert (told["count"], told["workers"]) == (count, [count])
    assert sorted(os.listdir(directory.path / "leases")) == ["e0-a1.beat", "e0-a1.json"]
    assert directory.beat(0, 1).stat().st_mode & 0o7777 == 0o600


def test_a_link_that_was_made_and_denied(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R15: over NFS the reply to a request may be lost, and its repetition finds the name taken:
    by ourselves, so the lease is ours."""
    real = os.link

    def made_and_denied(*paths: Path) -> None:
        real(*paths)
        raise FileExistsError(errno.EEXIST, "as asked")

    monkeypatch.setattr(os, "link", made_and_denied)
    assert Lease.take(directory, 0).attempt == 1
    with pytest.raises(FileExistsError):
        create(directory.lease(0, 1), b"{}")
    assert os.listdir(directory.path / "leases") == ["e0-a1.json"]


def test_a_file_system_without_links(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R15: where there are no hard links a lease is created by its name, and once."""

    def unknown(*_: Path) -> None:
        raise OSError(errno.EPERM, "as asked")

    monkeypatch.setattr(os, "link", unknown)
    assert Lease.take(directory, 0).attempt == 1
    with pytest.raises(FileExistsError):
        create(directory.lease(0, 1), b"{}")
    assert os.listdir(directory.path / "leases") == ["e0-a1.json"]
    assert alive(directory) is True


def test_a_folder_without_leases(directory: RunDirectory) -> None:
    """R17: a folder that was moved away is told by name."""
    (directory.path / "leases").rmdir()
    with pytest.raises(RunDamaged, match="moved or removed"):
        Lease.take(directory, 0)


def test_a_run_that_cannot_be_written(directory: RunDirectory, forbidden: Forbidden) -> None:
    """R17: who may only look cannot drive, and is told so; looking works."""
    (directory.path / "journals").chmod(0o755)
    with forbidden(directory.path / "leases", 0o555):
        with pytest.raises(RunReadOnly, match=r"e0-a1\.json"):
            Lease.take(directory, 0)
        assert holder(directory, 0) is None
