"""Executors of other distributions, which name them in the entry point group `fanfold.executors`.

In the ``pyproject.toml`` of such a distribution::

    [project.entry-points."fanfold.executors"]
    mycluster = "mypackage.executor:MyExecutor"

``MyExecutor`` is a subclass of `fanfold.executors.base.Executor` whose first parameter is the
number of workers, or None. Then ``on="mycluster"`` works wherever ``on="processes"`` does. The
names of fanfold's own executors cannot be taken.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from fanfold.errors import UsageError
from fanfold.executors.base import Executor

__all__ = ["load", "names"]


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="fanfold.executors")}


def names() -> list[str]:
    """The names that installed distributions bring, looked up once a process."""
    return sorted(_points())


def load(name: str) -> type[Executor]:
    """The class of that name. Raises `UsageError` when it cannot be imported or is no executor."""
    point = _points()[name]
    owner = point.dist.name if point.dist is not None else "an installed distribution"
    try:
        kind = point.load()
    except Exception as error:
        raise UsageError(
            f"on={name!r} is {point.value} of {owner}, which cannot be imported: "
            f"{type(error).__name__}: {error}. Repair or reinstall {owner}"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Executor)):
        raise UsageError(
            f"on={name!r} is {point.value} of {owner}, which is no subclass of "
            "fanfold.executors.base.Executor: its author has to make it one"
        )
    return kind
