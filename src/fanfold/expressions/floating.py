"""Overflow, division by zero and the like: noted in all threads, told once, as NumPy would.

`numpy.errstate` of the caller decides what is told, and whether as a warning or as an error.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

__all__ = ["Events"]

# NumPy's bits and words for what can happen, the keys of `numpy.errstate`, and how to have it
# happen again: to print, log or raise is then left to NumPy.
_KINDS: dict[int, tuple[str, str, Callable[[], Any]]] = {
    1: ("divide", "divide by zero", lambda: np.divide(np.ones(1), 0)),
    2: ("over", "overflow", lambda: np.multiply(np.full(1, 1e200), 1e200)),
    4: ("under", "underflow", lambda: np.multiply(np.full(1, 1e-200), 1e-200)),
    8: ("invalid", "invalid value", lambda: np.subtract(np.full(1, np.inf), np.inf)),
}
_HERE = str(Path(__file__).parent)


class Events:
    """What has happened in the threads of one evaluation, as NumPy's bits."""

    def __init__(self) -> None:
        self.seen = 0
        self._asked: dict[str, Any] = dict(np.geterr())
        self._lock = threading.Lock()

    def note(self, bits: int) -> None:
        """Remember these; may be called from any thread."""
        if bits & ~self.seen:
            with self._lock:
                self.seen |= bits

    @contextmanager
    def noted(self) -> Iterator[None]:
        """What happens in the block, in this thread, is noted and nothing else."""
        modes: dict[str, Any] = {
            key: "ignore" if mode == "ignore" else "call" for key, mode in self._asked.items()
        }
        with np.errstate(call=lambda _, bits: self.note(bits), **modes):
            yield

    def tell(self) -> None:
        """Warn, raise, print or log, as the caller's `numpy.errstate` says; nothing twice."""
        seen, self.seen = self.seen, 0
        for bit, (key, words, again) in _KINDS.items():
            if not seen & bit or self._asked[key] == "ignore":
                continue
            if self._asked[key] == "warn":
                message = f"{words} encountered in evaluate"
                warnings.warn(message, RuntimeWarning, stacklevel=_outside())
            else:
                again()


def _outside() -> int:
    """How many frames above `Events.tell` the code of the user is."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame):
        level, frame = level + 1, frame.f_back
    return level


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_HERE)
