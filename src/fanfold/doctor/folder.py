"""The file system of the runs: what it is, whether its locks hold, and what its clock says."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fanfold.doctor.findings import Finding, fact, warning
from fanfold.units import format_duration, format_size

__all__ = ["look_at"]

_TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        sys.exit(3)
"""
_HELD, _NOT_HELD = 3, 0
_SYNCS = 5
_SLOW_SYNC = 0.1  # seconds
_SKEW = 1.0  # seconds
_LITTLE = 1 << 30  # bytes
_SECOND = 1_000_000_000  # ns
_STAMPS = 3
_FINE = 0.01  # seconds: the kernel dates files by its last tick


def look_at(path: str) -> Iterator[Finding]:
    """The folder of the runs; where it is not there yet, the one that it would be made in."""
    folder = Path(path).absolute()
    place = next(one for one in (folder, *folder.parents) if one.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as scratch:
            yield _room(folder, place, Path(scratch))
            yield _locks(Path(scratch))
            yield _clock(Path(scratch))
    except OSError as error:
        why = f"{place} cannot be written ({error.strerror}), so no run can be kept in {folder}"
        yield Finding("machine", "runs", "broken", why, "fanfold doctor --dir FOLDER")


def _room(folder: Path, place: Path, scratch: Path) -> Finding:
    about = os.statvfs(place)
    free = about.f_frsize * about.f_bavail
    sync = _sync_time(scratch / "sync")
    what = (
        f"{folder} {'is' if place == folder else 'would be'} on {file_system(place)}, "
        f"{format_size(free)} free; a sync takes {format_duration(sync)}"
    )
    if free < _LITTLE:
        return warning("runs", f"{what}: there is little room")
    return warning("runs", f"{what}: slow") if sync > _SLOW_SYNC else fact("runs", what)


def _sync_time(path: Path) -> float:
    """Seconds, the median of a few."""
    times = []
    with open(path, "wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(b"0" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def file_system(place: Path, mounts: str = "/proc/self/mounts") -> str:
    """The type of the file system that a folder is on.

    >>> file_system(Path("/proc"))
    'proc'
    """
    real = place.resolve()
    best, kind = Path("/"), "an unknown file system"
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return kind
    for line in lines:
        _, mounted, found, *_ = line.split(" ")
        root = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mounted))
        if real.is_relative_to(root) and len(root.parts) >= len(best.parts):
            best, kind = root, found
    return kind


def _locks(scratch: Path) -> Finding:
    """Does another process see our lock? fanfold itself needs none, others do."""
    import fcntl

    path = scratch / "lock"
    with open(path, "w+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return warning("file locks", f"none here ({error.strerror}): {_WHO_NEEDS_LOCKS}")
        command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, os.fspath(path)]
        code = subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
    if code == _HELD:
        return fact("file locks", "fcntl locks hold between processes of this machine")
    if code == _NOT_HELD:
        return warning("file locks", f"they do not hold: {_WHO_NEEDS_LOCKS}")
    return warning("file locks", f"another process cannot ask for one: {_WHO_NEEDS_LOCKS}")


_WHO_NEEDS_LOCKS = "fanfold needs none, but SQLite and HDF5 files are not safe to share"


def _clock(scratch: Path) -> Finding:
    """What time does it give to what is written, and how finely?"""
    skews, stamps = [], []
    for number in range(_STAMPS):
        path = scratch / f"clock-{number}"
        before = time.time()
        path.write_bytes(b"0")
        after = time.time()
        stamps.append(path.stat().st_mtime_ns)
        skews.append(_outside(stamps[-1] / _SECOND, before, after))
    coarse = all(stamp % _SECOND == 0 for stamp in stamps)
    return clock_finding(min(skews, key=abs), coarse)


def _outside(stamp: float, before: float, after: float) -> float:
    """Seconds that a time is after ``after``, or (negative) before ``before``."""
    return stamp - after if stamp > after else min(0.0, stamp - before)


def clock_finding(skew: float, coarse: bool) -> Finding:
    """What to say of a clock that is ``skew`` seconds ahead, and tells whole seconds if ``coarse``.

    >>> print(clock_finding(-90.0, coarse=False).what)
    it is 1m30s behind the clock of this machine
    """
    name = "clock of files"
    if abs(skew) > _SKEW:
        word = "ahead of" if skew > 0 else "behind"
        return warning(name, f"it is {format_duration(abs(skew))} {word} the clock of this machine")
    if coarse:
        what = "whole seconds only: a file that changes twice in one may look unchanged"
        return warning(name, what, "fanfold run --files hash")
    within = format_duration(max(_FINE, abs(skew)))
    return fact(name, f"as the clock of this machine, within {within}")
