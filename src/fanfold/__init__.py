"""fanfold: run a function over many inputs on every core you can reach, and fold the results back.

The house, from the roof down; imports go down only (docs/design/architecture.md):

    cli, testing                    commands; public test kits
    doctor, studies, blocks         what works here; how a function scales; arrays beyond memory
    runs, adapters                  durable maps; fanfold inside other people's tools
    api, dispatch, inputs, progress the front door; drives any executor; draws
    reports, explanations           what happened, drawn; what would happen, in sentences
    programs, mpi_programs          tasks that are programs; MPI programs from Python
    dask_jobs                       Dask clusters whose workers are jobs
    executors                       the places where tasks run, one thin file each
    store, arrays                   what survives a crash; memory that workers share
    transport, schedulers           bytes between processes; the scripts of Slurm and PBS
    expressions                     arrays element by element, tile after tile
    errors, extras, units, mailbox, resources, devices, tasks, seeds, folding, history, costs
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fanfold.adapters.joblib import register_joblib as register_joblib
    from fanfold.adapters.pool import Pool as Pool
    from fanfold.api import executor as executor
    from fanfold.api import imap as imap
    from fanfold.api import imap_unordered as imap_unordered
    from fanfold.api import map as map  # noqa: A004 - ff.map is the promise of the public face
    from fanfold.api import map_reduce as map_reduce
    from fanfold.api import starmap as starmap
    from fanfold.arrays.array import SharedArray as SharedArray
    from fanfold.arrays.array import share as share
    from fanfold.arrays.value import SharedValue as SharedValue
    from fanfold.blocks.blocks import Blocks as Blocks
    from fanfold.dask_jobs import dask_cluster as dask_cluster
    from fanfold.errors import CommandFailed as CommandFailed
    from fanfold.errors import EngineLost as EngineLost
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
    from fanfold.errors import SchedulerDown as SchedulerDown
    from fanfold.errors import SchedulerError as SchedulerError
    from fanfold.errors import SchedulerFull as SchedulerFull
    from fanfold.errors import SharedGone as SharedGone
    from fanfold.errors import SourceChanged as SourceChanged
    from fanfold.errors import SubmitRefused as SubmitRefused
    from fanfold.errors import SubmitUnknown as SubmitUnknown
    from fanfold.errors import TaskError as TaskError
    from fanfold.errors import TaskLost as TaskLost
    from fanfold.errors import TaskMissing as TaskMissing
    from fanfold.errors import TaskStalled as TaskStalled
    from fanfold.errors import TaskTimeout as TaskTimeout
    from fanfold.errors import TaskTooLarge as TaskTooLarge
    from fanfold.errors import UnsafeFolder as UnsafeFolder
    from fanfold.errors import UsageError as UsageError
    from fanfold.errors import WorkerDied as WorkerDied
    from fanfold.executors.base import StartupFailed as StartupFailed
    from fanfold.executors.dask.executor import DaskExecutor as DaskExecutor
    from fanfold.executors.interpreters import InterpreterExecutor as InterpreterExecutor
    from fanfold.executors.ipython.executor import EngineExecutor as EngineExecutor
    from fanfold.executors.mpi.executor import MPIExecutor as MPIExecutor
    from fanfold.executors.processes import ProcessExecutor as ProcessExecutor
    from fanfold.executors.serial import SerialExecutor as SerialExecutor
    from fanfold.executors.threads import ThreadExecutor as ThreadExecutor
    from fanfold.explanations import Explanation as Explanation
    from fanfold.explanations import explain as explain
    from fanfold.expressions.front import evaluate as evaluate
    from fanfold.mpi_programs import spmd as spmd
    from fanfold.programs import command as command
    from fanfold.resources import Resources as Resources
    from fanfold.resources import cores as cores
    from fanfold.runs.batch import ArrayExecutor as ArrayExecutor
    from fanfold.runs.begin import run as run
    from fanfold.runs.run import Run as Run
    from fanfold.seeds import rng as rng
    from fanfold.studies.scale import scaling as scaling
    from fanfold.studies.study import ScalingStudy as ScalingStudy

# Loaded when first used: `import fanfold` costs milliseconds, and never imports NumPy.
_HOMES = {
    "fanfold.adapters.joblib": ("register_joblib",),
    "fanfold.adapters.pool": ("Pool",),
    "fanfold.api": ("executor", "imap", "imap_unordered", "map", "map_reduce", "starmap"),
    "fanfold.arrays.array": ("SharedArray", "share"),
    "fanfold.arrays.value": ("SharedValue",),
    "fanfold.blocks.blocks": ("Blocks",),
    "fanfold.dask_jobs": ("dask_cluster",),
    "fanfold.errors": (
        "CommandFailed",
        "EngineLost",
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
        "SchedulerDown",
        "SchedulerError",
        "SchedulerFull",
        "SharedGone",
        "SourceChanged",
        "SubmitRefused",
        "SubmitUnknown",
        "TaskError",
        "TaskLost",
        "TaskMissing",
        "TaskStalled",
        "TaskTimeout",
        "TaskTooLarge",
        "UnsafeFolder",
        "UsageError",
        "WorkerDied",
    ),
    "fanfold.executors.base": ("StartupFailed",),
    "fanfold.executors.dask.executor": ("DaskExecutor",),
    "fanfold.executors.interpreters": ("InterpreterExecutor",),
    "fanfold.executors.ipython.executor": ("EngineExecutor",),
    "fanfold.executors.mpi.executor": ("MPIExecutor",),
    "fanfold.executors.processes": ("ProcessExecutor",),
    "fanfold.executors.serial": ("SerialExecutor",),
    "fanfold.executors.threads": ("ThreadExecutor",),
    "fanfold.explanations": ("Explanation", "explain"),
    "fanfold.expressions.front": ("evaluate",),
    "fanfold.mpi_programs": ("spmd",),
    "fanfold.programs": ("command",),
    "fanfold.resources": ("Resources", "cores"),
    "fanfold.runs.batch": ("ArrayExecutor",),
    "fanfold.runs.begin": ("run",),
    "fanfold.runs.run": ("Run",),
    "fanfold.seeds": ("rng",),
    "fanfold.studies.scale": ("scaling",),
    "fanfold.studies.study": ("ScalingStudy",),
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
