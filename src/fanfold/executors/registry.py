"""The executors by name; each is imported when it is first asked for.

Other distributions may bring more: see `fanfold.executors.plugins`.
"""

from __future__ import annotations

import concurrent.futures
import difflib
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fanfold.errors import UsageError
from fanfold.executors.base import Executor

__all__ = ["EXECUTORS", "check", "make", "prepare", "resolve"]

EXECUTORS = {
    "serial": "fanfold.executors.serial:SerialExecutor",
    "threads": "fanfold.executors.threads:ThreadExecutor",
    "interpreters": "fanfold.executors.interpreters:InterpreterExecutor",
    "processes": "fanfold.executors.processes:ProcessExecutor",
    "mpi": "fanfold.executors.mpi.executor:MPIExecutor",
    "dask": "fanfold.executors.dask.executor:DaskExecutor",
    "ipyparallel": "fanfold.executors.ipython.executor:EngineExecutor",
    "slurm": "fanfold.runs.batch:SlurmExecutor",
    "pbs": "fanfold.runs.batch:PBSExecutor",
}

#: Whose clients, views and clusters are taken as they are: the package, and the executor.
_CLIENTS = {"distributed": "dask", "ipyparallel": "ipyparallel"}


_SCHEDULERS = ("slurm", "pbs")


def check(on: object) -> None:
    """Raises `UsageError` when ``on`` is neither a known name nor an executor."""
    if isinstance(on, (tuple, list)):
        _allowed(on)
        return
    if _engine_of(on) is not None:
        return
    if isinstance(on, str):
        if on != "auto" and on not in EXECUTORS and on not in _plugins():
            raise UsageError(f"on={on!r} is no place that fanfold knows{_suggestion(on)}")
    elif not isinstance(on, concurrent.futures.Executor):
        hint = ": make one, with brackets after the name" if isinstance(on, type) else ""
        raise UsageError(f"on= takes {_names()} or an executor, not {on!r}{hint}")


def make(name: str, workers: int | None = None, **options: Any) -> Executor:
    """A new executor of the registered kind. Raises `UsageError` for an unknown name."""
    check(name)
    executor: Executor = _kind(name)(workers, **options)
    return executor


def prepare(name: str) -> None:
    """Begin without waiting, where that takes a while, what an executor of this name will need."""
    if name == "processes":
        from fanfold.executors.pool import launcher

        launcher.prepare()


def _engine_of(on: object) -> str | None:
    """The executor that takes ``on`` as its client: an object of an engine, or an address."""
    if isinstance(on, str):
        return "dask" if "://" in on else None
    if isinstance(on, (type, concurrent.futures.Executor)):
        return None
    packages = [kind.__module__.partition(".")[0] for kind in type(on).__mro__]
    return next((_CLIENTS[package] for package in packages if package in _CLIENTS), None)


def _kind(name: str) -> Any:
    if name in EXECUTORS:
        module, _, kind = EXECUTORS[name].partition(":")
        return getattr(import_module(module), kind)
    from fanfold.executors import plugins

    return plugins.load(name)


def _plugins() -> list[str]:
    from fanfold.executors import plugins

    return plugins.names()


def resolve(on: object, workers: int | None, total: int | None = None) -> tuple[Executor, bool]:
    """The executor that ``on=`` means, and whether it was made here and is ours to shut down.

    ``total`` tasks will come (None: nobody knows): "auto" goes by it.
    """
    if on == "auto" or isinstance(on, (tuple, list)):
        from fanfold.executors.auto.executor import AutoExecutor

        allowed = _allowed(on) if isinstance(on, (tuple, list)) else None
        return AutoExecutor(workers, total=total, allowed=allowed), True
    check(on)
    engine = _engine_of(on)
    if engine is not None:
        return make(engine, workers, client=on), True
    if isinstance(on, str):
        return make(on, workers), True
    if isinstance(on, Executor):
        return on, False
    from fanfold.executors.foreign import ForeignExecutor

    assert isinstance(on, concurrent.futures.Executor)  # noqa: S101 - checked above
    return ForeignExecutor(on, workers), True


def _allowed(places: Sequence[object]) -> Executor | str:
    """The scheduler in ("auto", scheduler)."""
    match places:
        case ["auto", str() as name] if name in _SCHEDULERS:
            return name
        case ["auto", Executor() as pool] if pool.name in _SCHEDULERS:
            return pool
    raise UsageError(
        f"on={places!r} is no choice of places: say on='auto', or allow it one scheduler as well: "
        'on=("auto", "slurm"), on=("auto", ff.ArrayExecutor(scheduler="pbs", elements=10))'
    )


def _names() -> str:
    return ", ".join(repr(name) for name in ("auto", *EXECUTORS, *_plugins()))


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, ["auto", *EXECUTORS, *_plugins()], n=1)
    meant = f": did you mean {close[0]!r}?" if close else "."
    return f"{meant} There are {_names()}"
