"""The executors by name; each is imported when it is first asked for."""

from __future__ import annotations

import concurrent.futures
import difflib
from importlib import import_module
from typing import Any

from fanfold.errors import UsageError
from fanfold.executors.base import Executor

__all__ = ["EXECUTORS", "check", "make", "resolve"]

EXECUTORS = {
    "serial": "fanfold.executors.serial:SerialExecutor",
    "threads": "fanfold.executors.threads:ThreadExecutor",
    "processes": "fanfold.executors.processes:ProcessExecutor",
}


def check(on: object) -> None:
    """Raises `UsageError` when ``on`` is neither a known name nor an executor."""
    if isinstance(on, str):
        if on not in EXECUTORS:
            raise UsageError(f"on={on!r} is no place that fanfold knows{_suggestion(on)}")
    elif not isinstance(on, concurrent.futures.Executor):
        hint = ": make one, with brackets after the name" if isinstance(on, type) else ""
        raise UsageError(f"on= takes {_names()} or an executor, not {on!r}{hint}")


def make(name: str, workers: int | None = None, **options: Any) -> Executor:
    """A new executor of the registered kind. Raises `UsageError` for an unknown name."""
    check(name)
    module, _, kind = EXECUTORS[name].partition(":")
    executor: Executor = getattr(import_module(module), kind)(workers, **options)
    return executor


def resolve(on: object, workers: int | None) -> tuple[Executor, bool]:
    """The executor that ``on=`` means, and whether it was made here and is ours to shut down."""
    check(on)
    if isinstance(on, str):
        return make(on, workers), True
    if isinstance(on, Executor):
        return on, False
    from fanfold.executors.foreign import ForeignExecutor

    assert isinstance(on, concurrent.futures.Executor)  # noqa: S101 - checked above
    return ForeignExecutor(on, workers), True


def _names() -> str:
    return ", ".join(repr(name) for name in ("auto", *EXECUTORS))


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, ["auto", *EXECUTORS], n=1)
    meant = f": did you mean {close[0]!r}?" if close else "."
    return f"{meant} There are {_names()}"
