"""What the tasks of a run ended with, read from its packs."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

from fanfold.errors import LoadFailed, RemoteError, RemoteTraceback, RunDamaged
from fanfold.runs.frames import Frames
from fanfold.runs.state import DONE, MISSING, State, Where
from fanfold.store.directory import RunDirectory
from fanfold.store.pack import Frame

__all__ = ["Results", "exception_of", "loaded_from"]

_REMEMBERED = 8  # frames that are kept loaded


class Results:
    """Reads values and exceptions by the index of their task. A context manager.

    Raises `RunUntrusted` where somebody else could have written what is to be unpickled.
    """

    def __init__(self, directory: RunDirectory, state: State, run: str, *, trust: bool) -> None:
        directory.check_private(trust)
        self._state = state
        self._frames = Frames(directory, run)
        self._loaded: OrderedDict[tuple[int, int, int], Any] = OrderedDict()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._frames.__exit__()

    def values(self) -> list[Any]:
        """Every value, in order, frame by frame; there must be one of every task."""
        found: list[Any] = []
        while len(found) < self._state.total:
            where, offset = self._state.where(len(found))
            loaded = self._load(where, len(found))
            part = loaded[offset:]
            together = self._state.from_frame(len(found), len(part))
            found += part if together else part[:1]
        return found

    def get(self, index: int) -> Any:
        """The value of a task, the exception that it failed with, or None when it is missing."""
        status = self._state.status[index]
        if status == MISSING:
            return None
        where, offset = self._state.where(index)
        loaded = self._load(where, index)
        return loaded[offset] if status == DONE else exception_of(*loaded)

    def _load(self, where: Where, index: int) -> Any:
        key = where.element, where.attempt, where.place[0]
        if key in self._loaded:
            return self._loaded[key]
        try:
            frame = self._frames.read(where)
        except RunDamaged as error:
            raise RunDamaged(f"{error}; retry() (fanfold retry) runs its tasks again") from error
        self._loaded[key] = loaded_from(frame, index)
        if len(self._loaded) > _REMEMBERED:
            self._loaded.popitem(last=False)
        return self._loaded[key]


def loaded_from(frame: Frame, index: int) -> Any:
    """What a frame holds. Raises `LoadFailed`, of the task ``index``."""
    try:
        return pickle.loads(frame.payload)
    except Exception as error:
        failed = LoadFailed(f"the result cannot be loaded here: {type(error).__name__}: {error}")
        failed.index = index
        raise failed from error


def exception_of(error: BaseException | None, text: str) -> BaseException:
    """The exception again, with its traceback as its cause."""
    if error is None:
        last = text.strip().splitlines()[-1] if text.strip() else "unknown"
        error = RemoteError(last, original_type=last.partition(":")[0])
    error.__cause__ = RemoteTraceback(text)
    return error
