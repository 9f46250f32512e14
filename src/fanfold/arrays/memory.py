"""Memory that processes share: a file that each of them maps.

Where nobody gives a path, the file lies in the folder of its owner's segments
(`fanfold.transport.segments`): in shared memory, 0700, with a name that nobody can guess, swept
when the owner is dead. Its owner is the process that made it; the name goes with the owner's last
reference. A file that somebody gave a path to is theirs, and stays.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import stat
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

from fanfold.arrays.lock import SharedLock, reopen
from fanfold.errors import NoSpace, SharedGone, UsageError
from fanfold.transport.segments import Segment, release, sharing_folder

__all__ = ["Mapping", "Pieces", "Place", "attach", "create", "place_of"]

Pieces = Callable[[], Iterable[bytes | memoryview]]
"""Makes the content of a file, anew for each try."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WRITE_LIMIT = 1 << 30  # one write() moves less than 2 GiB


class Place(NamedTuple):
    """Where shared memory is: what a handle carries.

    ``user`` owns the file; ``owner`` is the process on ``host`` that keeps it, 0 for a file with a
    path of its user's choice, which any host may see.
    """

    path: str
    user: int
    owner: int = 0
    host: str = ""

    def is_memory(self) -> bool:
        """Is it in shared memory, and in no file system that nodes might share?"""
        return self.owner != 0 and self.path.startswith("/dev/shm/")  # noqa: S108


class Mapping(mmap.mmap):
    """The bytes of a shared file in this process: one mapping, for all that look at it.

    ``lock`` is None in a mapping that is only read.
    """

    place: Place
    lock: SharedLock | None = None
    closed_by_owner = False
    _removal: weakref.finalize[..., object] | None = None

    def let_go(self) -> None:
        """Remove the name: nobody can attach any more. Does nothing but in the owner."""
        if self._removal is not None:
            self._removal()
            self.closed_by_owner = True

    def handle(self) -> Place:
        """What another process attaches to. Raises `SharedGone` when it could not."""
        if self.closed_by_owner:
            raise SharedGone(
                f"{self.place.path} has been closed, so it cannot be sent: close it after the work"
            )
        return self.place


def _remove(place: Place) -> None:
    if os.getpid() == place.owner:  # and not a forked child, which has a copy of everything
        release(Segment(place.path, 0))


# Writing


def create(
    pieces: Pieces, size: int, path: str | os.PathLike[str] | None, *, writable: bool
) -> Mapping:
    """Make a shared file of ``size`` bytes, and map it: at ``path``, or where this process keeps
    its segments. Then its name goes with the mapping. Raises `UsageError` and `NoSpace`.
    """
    place = _write_segment(pieces, size) if path is None else _write_path(path, pieces)
    try:
        if path is None:
            _tell_where(place, size)
        mapping = attach(place, writable=writable)
    except BaseException:
        os.unlink(place.path)
        raise
    if path is None:
        mapping._removal = weakref.finalize(mapping, _remove, place)
    return mapping


def _write_segment(pieces: Pieces, size: int) -> Place:
    """Make a file of ``size`` bytes in shared memory; on disk where that is full.

    It is written, not mapped and touched: what is full is an error here and no SIGBUS later.
    Raises `NoSpace`.
    """
    folder = sharing_folder()
    name = folder.new_name()
    told = []
    for root in folder.roots:
        path = os.path.join(root, name)
        told.append(_room(os.path.dirname(root)))
        user = _write(path, pieces, private=True) if _free(root) >= size else None
        if user is not None:
            return Place(path, user, os.getpid(), socket.gethostname())
    raise NoSpace(
        errno.ENOSPC,
        f"no room for {_size(size)}: {', '.join(told)}; free some, set TMPDIR to a larger "
        "disk, or share it with path= on one",
    )


def _tell_where(place: Place, size: int) -> None:
    """Warn when a segment lies on disk, because shared memory is too small for it."""
    wanted, found = (os.path.dirname(root) for root in (_first_root(), os.path.dirname(place.path)))
    if found != wanted:
        warnings.warn(
            f"no room for {_size(size)} of shared memory ({_room(wanted)}): they lie in a "
            f"file in {found}, which may be slower",
            RuntimeWarning,
            stacklevel=4,
        )


def _first_root() -> str:
    return sharing_folder().roots[0]


def _room(folder: str) -> str:
    return f"{folder} has {_size(_free(folder))} free"


def _size(size: int) -> str:
    from fanfold.units import format_size  # late: it would be a third of what attaching imports

    return format_size(size)


def _free(folder: str) -> int:
    status = os.statvfs(folder)
    if status.f_blocks == 0:  # a tmpfs without a limit
        return 1 << 62
    return status.f_bavail * status.f_frsize


def _write_path(path: str | os.PathLike[str], pieces: Pieces) -> Place:
    """Make a file that its user keeps. Raises `UsageError` when there is one, and `NoSpace`."""
    full = os.path.abspath(os.fspath(path))
    try:
        user = _write(full, pieces, private=False)
        if user is None:
            raise NoSpace(errno.ENOSPC, f"no room for {full}: {_room(os.path.dirname(full))}")
    except FileExistsError:
        raise UsageError(
            f"{full} exists: remove it, choose another path, or share what it holds by open()"
        ) from None
    except NoSpace:
        raise
    except OSError as error:
        raise UsageError(
            f"cannot make {full}: {error.strerror}; choose a path in a folder that you can write"
        ) from error
    return Place(full, user)


def _write(path: str, pieces: Pieces, *, private: bool) -> int | None:
    """Write a new file, whole or not at all; the user that owns it, None when there is no room."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600 if private else 0o666)
    try:
        if private:
            os.fchmod(descriptor, 0o600)  # whatever the umask
        for piece in pieces():
            for start in range(0, len(piece), _WRITE_LIMIT):
                _write_all(descriptor, memoryview(piece)[start : start + _WRITE_LIMIT])
        if not private:  # a network file system may tell only now that it is full
            os.fsync(descriptor)
        return os.fstat(descriptor).st_uid
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError) and error.errno in _FULL:
            return None
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


# Attaching

_mappings: weakref.WeakValueDictionary[tuple[int, int, bool], Mapping] = (
    weakref.WeakValueDictionary()
)
_guard = threading.RLock()


def _start_in_child() -> None:
    global _guard
    _guard = threading.RLock()


os.register_at_fork(after_in_child=_start_in_child)


def place_of(path: str | os.PathLike[str]) -> Place:
    """The place of a file that somebody has put there. Raises `UsageError` when nobody has."""
    full = os.path.realpath(path)
    try:
        status = os.stat(full)
    except OSError as error:
        raise UsageError(
            f"cannot open {full}: {error.strerror}; give the path that it was shared with"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{full} is no file: give the path that it was shared with")
    return Place(full, status.st_uid)


def attach(place: Place, *, writable: bool) -> Mapping:
    """Map a shared file, once a process. Raises `SharedGone`."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in its place cannot hold us up
    try:
        descriptor = os.open(place.path, flags | (os.O_RDWR if writable else os.O_RDONLY))
    except OSError as error:
        _tell_why_not(place, error)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != place.user:
            raise SharedGone(f"{place.path} is not the file that was shared: somebody replaced it")
        key = (status.st_dev, status.st_ino, writable)
        with _guard:
            mapping = _mappings.get(key)
            if mapping is None:
                mapping = _mappings[key] = _map(descriptor, status.st_size, place, writable)
            return mapping
    finally:
        os.close(descriptor)


def _map(descriptor: int, size: int, place: Place, writable: bool) -> Mapping:
    if size == 0:
        raise SharedGone(f"{place.path} is empty: it has been cut since it was shared")
    mapping = Mapping(descriptor, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    mapping.place = place
    if writable:
        mapping.lock = SharedLock(reopen(descriptor, place.path), mapping, place.path)
    return mapping


def _tell_why_not(place: Place, error: OSError) -> NoReturn:
    here = socket.gethostname()
    if error.errno == errno.ELOOP:
        reason = "is not the file that was shared: somebody has put a link in its place"
    elif error.errno != errno.ENOENT:
        reason = f"cannot be opened: {error.strerror}"
    elif not place.owner:
        reason = f"is not there on {here}: choose a path that every node sees"
    elif place.host != here:
        reason = (
            f"is memory of {place.host}, which {here} cannot see: share it with path=, a file "
            "that every node sees"
        )
    else:
        reason = (
            f"is gone: its owner, process {place.owner}, has closed it, dropped its last reference "
            "or ended; keep it there until the work is done"
        )
    raise SharedGone(f"{place.path} {reason}") from error
