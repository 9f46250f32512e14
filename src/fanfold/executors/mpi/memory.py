"""The named memory of MPI: ranks share it, and leave it behind when they are killed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache

__all__ = ["forget", "named_memory"]


@cache
def named_memory() -> list[str]:
    """The paths of what this process had mapped of ``/dev/shm`` when it asked first: so early that
    it was MPI's, and nobody else's."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            paths = {line.split(maxsplit=5)[-1].strip() for line in file}
    except OSError:  # not Linux
        return []
    return sorted(path for path in paths if os.path.dirname(path) == "/dev/shm")  # noqa: S108


def forget(paths: Iterable[str]) -> None:
    """Remove their names: the memory is freed with the last process that has it."""
    for path in paths:
        with suppress(OSError):  # it has been removed, as it should be
            os.unlink(path)
