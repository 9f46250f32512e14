"""Segments: pieces of shared memory that big buffers travel in.

A segment is a file in a folder of its own, mode 0700, under ``/dev/shm`` (or, where that is missing
or full, the temporary folder), mapped by whoever reads it. The folder's name tells its owner: user,
boot, process namespace, process id and start time, and 64 random bits. So a later process can prove
that an owner is dead and sweep what it left, and nothing of another user or host is ever touched.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import mmap
import os
import stat
import threading
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from fanfold.errors import NoSpace

__all__ = [
    "Holding", "Segment", "SegmentFolder", "adopt", "attach", "claim", "held", "holdings",
    "process_folder", "release", "sharing_folder", "sweep",
]  # fmt: skip

_PREFIX = "fanfold"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - not a temporary file: our folder there is 0700
_WRITE_LIMIT = 1 << 30  # one write() moves less than 2 GiB


class Segment(NamedTuple):
    """Where a buffer is: the path of its file and its size in bytes."""

    path: str
    size: int


class SegmentFolder:
    """The places where one process writes its segments: shared memory first, then disk.

    ``label`` begins the file names, so that what one worker left can be told from the rest.
    """

    def __init__(self, roots: list[str], label: str) -> None:
        self.roots = roots
        self._label = label
        self._serial = count()

    def put(self, buffer: memoryview) -> Segment:
        """Copy a buffer into a new segment. Raises `NoSpace` where no place has room.

        Written with ``write``, not through a mapping: a full file system is then an error here
        instead of a SIGBUS later, and the pages need not be zeroed first.
        """
        name = self.new_name()
        for root in self.roots:
            path = os.path.join(root, name)
            try:
                _write_file(path, buffer)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                continue
            return Segment(path, buffer.nbytes)
        raise NoSpace(
            errno.ENOSPC,
            f"no room for {buffer.nbytes:,} bytes in {' or '.join(self.roots)}: free some space, "
            "set TMPDIR to a larger disk, or pass smaller pieces",
        )

    def new_name(self) -> str:
        """The name of a file that is to be here, which no other one has."""
        return f"{self._label}{next(self._serial)}"

    def clear(self, label: str) -> None:
        """Remove the segments whose names begin with ``label``."""
        for root in self.roots:
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(root):
                    if name.startswith(label):
                        release(Segment(os.path.join(root, name), 0))


def _write_file(path: str, buffer: memoryview) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask
        data = buffer.cast("B") if buffer.format != "B" or buffer.ndim != 1 else buffer
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written : written + _WRITE_LIMIT])
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def attach(segment: Segment) -> memoryview:
    """Map a segment read-only. The mapping lives as long as something refers to the view."""
    return _map(segment, writable=False)


def claim(segment: Segment) -> memoryview:
    """Map a segment for writing and remove its name: the view is the only owner from now on."""
    view = _map(segment, writable=True)
    release(segment)
    return view


def _map(segment: Segment, *, writable: bool) -> memoryview:
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(segment.path, flags)
    try:
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        return memoryview(mmap.mmap(descriptor, segment.size, access=access))
    finally:
        os.close(descriptor)


def release(segment: Segment) -> None:
    """Remove a segment's name; its memory is freed when the last mapping goes."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(segment.path)


# The folder of this process, made when first needed.

_lock = threading.Lock()
_folders: dict[int, SegmentFolder] = {}


def process_folder() -> SegmentFolder:
    """The folder of this process (its own after a fork, too); removed when the process ends."""
    pid = os.getpid()
    with _lock:
        if pid not in _folders:
            sweep()
            _folders.clear()
            _folders[pid] = SegmentFolder(_make_roots(pid), "d")
            atexit.register(_remove_roots, pid, _folders[pid].roots)
        return _folders[pid]


_adopted: dict[int, SegmentFolder] = {}


def adopt(folder: SegmentFolder) -> None:
    """Have ``folder`` be the `sharing_folder` of this process, and of no child of it."""
    _adopted.clear()
    _adopted[os.getpid()] = folder


def sharing_folder() -> SegmentFolder:
    """Where this process puts what is to outlive a task: in a worker of a pool the folder of its
    driver, which clears up after a worker however that ended; elsewhere the process's own."""
    return _adopted.get(os.getpid()) or process_folder()


def _make_roots(pid: int) -> list[str]:
    name = f"{_owner_prefix()}{pid}-{_start_time(pid)}-{os.urandom(8).hex()}"
    roots = []
    for parent in _parents():
        path = os.path.join(parent, name)
        with contextlib.suppress(OSError):  # a read-only or missing parent: the next one
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)  # whatever the umask
            roots.append(path)
    if not roots:
        raise NoSpace(
            errno.ENOSPC,
            f"cannot make a folder in {' or '.join(_parents())}: set TMPDIR to one you can write",
        )
    return roots


def _remove_roots(pid: int, roots: list[str]) -> None:
    if os.getpid() == pid:
        for root in roots:
            _remove_tree(root)


def _parents() -> list[str]:
    shared = [_SHARED_MEMORY] if os.path.isdir(_SHARED_MEMORY) else []
    return [*shared, _temporary_folder()]


def _temporary_folder() -> str:
    """What `tempfile` would say; it is asked where the answer is not plain, for it is large."""
    named = next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp")  # noqa: S108
    if os.path.isabs(named) and os.access(named, os.W_OK | os.X_OK):
        return named
    import tempfile

    return tempfile.gettempdir()


def sweep() -> list[str]:
    """Remove the folders of this user's dead processes on this machine; returns their paths."""
    removed = []
    for path, _, dead in _folders_of_user():
        if dead:
            _remove_tree(path)
            removed.append(path)
    return removed


def _folders_of_user() -> Iterator[tuple[str, int, bool]]:
    """The folders of this user's processes on this machine: path, owner, and whether it is dead."""
    prefix = _owner_prefix()
    for parent in _parents():
        with contextlib.suppress(OSError):
            for name in os.listdir(parent):
                if name.startswith(prefix) and _is_ours(path := os.path.join(parent, name)):
                    owner = name[len(prefix) :].partition("-")[0]
                    if owner.isdigit():
                        yield path, int(owner), _owner_is_dead(name, prefix)


class Holding(NamedTuple):
    """What a process keeps in segments: how many they are, and their bytes.

    ``place`` is where: shared memory, or the temporary folder. ``dead`` says that the process has
    ended, and `sweep` would remove them.
    """

    owner: int
    place: str
    segments: int
    size: int
    dead: bool


def holdings() -> list[Holding]:
    """What the processes of this user keep in segments on this machine; empty folders are not
    told of."""
    found = []
    for path, owner, dead in _folders_of_user():
        sizes = _sizes(path)
        if sizes:
            found.append(Holding(owner, os.path.dirname(path), len(sizes), sum(sizes), dead))
    return found


def held() -> tuple[int, int]:
    """Bytes of the segments of this process and of its workers, now: in shared memory, and on disk
    because that was full."""
    folder = _folders.get(os.getpid())
    places = {True: 0, False: 0}
    for root in folder.roots if folder is not None else ():
        places[root.startswith(f"{_SHARED_MEMORY}/")] += sum(_sizes(root))
    return places[True], places[False]


def _sizes(folder: str) -> list[int]:
    """Bytes of the files in a folder of segments."""
    sizes = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it is gone by now
                sizes.append(entry.stat(follow_symlinks=False).st_size)
    return sizes


def _remove_tree(path: str) -> None:
    """Remove a folder of segments. Without shutil: Python evaluates code to import that, and a
    program that ends by Ctrl-C would no longer seem to."""
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)


def _is_ours(path: str) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _owner_is_dead(name: str, prefix: str) -> bool:
    pid, _, rest = name[len(prefix) :].partition("-")
    start, _, _ = rest.partition("-")
    return pid.isdigit() and _start_time(int(pid)) != start


def _owner_prefix() -> str:
    """User, boot and process namespace: processes elsewhere cannot be judged from here."""
    try:
        boot = _read("/proc/sys/kernel/random/boot_id")[:8]
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        import platform

        boot, namespace = platform.node().replace("-", "_"), 0
    return f"{_PREFIX}-{os.getuid()}-{boot}-{namespace}-"


def _read(path: str) -> str:
    with open(path, errors="replace") as file:  # names of processes may be any bytes
        return file.read()


def _start_time(pid: int) -> str:
    """When a process started, as text to compare; "" when there is no such process."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if os.path.isdir("/proc/self") else _start_time_elsewhere(pid)
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _start_time_elsewhere(pid: int) -> str:
    import psutil

    try:
        return str(int(psutil.Process(pid).create_time()))
    except psutil.NoSuchProcess:
        return ""
