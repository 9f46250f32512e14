"""Leases: which process works on a run, and whether it still lives.

The files of a lease are never locked and never removed. Who has created the newest one has the run;
an older one has lost it, whatever its holder believes.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fanfold.errors import RunBusy, RunDamaged
from fanfold.store.directory import RunDirectory
from fanfold.store.files import create, replace
from fanfold.store.journal import tail

__all__ = ["Holder", "Lease", "holder"]

_END_SIZE = 1 << 12  # bytes at the end of a journal, in which its last record is

# The leases of this process: it may have given one back, or be another program than the one that
# took it, by exec.
_held: set[str] = set()


class Holder(NamedTuple):
    """Who took the newest lease: process ``pid`` on ``host``.

    ``boot`` names the boot of that host, ``started`` the start of the process; ``at`` is when, in
    seconds since 1970. ``alive`` is None where it cannot be known from here.
    """

    attempt: int
    host: str
    pid: int
    boot: str
    started: str
    at: float
    alive: bool | None


class _Process(NamedTuple):
    """What tells a process from every other: ``namespace`` is that of its process id."""

    host: str
    pid: int
    boot: str
    namespace: str
    started: str


class Lease:
    """The right to work on one element of a run; `take` takes it.

    ``attempt`` is its number, ``writer`` the name that the files of this attempt have, ``host``
    the name of this machine. Where ``fence`` is given, the lease is lost when that file is there.
    """

    def __init__(
        self, directory: RunDirectory, element: int, attempt: int, fence: Path | None = None
    ) -> None:
        self.element = element
        self.attempt = attempt
        self.writer = f"e{element}-a{attempt}"
        self.host = _host()
        self._token = os.urandom(8).hex()
        self._path = directory.lease(element, attempt)
        self._beat = directory.beat(element, attempt)
        self._ends = [directory.lease(element, attempt + 1), *([] if fence is None else [fence])]
        self._beats = 0

    @classmethod
    def take(
        cls,
        directory: RunDirectory,
        element: int,
        *,
        steal: bool = False,
        watch: float = 60.0,
        fence: Path | None = None,
    ) -> Lease:
        """Take the lease when nobody has it, or who has it is dead.

        On another host that cannot be proved: then its heartbeat is watched for ``watch`` seconds,
        and taken for dead when it has not changed. ``steal`` takes the lease from whoever has it.
        Raises `RunBusy`, `RunReadOnly` and `NoSpace`.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     directory = RunDirectory.create(Path(folder), "pi-1")
        ...     lease = Lease.take(directory, 0)
        ...     print(lease.writer, holder(directory, 0).alive)
        ...     lease.release()
        ...     print(Lease.take(directory, 0).writer, lease.superseded())
        e0-a1 True
        e0-a2 True
        """
        while True:
            last = max(directory.attempts(element), default=0)
            busy = None if steal else _busy(directory, element, watch)
            if busy is not None:
                raise RunBusy(directory.path, busy.host, busy.pid, busy.at)
            lease = cls(directory, element, last + 1, fence)
            try:
                lease._create()
            except FileExistsError:
                steal = False  # another was faster: that one is not whom to steal from
            else:
                return lease

    def _create(self) -> None:
        told = {**_this_process()._asdict(), "at": time.time(), "token": self._token}
        create(self._path, (json.dumps(told) + "\n").encode())
        _held.add(self._token)

    def beat(self, info: Mapping[str, Any]) -> None:
        """Say that this driver lives, and what it does."""
        self._beats += 1
        told = {"count": self._beats, "at": time.time(), **info}
        replace(self._beat, json.dumps(told).encode(), sync=False)

    def superseded(self) -> bool:
        """Has another taken the run over?"""
        return any(os.access(path, os.F_OK) for path in self._ends)

    def release(self) -> None:
        """This process works on it no more; without it, it does until the process ends."""
        _held.discard(self._token)


def holder(directory: RunDirectory, element: int) -> Holder | None:
    """Who took the newest lease, and whether they still work on it; None before the first.

    A holder is dead when its journal has an end, or when it was a process of this machine that
    there is no more. A process that is stopped (SIGSTOP) lives.
    """
    attempt = max(directory.attempts(element), default=0)
    if attempt == 0:
        return None
    process, at, token = _read_lease(directory, element, attempt)
    ended = _has_end(directory.journal(element, attempt))
    alive = False if ended else _is_alive(process, token)
    return Holder(attempt, process.host, process.pid, process.boot, process.started, at, alive)


def _read_lease(directory: RunDirectory, element: int, attempt: int) -> tuple[_Process, float, str]:
    """A lease that is damaged, or removed, tells of no process that could be asked for."""
    try:
        told = directory.read_json(f"leases/e{element}-a{attempt}.json")
        host, pid, boot, namespace, started = (told[name] for name in _Process._fields)
        process = _Process(str(host), int(pid), str(boot), str(namespace), str(started))
        return process, float(told["at"]), str(told["token"])
    except (RunDamaged, KeyError, TypeError, ValueError, OverflowError):
        return _Process("an unknown host", 0, "", "", ""), 0.0, ""


def _busy(directory: RunDirectory, element: int, watch: float) -> Holder | None:
    """The driver that has the run; None when it is dead, or watched long enough to believe it.

    Only our own clock counts: what others say of the time may be wrong.
    """
    first = current = holder(directory, element)
    count = _count(directory, element, first)
    deadline = time.monotonic() + watch
    while current is not None and current == first and current.alive is None:
        if _count(directory, element, current) != count:
            return current
        if time.monotonic() >= deadline:
            return None
        time.sleep(min(1.0, watch / 20))
        current = holder(directory, element)
    return None if current is None or current.alive is False else current


def _count(directory: RunDirectory, element: int, of: Holder | None) -> object:
    """How often a driver has said that it lives, None before the first time."""
    if of is None:
        return None
    try:
        return directory.read_json(f"leases/e{element}-a{of.attempt}.beat").get("count")
    except (RunDamaged, OSError):
        return None


def _has_end(journal: Path) -> bool:
    try:
        return any(record.get("is") == "end" for record in tail(journal, _END_SIZE))
    except (RunDamaged, OSError):
        return False


def _is_alive(process: _Process, token: str) -> bool | None:
    here = _this_process()
    if process == here:
        return token in _held
    if process.host != here.host:
        return None
    if process.boot != here.boot:
        return False
    if process.namespace != here.namespace or process.pid <= 0:
        return None
    started = _start_time(process.pid)
    return None if started is None else started == process.started


def _this_process() -> _Process:
    pid = os.getpid()
    return _Process(_host(), pid, _boot(), _namespace(), _start_time(pid) or "")


def _host() -> str:
    return socket.gethostname()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: start times are absolute there, and tell enough
        return ""


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    """When a process started, to compare; "" when there is none, None when it cannot be seen."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except PermissionError:  # somebody else's
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:
        return None if os.path.isdir("/proc/self") else _start_time_elsewhere(pid)
    except ProcessLookupError:
        return ""
    return "" if fields[0] in b"ZX" else fields[19].decode()


def _start_time_elsewhere(pid: int) -> str | None:
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ""
    except psutil.Error:
        return None
