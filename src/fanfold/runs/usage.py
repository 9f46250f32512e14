"""What an element of a job array uses, with all that it has started: time, CPU time and memory;
and what the tasks of a run on one machine use.

CPU time is that of the processes that live and of those they have waited for. The system hands a
process that has ended over to its parent, so one that comes and goes between two looks is counted,
too. What a process had used when it was last seen is kept where nobody waited for it: there, at
most the time between two looks is lost.

Memory is what the processes have together at a look, and what they share counts once. Where the
scheduler has put the job into a control group of its own, the numbers of that group are better:
they hold what has left the family of the processes as well.
"""

from __future__ import annotations

import os
import platform
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NamedTuple

from fanfold.store.files import replace
from fanfold.tasks import Report, TaskRetried

if TYPE_CHECKING:
    from fanfold.dispatch import Event
    from fanfold.history import Element, History

__all__ = ["Meter", "Spent", "write_summary", "write_usage"]

_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds: what the CPU times of a process are rounded to
_PAGE = os.sysconf("SC_PAGESIZE")
_RARELY = 100  # what processes share is looked at for 1/100 of the time
_LARGEST = 1 << 16  # bytes of a file in /proc or of a control group
_HOW = "  As the workers measured it, task by task; memory: the most of each worker, added up."


class Meter:
    """Measures this process and all that comes of it, from the start of the process on.

    ``cores``, ``memory`` (bytes) and ``walltime`` (seconds) are what was asked for; they stand
    beside what is used. ``root`` is where ``proc`` and ``sys`` are found for control groups. Only
    one thread at a time may call.

    >>> meter = Meter(cores=2, memory=1 << 30, walltime=3600)
    >>> usage = meter.usage()
    >>> usage["cpu"] <= usage["seconds"] * (os.cpu_count() or 1), usage["peak"] > 1 << 20
    (True, True)
    """

    def __init__(
        self, cores: int, memory: int | None = None, walltime: int | None = None, root: str = "/"
    ) -> None:
        self._asked = {"cores": cores, "memory": memory, "walltime": walltime}
        self._family = _Family()
        self._group = _Group(os.environ, root)
        self._of_group = self._group.cpu_time() is not None, self._group.memory() is not None
        self._began = monotonic() - _age()
        self._cpu = 0.0
        self._peak = 0
        self._looks = 0

    def sample(self) -> None:
        """Look at what is used now; call it about once a second."""
        self._looks += 1
        with suppress(OSError):  # no descriptor is free: what was known stays
            self._family.look()
        cpu, memory = self._group.cpu_time(), self._group.memory()
        self._cpu = max(self._cpu, self._family.cpu_time if cpu is None else cpu)
        self._peak = max(self._peak, self._family.memory() if memory is None else memory)

    def usage(self) -> dict[str, Any]:
        """What has been used so far, after one more look: for a heartbeat, or a journal.

        ``seconds`` since the process was started, ``cpu`` in seconds of one core, ``peak`` the most
        bytes at a look, ``how`` it was measured in words; and what was asked for.
        """
        self.sample()
        return {
            "seconds": round(monotonic() - self._began, 3),
            "cpu": round(self._cpu, 3),
            "peak": self._peak,
            "how": self._how(),
            **self._asked,
        }

    def _how(self) -> str:
        cpu, memory = self._of_group
        return "; ".join(
            (
                "CPU time of the job's control group" if cpu else "CPU time of the processes",
                "memory of that group, without cached files" if memory else self._family.how,
                f"looks: {self._looks}",
            )
        )


class Spent:
    """What the tasks use that one driver runs on this machine: a listener of its events.

    Nothing is looked at for it: CPU time and peaks of memory are what the workers tell of each task
    anyway; threads do not know their part of the memory. ``memory`` is how many bytes so many
    ``workers`` may have together, if that was said.
    """

    def __init__(self, workers: int, memory: int | None = None) -> None:
        self._workers = workers
        self._memory = memory
        self._began = time()
        self._start = monotonic()
        self._tasks = 0
        self._cpu: float | None = None
        self._peaks: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        report = event.report if isinstance(event, TaskRetried) else event
        if not isinstance(report, Report):
            return
        self._tasks += len(event) if isinstance(event, Report) else 0
        for piece in report.evidence:
            if piece.cpu_time is not None:
                self._cpu = (self._cpu or 0.0) + piece.cpu_time
            if piece.peak_memory is not None:
                known = self._peaks.get(report.worker, 0)
                self._peaks[report.worker] = max(known, piece.peak_memory)

    def element(self, why: str) -> Element:
        """All of it, as of element 0 of a run: the driver on one machine, which ended as ``why``
        says."""
        from fanfold.history import Element

        peak = sum(self._peaks.values()) or None
        return Element(
            0, f"process {os.getpid()}", 0, platform.node(), why, self._tasks, self._workers,
            self._memory, None, self._began, monotonic() - self._start, self._cpu, peak,
        )  # fmt: skip


def write_usage(logs: Path, history: History) -> Path:
    """Write what the finished elements of a run used, for people, beside its logs.

    Returns the file. Raises `NoSpace` and `RunReadOnly`.
    """
    from fanfold.reports import render_usage  # late: a driver measures, and draws nothing

    return _write(logs, render_usage(history))


def write_summary(logs: Path, element: Element, run: str, status: int) -> Path:
    """The same for a run on this machine: what its driver asked for and used, as `Spent` tells."""
    from fanfold.reports import render_summary

    return _write(logs, f"{render_summary(element, run, None, status)}\n{_HOW}\n")


def _write(logs: Path, text: str) -> Path:
    path = logs / "_usage.txt"
    replace(path, text.encode(), sync=False)
    return path


# Processes ----------------------------------------------------------------------------------------


class _Process(NamedTuple):
    """A process: its CPU time, and that of the children it has waited for, in seconds.

    ``started`` tells it from others that have had its number.
    """

    parent: int
    started: float
    own: float
    reaped: float


class _Family:
    """This process and those that came of it; who was once in it stays, whoever its parent is."""

    def __init__(self) -> None:
        self._members: dict[int, _Process] = {}
        self._lost = 0.0  # seconds of CPU time of those whom nobody in the family has waited for
        self._shared: dict[int, int] = {}  # bytes to add to what each has of its own
        self._next = 0.0  # when to look at that again
        self.how = "memory of the processes, what they share counted once"

    @property
    def cpu_time(self) -> float:
        return self._lost + sum(one.own + one.reaped for one in self._members.values())

    def look(self) -> None:
        """Find the members as they are now, and keep what those have used that are gone."""
        seen = _processes()
        before = self._members
        stayed = [pid for pid, one in before.items() if _is_same(seen.get(pid), one)]
        now = {pid: seen[pid] for pid in _offspring({os.getpid(), *stayed}, seen)}
        left: defaultdict[int, float] = defaultdict(float)  # by those who are gone
        for pid, one in before.items():
            if not _is_same(now.get(pid), one):
                left[self._heir(pid, now)] += one.own + one.reaped
        for heir, seconds in left.items():
            got = now[heir].reaped - before[heir].reaped + 2 * _TICK if heir else 0.0
            self._lost += max(0.0, seconds - got)
        self._members = now

    def _heir(self, pid: int, now: Mapping[int, _Process]) -> int:
        """The nearest ancestor that was there before and is still; 0 where there is none."""
        while pid in self._members:
            pid = self._members[pid].parent
            if pid in self._members and _is_same(now.get(pid), self._members[pid]):
                return pid
        return 0

    def memory(self) -> int:
        """Bytes of the members together.

        What they share takes long to look at where there is much: it is looked at rarely then. In
        between that part is as it was, and who is new counts nothing: most of it may be shared.
        """
        own = {pid: _private(pid) for pid in self._members}
        began = monotonic()
        if began >= self._next:
            shares = {pid: _proportional(pid) for pid in own}
            self._next = monotonic() + _RARELY * (monotonic() - began)
            if not any(shares.values()):
                self.how = "memory of the processes, without what they share"
            self._shared = {pid: (share or own[pid]) - own[pid] for pid, share in shares.items()}
        return sum(own[pid] + shared for pid, shared in self._shared.items() if pid in own)


def _is_same(one: _Process | None, other: _Process) -> bool:
    return one is not None and one.started == other.started


def _offspring(roots: set[int], seen: Mapping[int, _Process]) -> set[int]:
    """These processes and all that came of them."""
    children = defaultdict(list)
    for pid, one in seen.items():
        children[one.parent].append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in seen]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children[pid]
    return found


def _processes() -> dict[int, _Process]:
    """The processes of this machine, as far as they can be seen, by their numbers.

    Raises OSError when it could not look: nobody must be thought gone then.
    """
    if sys.platform != "linux":
        return _processes_elsewhere()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                found[int(name)] = _process(name)
    return found


def _process(name: str) -> _Process:
    told = _stat(name)
    user, system, children_user, children_system = map(int, told[11:15])
    own, reaped = user + system, children_user + children_system
    return _Process(int(told[1]), float(told[19]), own * _TICK, reaped * _TICK)


def _stat(name: str) -> list[bytes]:
    """What the system tells of a process, from its state on: see proc(5)."""
    return _read(f"/proc/{name}/stat").rpartition(b")")[2].split(None, 20)


def _processes_elsewhere() -> dict[int, _Process]:
    import psutil

    found = {}
    for process in psutil.process_iter(["ppid", "create_time", "cpu_times"]):
        told = process.info
        if told["cpu_times"] is not None:  # else it is somebody else's
            user, system, children_user, children_system = told["cpu_times"][:4]
            found[process.pid] = _Process(
                told["ppid"], told["create_time"], user + system, children_user + children_system
            )
    return found


def _age() -> float:
    """Seconds since this process was started."""
    if sys.platform == "linux":
        from time import CLOCK_BOOTTIME, clock_gettime

        return clock_gettime(CLOCK_BOOTTIME) - int(_stat("self")[19]) * _TICK
    import psutil

    return time() - float(psutil.Process().create_time())


def _private(pid: int) -> int:
    """Bytes in memory that are not of a file nor of a shared segment.

    Pages that a process shares with the one it was forked from count in both.
    """
    if sys.platform != "linux":
        import psutil

        with suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    with suppress(OSError):
        _, resident, shared = _read(f"/proc/{pid}/statm").split()[:3]
        return (int(resident) - int(shared)) * _PAGE
    return 0


def _proportional(pid: int) -> int | None:
    """Bytes in memory, of what is shared the part of this process; None when that is not told."""
    with suppress(OSError):
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    return None


def _read(path: str) -> bytes:
    """The content of a file of the system, which must be read at once."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)


# Control groups -----------------------------------------------------------------------------------


class _Group:
    """The control group of the job that this process is in, where it has one of its own.

    It must be named for the job: a group that may be the user's, the container's or the whole
    machine's tells nothing of the job. The peaks that the kernel keeps of a group hold cached
    files, too, and grow up to the limit with them: they say nothing of what was needed.
    """

    def __init__(self, environ: Mapping[str, str], root: str) -> None:
        folders = dict(_job_folders(environ, root))
        unified = folders.get("")
        self._time = folders.get("cpuacct", unified)
        self._memory = folders.get("memory", unified)

    def cpu_time(self) -> float | None:
        """Seconds of all processes that are in it, or have been; None when that is not told."""
        nanoseconds = _numbers(self._time, "cpuacct.usage").get("")
        microseconds = _numbers(self._time, "cpu.stat").get("usage_usec")
        if nanoseconds is not None:
            return nanoseconds / 1e9
        return None if microseconds is None else microseconds / 1e6

    def memory(self) -> int | None:
        """Bytes that the kernel cannot take back by forgetting files; None when not told."""
        told = _numbers(self._memory, "memory.stat")
        own = told.get("total_rss", told.get("anon"))
        return None if own is None else own + told.get("total_shmem", told.get("shmem", 0))


def _job_folders(environ: Mapping[str, str], root: str) -> Iterator[tuple[str, str]]:
    """(controller, folder) of the groups that bear the name of the job; "" is the unified one."""
    slurm, pbs = environ.get("SLURM_JOB_ID"), environ.get("PBS_JOBID")
    names = [name for name in (slurm and f"job_{slurm}", pbs) if name]
    for line in _lines(os.path.join(root, "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        parts = path.split("/")
        depth = next((depth for depth, part in enumerate(parts) if part in names), 0)
        for controller in controllers.split(",") if depth else ():
            parent = os.path.join(root, "sys/fs/cgroup", controllers)
            yield controller, os.path.join(parent, *parts[1 : depth + 1])


def _numbers(folder: str | None, name: str) -> dict[str, int]:
    """A file of numbers, each after its name; a number alone has none. Nothing without a folder."""
    lines = [] if folder is None else _lines(os.path.join(folder, name))
    words = (line.rpartition(" ") for line in lines)
    return {name: int(number) for name, _, number in words if number.isdigit()}


def _lines(path: str) -> list[str]:
    with suppress(OSError):
        return _read(path).decode(errors="replace").splitlines()
    return []
