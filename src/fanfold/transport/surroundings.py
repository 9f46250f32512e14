"""What a worker must know of the driver's interpreter to load what it is sent."""

from __future__ import annotations

import sys
from typing import NamedTuple

__all__ = ["Surroundings", "surroundings"]


class Surroundings(NamedTuple):
    """``path`` is ``sys.path``. ``authkey`` lets proxies of multiprocessing's managers in; None
    where multiprocessing is not loaded."""

    path: list[str]
    authkey: bytes | None


def surroundings() -> Surroundings:
    """Those of this process, now."""
    multiprocessing = sys.modules.get("multiprocessing")
    key = bytes(multiprocessing.current_process().authkey) if multiprocessing else None
    return Surroundings(list(sys.path), key)
