"""Files that others can rely on: private, written whole or not at all, and plain when opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fanfold.errors import NoSpace, RunDamaged, RunReadOnly

__all__ = ["AppendFile", "create", "open_file", "replace", "sync_folder", "writing"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_WRITE_LIMIT = 1 << 30  # one write() moves less than 2 GiB

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe must not block

Data = bytes | memoryview


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, an `OSError` says what is to be done: `NoSpace`, `RunReadOnly` or `RunDamaged`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(
                error.errno,
                f"no room to write {path}: free some space, or raise the limit, and run it again; "
                "what is recorded is kept",
            ) from error
        if error.errno in _FORBIDDEN:
            raise RunReadOnly(
                f"{path} cannot be written ({error.strerror}): ask its owner for the permission, "
                "or choose another folder with --dir"
            ) from error
        if error.errno in _GONE:
            raise RunDamaged(
                f"{path} cannot be written: its folder was moved or removed; put it back, and run "
                "it again"
            ) from error
        if error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


class AppendFile:
    """A new file that this object alone writes, at its end; ``head`` is how it begins.

    What `append` is given is there whole or not at all: what a full disk has cut off is removed.
    After a failed `sync` nothing more can be written, for nobody knows what of it is on the disk.
    Raises FileExistsError when there is such a file.
    """

    def __init__(self, path: Path, head: Data) -> None:
        self.path = path
        self.size = 0
        self._torn = False
        self._failure: OSError | None = None
        with writing(path):
            self._descriptor = _open_new(path)
        try:
            self.append(head)
            self.sync()
            with writing(path):
                sync_folder(path.parent)
        except BaseException:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, *parts: Data) -> int:
        """Write all of ``parts``, or nothing; returns where they begin."""
        begin = self.size
        with writing(self.path):
            self._check()
            self._torn = True
            try:
                for part in parts:
                    _write(self._descriptor, part)
            except OSError:
                with suppress(OSError):
                    self._cut()
                raise
        self.size += sum(map(len, parts))
        self._torn = False
        return begin

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._torn:  # the last append was interrupted, or could not be undone then
            self._cut()

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self.size)
        self._torn = False

    def sync(self) -> None:
        """Have the system put it on the disk."""
        with writing(self.path):
            self._check()
            try:
                _sync_data(self._descriptor)
            except OSError as error:
                self._failure = error
                raise

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with writing(self.path):
                os.close(descriptor)


def open_file(path: Path) -> int:
    """A descriptor to read a plain file: not a link, a pipe or a folder. Raises `RunDamaged`."""
    try:
        descriptor = os.open(path, _OLD)
    except OSError as error:
        if error.errno in _GONE:
            raise RunDamaged(f"{path} is missing") from error
        if error.errno == errno.ELOOP:
            raise RunDamaged(f"{path} is a symbolic link, not a file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunDamaged(f"{path} is not a file")
    return descriptor


def create(path: Path, data: bytes) -> None:
    """Create a file that appears whole; FileExistsError when the name is taken.

    Made under another name and linked: so nobody sees it half-written, and of many that try one
    succeeds, over NFS too.
    """
    with writing(path):
        temporary, status = _write_temporary(path, data, sync=True)
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno in _NO_LINKS:  # a file system without them
                _write_new(path, data, sync=True)
            elif not _is(path, status):  # NFS: the reply to the first request may be lost
                raise
        finally:
            os.unlink(temporary)
        sync_folder(path.parent)


def replace(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Give a file new content: who reads it sees the old or the new, never a part."""
    with writing(path):
        temporary, status = _write_temporary(path, data, sync=sync)
        try:
            os.replace(temporary, path)
        except OSError:
            if not _is(path, status):  # NFS: as above
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        if sync:
            sync_folder(path.parent)


def _write_temporary(path: Path, data: bytes, *, sync: bool) -> tuple[Path, os.stat_result]:
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    return temporary, _write_new(temporary, data, sync=sync)


def _write_new(path: Path, data: bytes, *, sync: bool) -> os.stat_result:
    descriptor = _open_new(path)
    try:
        _write(descriptor, data)
        if sync:
            _sync_data(descriptor)
        return os.fstat(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _is(path: Path, status: os.stat_result) -> bool:
    """Is that file what ``path`` names?"""
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False


def _open_new(path: Path) -> int:
    descriptor = os.open(path, _NEW, 0o600)
    os.fchmod(descriptor, 0o600)  # whatever the umask
    return descriptor


def _write(descriptor: int, data: Data) -> None:
    written = os.write(descriptor, data[:_WRITE_LIMIT])
    if written < len(data):
        rest = memoryview(data)
        while written < len(rest):
            written += os.write(descriptor, rest[written : written + _WRITE_LIMIT])


def _sync_data(descriptor: int) -> None:
    getattr(os, "fdatasync", os.fsync)(descriptor)  # macOS has no fdatasync


def sync_folder(path: Path) -> None:
    """Have the system put the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(descriptor)
