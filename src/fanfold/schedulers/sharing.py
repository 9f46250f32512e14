"""One file in which the processes that watch the same jobs share what the scheduler told."""

from __future__ import annotations

import json
import os
import stat
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from fanfold.schedulers.pace import Clock

__all__ = ["Shared"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SIZE = 1 << 28  # bytes: more is no file of ours


class Shared:
    """What was told, as JSON in the file ``path``, and whose turn it is to ask.

    It spares the scheduler, and no more: what cannot be read, is damaged, or could have been
    written by somebody else is as good as nothing, and where nothing can be written each process
    asks for itself. Who asks has the file ``path`` with the suffix ``.asking`` meanwhile; it counts
    for ``turn`` seconds, or until that process is dead.
    """

    def __init__(self, path: Path, turn: float, clock: Clock) -> None:
        self._path = path
        self._asking = path.with_suffix(".asking")
        self._turn = turn
        self._clock = clock
        self._waiting: float | None = None  # since when, for the turn

    def read(self) -> dict[str, Any] | None:
        """What was written last, or None."""
        try:
            told = json.loads(_read(self._path), parse_constant=_refuse)
            check = told.pop("check")
            return told if check == zlib.crc32(_text(told).encode()) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def write(self, told: dict[str, Any]) -> None:
        """Put it there, whole."""
        checked = {**told, "check": zlib.crc32(_text(told).encode())}
        temporary = self._path.with_name(f".{self._path.name}.{os.urandom(8).hex()}")
        with suppress(OSError):
            try:
                descriptor = os.open(temporary, _NEW, 0o600)
                with open(descriptor, "w") as stream:
                    stream.write(json.dumps(checked))
                os.replace(temporary, self._path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def take_turn(self) -> bool:
        """Whether this process may ask now; False while another does."""
        now = self._clock.monotonic()
        if self._waiting is None:
            self._waiting = now
        if now - self._waiting > self._turn or self._is_over():
            with suppress(OSError):
                self._asking.unlink()
        try:
            descriptor = os.open(self._asking, _NEW, 0o600)
        except FileExistsError:
            return False
        except OSError:  # nothing can be shared here
            pass
        else:
            with suppress(OSError), open(descriptor, "w") as stream:
                stream.write(f"{os.uname().nodename} {os.getpid()}\n")
        self._waiting = None
        return True

    def end_turn(self) -> None:
        with suppress(OSError):
            self._asking.unlink()

    def _is_over(self) -> bool:
        """Whether nobody is asking, for all the file says: who did is dead, or it is too old."""
        try:
            age = self._clock.time() - self._asking.lstat().st_mtime
            if abs(age) > self._turn:
                return True
            host, pid = _read(self._asking).decode().split()
            if host == os.uname().nodename:
                os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except (OSError, ValueError, OverflowError):
            return False
        return False


def _read(path: Path) -> bytes:
    """What a file holds. Raises `OSError` where it is not a plain file that only we can write."""
    with open(os.open(path, _READ), "rb") as stream:
        status = os.fstat(stream.fileno())
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_uid != os.geteuid()
            or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            or status.st_size > _SIZE
        ):
            raise PermissionError(f"{path} could be somebody else's")
        return stream.read()


def _text(told: dict[str, Any]) -> str:
    return json.dumps(told, sort_keys=True, allow_nan=False)


def _refuse(constant: str) -> None:
    raise ValueError(f"not JSON: {constant}")
