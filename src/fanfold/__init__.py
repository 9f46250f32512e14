"""fanfold: run a function over many inputs on every core you can reach, and fold the results back.

The house, from the ground up; imports go down only (docs/design/architecture.md):

    cli, testing                    commands; public test kits
    runs                            durable maps
    api, dispatch, progress         the front door; drives any executor; draws
    reports                         what happened in a run, drawn
    executors                       the places where tasks run, one thin file each
    store                           what survives a crash
    transport, schedulers           bytes between processes; the scripts of Slurm and PBS
    errors, units, resources, tasks, seeds, folding, history
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fanfold.api import executor as executor
    from fanfold.api import imap as imap
    from fanfold.api import imap_unordered as imap_unordered
    from fanfold.api import map as map  # noqa: A004 - ff.map is the promise of the public face
    from fanfold.api import map_reduce as map_reduce
    from fanfold.api import starmap as starmap
    from fanfold.errors import FanfoldError as FanfoldError
    from fanfold.errors import LoadFailed as LoadFailed
    from fanfold.errors import NoSpace as NoSpace
    from fanfold.errors import NotSerializable as NotSerializable
    from fanfold.errors import PoolClosed as PoolClosed
    from fanfold.errors import RemoteError as RemoteError
    from fanfold.errors import RunBusy as RunBusy
    from fanfold.errors import RunCancelled as RunCancelled
    from fanfold.errors import RunChanged as RunChanged
    from fanfold.errors import RunDamaged as RunDamaged
    from fanfold.errors import RunError as RunError
    from fanfold.errors import RunNotFound as RunNotFound
    from fanfold.errors import RunReadOnly as RunReadOnly
    from fanfold.errors import RunSuperseded as RunSuperseded
    from fanfold.errors import RunTooNew as RunTooNew
    from fanfold.errors import RunUnfinished as RunUnfinished
    from fanfold.errors import RunUntrusted as RunUntrusted
    from fanfold.errors import TaskError as TaskError
    from fanfold.errors import TaskLost as TaskLost
    from fanfold.errors import TaskMissing as TaskMissing
    from fanfold.errors import TaskStalled as TaskStalled
    from fanfold.errors import TaskTimeout as TaskTimeout
    from fanfold.errors import UnsafeFolder as UnsafeFolder
    from fanfold.errors import UsageError as UsageError
    from fanfold.errors import WorkerDied as WorkerDied
    from fanfold.executors.base import StartupFailed as StartupFailed
    from fanfold.executors.processes import ProcessExecutor as ProcessExecutor
    from fanfold.executors.serial import SerialExecutor as SerialExecutor
    from fanfold.executors.threads import ThreadExecutor as ThreadExecutor
    from fanfold.resources import Resources as Resources
    from fanfold.resources import cores as cores
    from fanfold.runs.run import Run as Run
    from fanfold.runs.run import run as run
    from fanfold.seeds import rng as rng

# Loaded when first used: `import fanfold` costs milliseconds, and never imports NumPy.
_HOMES = {
    "fanfold.api": ("executor", "imap", "imap_unordered", "map", "map_reduce", "starmap"),
    "fanfold.errors": (
        "FanfoldError",
        "LoadFailed",
        "NoSpace",
        "NotSerializable",
        "PoolClosed",
        "RemoteError",
        "RunBusy",
        "RunCancelled",
        "RunChanged",
        "RunDamaged",
        "RunError",
        "RunNotFound",
        "RunReadOnly",
        "RunSuperseded",
        "RunTooNew",
        "RunUnfinished",
        "RunUntrusted",
        "TaskError",
        "TaskLost",
        "TaskMissing",
        "TaskStalled",
        "TaskTimeout",
        "UnsafeFolder",
        "UsageError",
        "WorkerDied",
    ),
    "fanfold.executors.base": ("StartupFailed",),
    "fanfold.executors.processes": ("ProcessExecutor",),
    "fanfold.executors.serial": ("SerialExecutor",),
    "fanfold.executors.threads": ("ThreadExecutor",),
    "fanfold.resources": ("Resources", "cores"),
    "fanfold.runs.run": ("Run", "run"),
    "fanfold.seeds": ("rng",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'fanfold' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
