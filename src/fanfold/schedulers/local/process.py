"""A script that runs, with everything that it started: watched, measured and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil

__all__ = ["Ending", "Process", "look"]

_ROUNDS = 50  # of killing what somebody forks faster than it is killed


class Ending(NamedTuple):
    """A script has ended: its exit status (negative: minus the signal) and CPU time in seconds."""

    process: Process
    status: int
    cpu_time: float


class Process:
    """A command in a session of its own, and all that it starts.

    ``on_end`` gets its `Ending`, in another thread. ``family`` and ``peak_memory`` are what `look`
    saw. Raises `OSError` when it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: str,
        environment: Mapping[str, str],
        umask: int | None,
        streams: tuple[int, int, int],
        on_end: Callable[[Ending], object],
    ) -> None:
        stdin, stdout, stderr = streams
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            umask=-1 if umask is None else umask,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.family: set[psutil.Process] = set()
        self.peak_memory: int | None = None
        self._on_end = on_end
        threading.Thread(target=self._wait, name=f"wait for {self.pid}", daemon=True).start()

    def _wait(self) -> None:
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        cpu_time = usage.ru_utime + usage.ru_stime
        self._on_end(Ending(self, self._process.returncode, cpu_time))

    def signal(self, signum: int, *, script_only: bool = False) -> None:
        """Send a signal to the whole family, wherever it went, or to the script alone."""
        if script_only:
            with suppress(OSError):
                os.kill(self.pid, signum)
            return
        look([self])
        with suppress(OSError):
            os.killpg(self.pid, signum)  # at once, so that none of them sees another end first
        for process in self.family:
            with suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) != self.pid:
                    process.send_signal(signum)

    def terminate(self) -> None:
        """Ask the family to end, those that were stopped too."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the family."""
        killed: set[psutil.Process] = set()
        for _ in range(_ROUNDS):
            self.signal(signal.SIGKILL)
            if self.family <= killed:
                return
            killed |= self.family

    def kill_rest(self) -> None:
        """End what the script has left behind."""
        sessions = (_session(pid) for pid in psutil.pids())
        if self.pid in sessions or any(process.is_running() for process in self.family):
            self.kill()


def look(processes: Collection[Process]) -> None:
    """See who belongs to each of them, and how much memory they hold.

    To its family belong those of its session, those that were seen to belong to it before, and
    what any of them started.
    """
    everybody = {process.pid: process for process in psutil.process_iter()}
    leaders = {process.pid: process for process in processes}
    owners: dict[int, Process | None] = {}
    for process in processes:
        for member in process.family:
            if everybody.get(member.pid) == member:  # and not another one with its number
                owners[member.pid] = process
        process.family = set()
    for pid, somebody in everybody.items():
        owner = _owner(pid, everybody, owners, leaders)
        if owner is not None:
            owner.family.add(somebody)
    for process in processes:
        held = sum(map(_memory, process.family))
        if held:
            process.peak_memory = max(process.peak_memory or 0, held)


def _owner(
    pid: int,
    everybody: Mapping[int, psutil.Process],
    owners: dict[int, Process | None],
    leaders: Mapping[int, Process],
) -> Process | None:
    """Whose family a process is of: its session tells, or an ancestor; noted in ``owners``."""
    climbed = []
    owner = None
    while pid in everybody and pid not in climbed:
        climbed.append(pid)
        owner = owners[pid] if pid in owners else leaders.get(_session(pid))
        if owner is not None or pid in owners:
            break
        try:
            pid = everybody[pid].ppid()
        except psutil.Error:
            break
    owners |= dict.fromkeys(climbed, owner)
    return owner


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:  # it is gone, or nobody's business
        return -1


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
