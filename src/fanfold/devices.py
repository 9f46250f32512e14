"""Which GPUs this process may use, and each worker's share of them.

A device keeps the name that it has here: an index, a UUID or a MIG name. An index counts among what
an outer variable or the scheduler's fence leaves visible, so numbers are handed on as they are, and
never made anew.

Sources: "CUDA Environment Variables" of the CUDA C++ Programming Guide, "GPU isolation techniques"
of ROCm, the Level Zero specification (ZE_AFFINITY_MASK), "GPU Management" of Slurm's gres.html.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fanfold.errors import UsageError
from fanfold.units import counted, parse_indices

__all__ = ["Devices", "devices", "gpus_each"]

_CUDA, _ROCR = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
# HIP numbers what ROCR_VISIBLE_DEVICES leaves, by HIP_VISIBLE_DEVICES or by CUDA's variable.
_INNER = (_CUDA, "HIP_VISIBLE_DEVICES")
_LEVEL_ZERO = "ZE_AFFINITY_MASK"
_NO_DEVICE = ("", "-1", "none", "void", "nodevfiles")  # what a list of visible devices ends with
_IN_JOB = {"SLURM_JOB_ID", "PBS_JOBID"}
_PATIENCE = 30.0  # seconds: where the driver is not kept loaded, nvidia-smi loads it first

_GPU = re.compile(r"GPU \d+:.*\(UUID: (GPU-[^)]+)\)")
_MIG = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")
_UUID = re.compile(r"GPU UUID:\s*(GPU-[0-9a-f-]+)\s*$", re.MULTILINE)
_SIMD_COUNT = re.compile(r"^simd_count [1-9]", re.MULTILINE)
_PBS_LINE = re.compile(r"(.+)-gpu(\d+)")


class Devices(NamedTuple):
    """GPUs, in order: ``each[i]`` are the variables that show device ``i`` alone.

    ``source`` is what told of them.
    """

    each: tuple[dict[str, str], ...]
    source: str

    def shares(self, workers: int | None, gpus: int = 1) -> list[dict[str, str]]:
        """The variables of each worker, that show it ``gpus`` devices which no other worker has.

        Without ``workers`` there are as many as there are devices for. Raises `UsageError` when
        there are too few.

        >>> two = Devices(({"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}), "a test")
        >>> two.shares(None)
        [{'CUDA_VISIBLE_DEVICES': '2'}, {'CUDA_VISIBLE_DEVICES': '5'}]
        >>> two.shares(1, gpus=2)
        [{'CUDA_VISIBLE_DEVICES': '2,5'}]
        """
        most = len(self.each) // gpus
        if not most or (workers or 1) > most:
            raise UsageError(self._too_few(workers or 1, gpus, most))
        firsts = range(0, (workers or most) * gpus, gpus)
        return [_together(self.each[first : first + gpus]) for first in firsts]

    def _too_few(self, workers: int, gpus: int, most: int) -> str:
        asked = f"{workers} workers with gpus={gpus} each need" if workers > 1 else "a worker needs"
        seen = f"this process may use {len(self.each)} ({self.source})"
        remedy = "leave gpus= out to compute on the cores"
        if most:
            remedy = f"take {most} {'workers' if most > 1 else 'worker'}, or leave workers= out"
        return f"{asked} {counted(workers * gpus, 'GPU')}, and {seen}: {remedy}"


def _together(devices: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: ",".join(device[name] for device in devices) for name in devices[0]}


def gpus_each(workers: int, gpus: int) -> int:
    """How many of a node's ``gpus`` each of ``workers`` gets.

    Raises `UsageError` when there are more workers than GPUs.

    >>> gpus_each(2, 4), gpus_each(3, 4)
    (2, 1)
    """
    if workers > gpus:
        raise UsageError(
            f"{workers} workers cannot have a GPU of {counted(gpus, 'GPU')} each: take {gpus} or "
            "fewer, or leave workers out. To share a GPU, ask for it with a directive, such as "
            "extra=['--gres=gpu:1'], in place of gpus"
        )
    return gpus // workers


def devices(
    environ: Mapping[str, str] | None = None, root: str = "/", hostname: str | None = None
) -> Devices:
    """The GPUs that this process may use, as the environment, the scheduler and the driver tell.

    What ``CUDA_VISIBLE_DEVICES``, ``HIP_VISIBLE_DEVICES`` (else ``ROCR_VISIBLE_DEVICES``) and
    ``ZE_AFFINITY_MASK`` say holds, unless a scheduler gave fewer. Where none of them is set, it is
    what Slurm or PBS gave, and else all that the driver shows. ``root`` is where ``proc`` and
    ``sys`` are found, ``hostname`` the name of this machine.

    Raises `UsageError` for variables that contradict each other, and in a job of which nothing says
    which of several devices are its own.

    >>> devices({"CUDA_VISIBLE_DEVICES": "2,GPU-8932f937"}).each
    ({'CUDA_VISIBLE_DEVICES': '2'}, {'CUDA_VISIBLE_DEVICES': 'GPU-8932f937'})
    """
    environ = os.environ if environ is None else environ
    grant = _grant(environ, hostname or os.uname().nodename)
    told = _told(environ)
    if told is not None:
        return told if grant is None else _within(told, grant, environ, root)
    variable, found, source = _found(environ, root)
    if grant is not None:
        found, source = _named(grant.indices, found), grant.source
    elif len(found) > 1 and _IN_JOB.intersection(environ):
        raise UsageError(
            f"there are {len(found)} GPUs here, and the scheduler does not say which of them are "
            f"this job's: export {variable}, in the script of the job or with --setup (setup=)"
        )
    return Devices(tuple({variable: name} for name in found), source)


# What the environment says


def _told(environ: Mapping[str, str]) -> Devices | None:
    inner = [name for name in _INNER if name in environ] or [_ROCR]
    told = {name: _names(environ[name]) for name in (*inner, _LEVEL_ZERO) if name in environ}
    if not told:
        return None
    said = " and ".join(f"{name}={environ[name]}" for name in told)
    if len({len(names) for names in told.values()}) > 1:
        raise UsageError(
            f"{said} show different numbers of GPUs: unset the one that is not meant, so that each "
            "worker can have its own"
        )
    each = (dict(zip(told, names, strict=True)) for names in zip(*told.values(), strict=True))
    return Devices(tuple(each), said)


def _names(text: str) -> list[str]:
    """The names in a list of visible devices; the first that is none ends it, as for CUDA."""
    names: list[str] = []
    for part in text.split(","):
        name = part.strip()
        if name.lower() in _NO_DEVICE:
            break
        if name not in names:
            names.append(name)
    return names


# What a scheduler gave


class _Grant(NamedTuple):
    """The devices of a job, by their index on the node."""

    indices: Sequence[int]
    source: str


def _grant(environ: Mapping[str, str], hostname: str) -> _Grant | None:
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        with suppress(KeyError, UsageError):
            return _Grant(parse_indices(environ[name]), f"{name}={environ[name]}")
    if "PBS_GPUFILE" in environ:
        lines = _read(Path(environ["PBS_GPUFILE"])).split()
        matches = [match for line in lines if (match := _PBS_LINE.fullmatch(line))]
        indices = [int(match[2]) for match in matches if _short(match[1]) == _short(hostname)]
        return _Grant(indices, "PBS_GPUFILE") if matches else None
    return None


def _short(hostname: str) -> str:
    return hostname.split(".")[0].lower()


def _within(told: Devices, grant: _Grant, environ: Mapping[str, str], root: str) -> Devices:
    """What is told and was given. A scheduler with a fence numbers what is inside it anew: so where
    no more is told than given, it is taken as it is."""
    if len(told.each) <= len(grant.indices):
        return told
    given = {str(index) for index in grant.indices}
    given.update(_named(grant.indices, _found(environ, root)[1]))
    each = tuple(device for device in told.each if given.issuperset(device.values()))
    if not each:
        raise UsageError(
            f"{told.source} shows {counted(len(told.each), 'GPU')}, and the job was given "
            f"{len(grant.indices)} ({grant.source}), none of them: unset it, or name those"
        )
    return Devices(each, f"{told.source}, within {grant.source}")


def _named(indices: Sequence[int], found: Sequence[str]) -> list[str]:
    """Devices of a job by name: when no more are found than were given, a fence hides the rest."""
    if not found:
        return [str(index) for index in indices]
    if len(found) <= len(indices):
        return list(found)
    return [found[index] for index in indices if index < len(found)]


# What the driver shows


def _found(environ: Mapping[str, str], root: str) -> tuple[str, list[str], str]:
    """(variable, names, source) of all devices of this machine, or of this container."""
    names = _listed_by_nvidia_smi(environ) or _listed_in_proc(Path(root))
    if names:
        return _CUDA, names, "as the NVIDIA driver shows"
    nodes = Path(root, "sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    count = sum(bool(_SIMD_COUNT.search(_read(node))) for node in nodes)
    if count:
        return _ROCR, [str(index) for index in range(count)], "as the AMD driver shows"
    return _CUDA, [], f"{_CUDA} is not set, and no driver shows any"


def _listed_by_nvidia_smi(environ: Mapping[str, str]) -> list[str]:
    """UUIDs; a GPU that is split into MIG devices is used by these."""
    names: list[str] = []
    whole = False
    for line in _ask_nvidia_smi(environ).splitlines():
        if gpu := _GPU.match(line):
            names.append(gpu[1])
            whole = True
        elif mig := _MIG.match(line):
            if whole:
                names.pop()
            names.append(mig[1])
            whole = False
    return names


def _ask_nvidia_smi(environ: Mapping[str, str]) -> str:
    program = shutil.which("nvidia-smi", path=environ.get("PATH", os.defpath))
    if program is None:
        return ""
    process = subprocess.Popen(
        [program, "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        return process.communicate(timeout=_PATIENCE)[0]
    except subprocess.TimeoutExpired:  # it may hang in the driver, where no signal ends it
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        return ""
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _listed_in_proc(root: Path) -> list[str]:
    """UUIDs in the order of the bus; indices where the driver does not tell them all."""
    files = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    uuids = [match[1] for file in files if (match := _UUID.search(_read(file)))]
    return uuids if len(uuids) == len(files) else [str(index) for index in range(len(files))]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
