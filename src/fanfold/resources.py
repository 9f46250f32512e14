"""What a job asks for, and how many cores this process may really use, and why."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fanfold.errors import UsageError
from fanfold.units import counted, parse_size, parse_walltime

__all__ = [
    "Cores",
    "Reason",
    "Resources",
    "blas_threads",
    "core_limits",
    "cores",
    "read_memory",
    "thread_environment",
]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS",
)

_CPUS_PER_NODE = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?")


class _Asked(NamedTuple):
    nodes: int
    cores: int
    memory: int | None
    gpus: int
    walltime: int | None
    queue: str | None
    account: str | None
    mail: str | None
    mail_events: tuple[str, ...]
    constraint: str | None
    extra: tuple[str, ...]


class Resources(_Asked):
    """What a job on Slurm or PBS asks for, in the spelling of the one who asks.

    ``nodes`` nodes, and on each of them ``cores``, ``memory`` (``"4GB"``, ``"4096mb"``, or a number
    of bytes) and ``gpus``, for a ``walltime`` (``"1h30m"``, ``"1:30:00"``, ``"2-12"``, or a number
    of seconds). ``queue`` is Slurm's partition, ``account`` the project of PBS. ``mail`` goes to
    that address on the ``mail_events`` ``"begin"``, ``"end"`` and ``"abort"``. ``constraint`` names
    a property of nodes; ``extra`` are directives as they are, without their prefix.

    Raises `UsageError`, which names every field that is wrong and a right value for it.

    >>> asked = Resources(cores=4, memory="8GB", walltime="1h", mail="me@example.org")
    >>> asked.memory, asked.walltime, asked.mail_events
    (8589934592, 3600, ('end', 'abort'))
    """

    __slots__ = ()

    def __new__(
        cls,
        nodes: int | str = 1,
        cores: int | str = 1,
        memory: int | str | None = None,
        gpus: int | str = 0,
        walltime: float | str | None = None,
        queue: str | None = None,
        account: str | None = None,
        mail: str | None = None,
        mail_events: str | Iterable[str] = ("end", "abort"),
        constraint: str | None = None,
        extra: Iterable[str] = (),
    ) -> Resources:
        given = {name: value for name, value in locals().items() if name in cls._fields}
        read: dict[str, Any] = {}
        wrong = []
        for name, value in given.items():
            try:
                read[name] = _FIELDS[name](value)
            except UsageError as error:
                wrong.append(f"{name}: {error}")
        if wrong:
            raise UsageError("\n".join(wrong))
        return super().__new__(cls, **read)

    @property
    def workers(self) -> int:
        """How many tasks run at a time unless it is said: one a GPU, or else one a core.

        >>> Resources(cores=8).workers, Resources(cores=8, gpus=2).workers
        (8, 2)
        """
        return self.gpus or self.cores


def _whole_number(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
            raise UsageError(f"{value!r} is not a whole number: write {least} or more")
        return int(text)

    return read


def _amount(read: Callable[[str], int], example: str) -> Callable[[Any], int | None]:
    """Reads a size or a walltime: text with a unit, or a number of bytes or seconds."""

    def read_amount(value: Any) -> int | None:
        if value is None or isinstance(value, str):
            return None if value is None else read(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{value!r} is no amount: write {example}")
        if not 0 < value < math.inf:
            raise UsageError(f"{value!r} is no amount: write {example}")
        return math.ceil(value)

    return read_amount


def _word(example: str) -> Callable[[Any], str | None]:
    """Reads a name that goes into a directive: one word, that no scheduler takes for an option."""

    def read(value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(r"[\w@.:+/,=&|()*-]+", value):
            raise UsageError(f"{value!r} is not one word: write it like {example}")
        if value.startswith("-"):
            raise UsageError(f"{value!r} begins with a dash: write it like {example}")
        return value

    return read


def _events(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (str, list, tuple)):
        raise UsageError(f"{value!r} is no event: write some of begin, end and abort")
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    strange = [word for word in words if word not in ("begin", "end", "abort")]
    if strange:
        raise UsageError(f"{strange[0]!r} is no event: write some of begin, end and abort")
    return tuple(dict.fromkeys(words))


def _lines(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (str, list, tuple)):
        raise UsageError(f"{value!r} is no list of directives: write ['--qos=long']")
    lines = (value,) if isinstance(value, str) else tuple(value)
    for line in lines:
        if not isinstance(line, str) or not line.isprintable() or not line.startswith("-"):
            raise UsageError(f"{line!r} is no directive: write options such as '--qos=long'")
    return lines


read_memory = _amount(parse_size, "'4GB'")
"""Bytes, of a number of them or of a size such as ``"4GB"``. Raises `UsageError`."""

_FIELDS: dict[str, Callable[[Any], Any]] = {
    "nodes": _whole_number(1),
    "cores": _whole_number(1),
    "memory": read_memory,
    "gpus": _whole_number(0),
    "walltime": _amount(parse_walltime, "'1h30m'"),
    "queue": _word("'long'"),
    "account": _word("'physics'"),
    "mail": _word("'me@example.org'"),
    "mail_events": _events,
    "constraint": _word("'haswell'"),
    "extra": _lines,
}


class Reason(NamedTuple):
    """One thing that was looked at: where, how many cores it allows (None: no limit), in words."""

    source: str
    limit: int | None
    explanation: str


class Cores(int):
    """A number of cores that knows its reasons: the smallest limit among them.

    >>> few = Cores((Reason("machine", 8, "8 logical CPUs"), Reason("NCPUS", 2, "set by PBS")))
    >>> few, few + 1
    (2, 3)
    >>> print(few.explain())
    2 cores may be used, because of NCPUS
        8  machine  8 logical CPUs
    >   2  NCPUS    set by PBS
    """

    reasons: tuple[Reason, ...]

    def __new__(cls, reasons: tuple[Reason, ...]) -> Cores:
        limits = [reason.limit for reason in reasons if reason.limit is not None]
        self = super().__new__(cls, min(limits, default=1))
        self.reasons = reasons
        return self

    def __getnewargs__(self) -> tuple[tuple[Reason, ...]]:  # type: ignore[override]
        return (self.reasons,)

    def explain(self) -> str:
        """The number and every reason, a line each; ``>`` marks what decides."""
        deciding = [reason.source for reason in self.reasons if reason.limit == self]
        width = max((len(reason.source) for reason in self.reasons), default=0)
        lines = [f"{counted(int(self), 'core')} may be used, because of {' and '.join(deciding)}"]
        for source, limit, explanation in self.reasons:
            mark = ">" if limit == self else " "
            shown = "-" if limit is None else str(limit)
            lines.append(f"{mark} {shown:>3}  {source:<{width}}  {explanation}")
        return "\n".join(lines)


def cores() -> Cores:
    """How many cores this process may really use: the number, with its reasons.

    The smallest of: the CPUs of the machine, the affinity of the process, the CPU quota of its
    control groups (rounded up), and what Slurm, PBS or an outer fanfold worker gave it. It is
    the default for ``workers``.

    >>> import fanfold as ff
    >>> ff.cores() >= 1
    True
    >>> ff.cores().reasons[0].source
    'machine'
    """
    return Cores(tuple(core_limits(os.environ)))


def core_limits(
    environ: Mapping[str, str], root: str = "/", hostname: str | None = None
) -> Iterator[Reason]:
    """Every reason, in the order it is shown.

    ``root`` is where ``proc`` and ``sys`` are found, ``hostname`` the name of this machine.
    """
    machine = os.cpu_count() or 1
    yield Reason("machine", machine, f"{machine} logical CPUs")
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
        yield Reason("affinity", allowed, f"the process is bound to {counted(allowed, 'CPU')}")
    yield _cgroup_limit(root)
    yield from _slurm_limits(environ)
    yield from _pbs_limits(environ, hostname or os.uname().nodename)
    if "FANFOLD_CORES" in environ:
        yield _whole("FANFOLD_CORES", environ, "the share of a fanfold worker")
    if "OMP_NUM_THREADS" in environ:
        hint = f"a hint, no limit: each task's libraries use {environ['OMP_NUM_THREADS']} threads"
        yield Reason("OMP_NUM_THREADS", None, hint)


def blas_threads(workers: int, cores: int) -> int:
    """How many threads the libraries of each worker may use: workers x threads <= cores.

    >>> blas_threads(workers=2, cores=8), blas_threads(workers=3, cores=2)
    (4, 1)
    """
    return max(1, cores // workers)


def thread_environment(threads: int, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that hold numerical libraries to ``threads`` threads.

    They count when they are set before the library is imported. What the user has set is kept
    where it is smaller, and lowered where it is larger.

    >>> thread_environment(4, {"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"]
    '2'
    >>> thread_environment(4, {})["OPENBLAS_NUM_THREADS"]
    '4'
    """
    environ = os.environ if environ is None else environ
    variables = {}
    for name in THREAD_VARIABLES:
        text = environ.get(name, "")
        outermost = _positive(text.split(",")[0])  # OpenMP lists one number a nesting level
        kept = outermost is not None and outermost <= threads
        variables[name] = text if kept else str(threads)
    return variables


def _positive(text: str) -> int | None:
    text = text.strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
    return number or None


def _whole(name: str, environ: Mapping[str, str], meaning: str) -> Reason:
    text = environ[name]
    limit = _positive(text)
    if limit is None:
        return Reason(name, None, f"ignored: {text!r} is not a positive whole number")
    return Reason(name, limit, meaning)


def _slurm_limits(environ: Mapping[str, str]) -> Iterator[Reason]:
    if "SLURM_CPUS_PER_TASK" in environ:
        yield _whole("SLURM_CPUS_PER_TASK", environ, "what Slurm gives each task of the job")
    if "SLURM_JOB_CPUS_PER_NODE" in environ:
        name, text = "SLURM_JOB_CPUS_PER_NODE", environ["SLURM_JOB_CPUS_PER_NODE"]
        node = environ.get("SLURM_NODEID", "")
        limit = slurm_node_cpus(text, int(node) if node.isascii() and node.isdigit() else 0)
        if limit is None:
            yield Reason(name, None, f"ignored: {text!r} is not a list such as 24(x2),12")
        else:
            yield Reason(name, limit, f"what the Slurm job has on this node ({text})")


def slurm_node_cpus(text: str, node: int) -> int | None:
    """The CPUs of one node of a Slurm job; those of the first when there is no such node.

    >>> [slurm_node_cpus("24(x2),12", node) for node in (0, 1, 2, 9)]
    [24, 24, 12, 24]
    """
    first = None
    for part in text.split(","):
        match = _CPUS_PER_NODE.fullmatch(part.strip())
        if match is None or int(match[1]) == 0:
            return None
        count, repeats = int(match[1]), int(match[2] or 1)
        first = first or count
        if node < repeats:
            return count
        node -= repeats
    return first


def _pbs_limits(environ: Mapping[str, str], hostname: str) -> Iterator[Reason]:
    """NCPUS; the node file only where there is no NCPUS.

    A line of the node file is an MPI rank to start, not a core: ``select=1:ncpus=4`` gives one
    line and NCPUS=4. Only schedulers that do not set NCPUS (Torque) write a line a core.
    """
    if "NCPUS" in environ:
        reason = _whole("NCPUS", environ, "what PBS gives each process of the job")
        yield reason
        if reason.limit is not None:
            return
    if "PBS_NODEFILE" in environ:
        yield _node_file_limit(environ["PBS_NODEFILE"], hostname)


def _node_file_limit(path: str, hostname: str) -> Reason:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            names = [line.strip().split(".")[0].lower() for line in file]
    except OSError as error:
        return Reason("PBS_NODEFILE", None, f"ignored: cannot read {path} ({error.strerror})")
    lines = names.count(hostname.split(".")[0].lower())
    if lines == 0:
        return Reason("PBS_NODEFILE", None, f"ignored: no line of {path} is {hostname}")
    return Reason("PBS_NODEFILE", lines, f"lines of {path} that are {hostname}")


def _cgroup_limit(root: str) -> Reason:
    """The tightest CPU quota of the control groups this process is in, and of their ancestors."""
    tightest = Reason("cgroup", None, "no CPU quota")
    for folder in _cgroup_folders(root):
        quota = _quota(folder)
        if quota is None:
            continue
        limit = max(1, -int(-quota // 1))
        if tightest.limit is None or limit < tightest.limit:
            shown = os.path.join("/", os.path.relpath(folder, root))
            tightest = Reason("cgroup", limit, f"{quota:g} CPUs of time, rounded up ({shown})")
    return tightest


def _cgroup_folders(root: str) -> Iterator[str]:
    """Where a quota may be written: each control group of this process, then its ancestors.

    Inside a container the path may name a group of the host that is not visible here; its
    ancestors end at the mount, which is then the container's own group.
    """
    base = os.path.join(root, "sys/fs/cgroup")
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, _, entry = line.partition(":")  # hierarchy:controllers:path
        controllers, _, path = entry.partition(":")
        if controllers == "":
            mounts = [base, os.path.join(base, "unified")]
        elif "cpu" in controllers.split(","):
            mounts = [os.path.join(base, controllers), os.path.join(base, "cpu")]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            for depth in range(len(parts), -1, -1):
                yield os.path.join(mount, *parts[:depth])


def _quota(folder: str) -> float | None:
    """CPU time a second, in CPUs, that a control group may spend; None when not limited."""
    quota, _, period = _read(os.path.join(folder, "cpu.max")).partition(" ")
    if not quota:
        quota = _read(os.path.join(folder, "cpu.cfs_quota_us"))
        period = _read(os.path.join(folder, "cpu.cfs_period_us"))
    spent, every = _positive(quota), _positive(period)  # "max" and -1 mean no limit
    return spent / every if spent and every else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
