"""The task that is tried in every place; workers import no more than this."""

from __future__ import annotations

import os

__all__ = ["whereabouts"]


def whereabouts(_: int) -> str:
    """The name of the machine that it runs on."""
    return os.uname().nodename
