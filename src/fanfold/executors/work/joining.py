"""Waiting for threads whose start may have been interrupted."""

from __future__ import annotations

import threading
from time import monotonic, sleep

__all__ = ["join"]

_MOMENT = 1.0  # seconds in which a thread begins, if it ever does


def join(thread: threading.Thread) -> None:
    """Wait for its end. A Ctrl-C may have come while it was started: then it begins a moment later,
    or never.

    >>> thread = threading.Thread(target=sleep, args=(0.01,))
    >>> thread.start()
    >>> join(thread)
    >>> thread.is_alive()
    False
    """
    deadline = monotonic() + _MOMENT
    while True:
        try:
            return thread.join()
        except RuntimeError:  # it has not begun
            if monotonic() > deadline:
                return None
            sleep(0.001)
