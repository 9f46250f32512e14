"""What this machine and this process have: cores, memory, limits, programs and libraries."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fanfold.devices import devices
from fanfold.doctor.findings import Finding, fact, warning
from fanfold.errors import UsageError
from fanfold.resources import cores
from fanfold.transport.segments import Holding, holdings, sweep
from fanfold.units import counted, format_size

__all__ = ["blas", "gpus", "here", "launchers"]

_SHARED = "/dev/shm"  # noqa: S108 - it is looked at, not written to
_LITTLE_SHARED = 1 << 30  # bytes
_MOST_OWNERS = 4  # processes that are named
_DOCKER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_FILES_OF_A_WORKER = 8  # descriptors, about
_FILES_OF_A_DRIVER = 128
_PATIENCE = 5.0  # seconds for a launcher to tell its version
_LONGEST = 60  # characters of a version
_MAKERS = {"HYDRA": "MPICH", "OpenRTE": "Open MPI", "Open MPI": "Open MPI", "slurm": "Slurm"}
_VERSION = re.compile(r"[0-9]+\.[0-9][0-9.a-z]*")


def here() -> Iterator[Finding]:
    """What can be told at once."""
    yield _python()
    yield _cores()
    yield _memory()
    yield _start()
    yield _shared_memory()
    yield _limits()


def _python() -> Finding:
    free = getattr(sys, "_is_gil_enabled", lambda: True)
    kind = "" if free() else ", free-threaded"
    system = f"{platform.system()} {platform.machine()}"
    return fact("Python", f"{platform.python_version()}{kind} on {system}: {sys.executable}")


def _cores() -> Finding:
    found = cores()
    deciding = [reason.source for reason in found.reasons if reason.limit == found]
    machine = next(reason.limit for reason in found.reasons if reason.source == "machine")
    of = f" of {machine}" if machine != found else ""
    return fact("cores", f"{int(found)}{of} may be used, because of {' and '.join(deciding)}")


def _memory() -> Finding:
    import psutil

    told = psutil.virtual_memory()
    what = f"{format_size(told.available)} free of {format_size(told.total)}"
    limit = _memory_limit()
    if limit is not None and limit < told.total:
        what += f"; the control group may use {format_size(limit)}"
    return fact("memory", what)


def _memory_limit() -> int | None:
    """The smallest limit of the control groups of this process, in bytes."""
    found = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        base, name = Path("/sys/fs/cgroup"), "memory.max"
        if "memory" in controllers.split(","):
            base, name = base / "memory", "memory.limit_in_bytes"
        elif controllers:
            continue
        folder = base / group.lstrip("/")
        for place in (folder, *folder.parents):
            text = _read(str(place / name)).strip()
            if text.isdecimal():
                found.append(int(text))
            if place == base:
                break
    return min(found, default=None)


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def _start() -> Finding:
    import multiprocessing

    default = multiprocessing.get_context().get_start_method()
    return fact(
        "start method",
        f"workers come from fanfold's own fork server; multiprocessing takes {default!r} by "
        "default here",
    )


def _shared_memory() -> Finding:
    name = "shared memory"
    found = holdings()
    sweep()  # what the dead have left there is nobody's
    kept = "".join(_kept(found))
    try:
        about = os.statvfs(_SHARED)
    except OSError:
        what = f"there is no {_SHARED}: large arrays go through files in TMPDIR"
        return warning(name, f"{what}{kept}")
    total, free = about.f_frsize * about.f_blocks, about.f_frsize * about.f_bavail
    what = f"{_SHARED} has {format_size(free)} free of {format_size(total)}{kept}"
    if total >= _LITTLE_SHARED:
        return fact(name, what)
    remedy = f"mount -o remount,size=50% {_SHARED}"
    if any(path.exists() for path in _DOCKER):
        remedy = "docker run --shm-size=4g ..."
    return warning(name, f"{what}: larger arrays go through files in TMPDIR", remedy)


def _kept(found: list[Holding]) -> Iterator[str]:
    """What fanfold keeps in segments, whose that is, and what was removed."""
    for place in dict.fromkeys(one.place for one in found):
        living = [one for one in found if one.place == place and not one.dead]
        if living:
            whose = ", ".join(str(one.owner) for one in living[:_MOST_OWNERS])
            more = len(living) - _MOST_OWNERS
            whose += f" and {more} more" if more > 0 else ""
            noun = "process" if len(living) == 1 else "processes"
            yield f"; in {place} fanfold keeps {_pieces(living)}, of {noun} {whose}"
    left = [one for one in found if one.dead]
    if left:
        yield f"; removed {_pieces(left)} that dead processes had left"


def _pieces(found: list[Holding]) -> str:
    count = sum(one.segments for one in found)
    return f"{format_size(sum(one.size for one in found))} in {counted(count, 'segment')}"


def _limits() -> Finding:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    more = f" (up to {_number(most)} with ulimit -n)" if files != most else ""
    parts = [f"{_number(files)} open files{more}", f"{_number(processes)} processes"]
    if space != resource.RLIM_INFINITY:
        parts.append(f"{format_size(space)} of address space")
    what = ", ".join(parts)
    wanted = _FILES_OF_A_DRIVER + _FILES_OF_A_WORKER * cores()
    if files == resource.RLIM_INFINITY or files >= wanted:
        return fact("limits", what)
    what += f": {cores()} workers may need {wanted} files"
    reachable = most == resource.RLIM_INFINITY or most >= wanted
    return warning("limits", what, f"ulimit -n {wanted}" if reachable else "")


def _number(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


# What may take a while, or hang -------------------------------------------------------------------


def launchers() -> Iterator[Finding]:
    """The programs that start MPI ranks, and what they say they are."""
    beside = sysconfig.get_path("scripts")
    path = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    found = {name: shutil.which(name, path=path) for name in ("mpiexec", "srun")}
    told = [f"{where} ({_version(where)})" for where in found.values() if where is not None]
    if told:
        yield fact("MPI launcher", ", ".join(told))
    else:
        yield fact("MPI launcher", "none: there is neither mpiexec nor srun")


def _version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"which does not tell its version: {type(error).__name__}"
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    if done.returncode or not lines:
        said = lines[0][:_LONGEST] if lines else f"exit status {done.returncode}"
        return f"which fails: {said}"
    return version_in("\n".join(lines))


def version_in(text: str) -> str:
    """Whose launcher it is, and which version, as far as its own words tell.

    >>> version_in("HYDRA build details:\\n    Version:  4.3.1\\n    CC: gcc")
    'MPICH 4.3.1'
    >>> version_in("mpiexec (OpenRTE) 4.1.4"), version_in("slurm 22.05.8"), version_in("mpx")
    ('Open MPI 4.1.4', 'Slurm 22.05.8', 'mpx')
    """
    maker = next((name for sign, name in _MAKERS.items() if sign in text), "")
    number = _VERSION.search(text)
    first = text.partition("\n")[0]
    return f"{maker} {number[0]}" if maker and number else first[:_LONGEST]


def blas() -> Iterator[Finding]:
    """The numerical libraries that NumPy brings, and how many threads they take by themselves."""
    import numpy
    from threadpoolctl import threadpool_info

    libraries = [
        f"{info['internal_api']} {info['version'] or ''}".strip() + f" takes {info['num_threads']}"
        for info in threadpool_info()
    ]
    told = f"NumPy {numpy.__version__}"
    if libraries:
        told += f"; {', '.join(libraries)} threads; workers hold them to their share of the cores"
    yield fact("BLAS threads", told)


def gpus() -> Iterator[Finding]:
    """The GPUs that this process may use."""
    try:
        found = devices()
    except UsageError as error:
        yield warning("GPUs", str(error))
        return
    names = ", ".join(" ".join(device.values()) for device in found.each)
    count = len(found.each)
    yield fact("GPUs", f"{count} ({found.source}): {names}" if count else f"none: {found.source}")
