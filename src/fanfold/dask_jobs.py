"""Dask on the jobs of a scheduler, asked for with the same `Resources` as everything else."""

from __future__ import annotations

import signal
import threading
from importlib import import_module
from typing import Any

from fanfold.errors import UsageError
from fanfold.extras import need
from fanfold.resources import Resources
from fanfold.schedulers.scripts.writing import directives
from fanfold.units import parse_size

__all__ = ["dask_cluster"]

_KINDS = {"slurm": ("SLURMCluster", "#SBATCH"), "pbs": ("PBSCluster", "#PBS")}


def dask_cluster(
    on: str = "slurm",
    resources: Resources | None = None,
    *,
    jobs: int | None = None,
    cores: int | None = None,
    memory: str | int | None = None,
    adaptive: bool = False,
    name: str = "dask",
    **options: Any,
) -> Any:
    """A Dask cluster whose workers are jobs of Slurm or PBS; dask-jobqueue's own kind of object.

    ``resources`` is what each job asks for: ``cores`` workers of one thread each share its
    ``memory``, which must be said, and one worker with all of the job's cores where there are
    ``gpus``. How many jobs there are in all is said by one of ``jobs``, ``cores`` and ``memory``
    (``"200GB"``): so many are submitted at once, or, when it is ``adaptive``, as many of them as
    there is work for. Without any, `scale` and `adapt` of the cluster are yours to call.
    ``name`` is that of the jobs; other ``options`` go to ``dask_jobqueue.SLURMCluster`` or
    ``PBSCluster``, such as ``interface="ib0"`` or ``log_directory``.

    The cluster is a place for ``on=``, and what ``distributed.Client`` takes; ``job_script()``
    shows what is submitted; ``close()``, or leaving a with block, ends its jobs. The scheduler of
    Dask runs in this process, which the nodes must be able to reach.

    Raises `UsageError` for what cannot be asked for, and where dask-jobqueue is not installed.

    >>> asked = Resources(cores=4, memory="8GB", walltime="1h", queue="long")
    >>> with dask_cluster("slurm", asked) as cluster:
    ...     print(*cluster.job_script().splitlines()[1:6], sep="\\n")
    #SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --mem=8G
    #SBATCH --time=01:00:00
    #SBATCH --partition=long
    #SBATCH --job-name=dask
    <BLANKLINE>
    """
    need("dask_jobqueue", "dask", "ff.dask_cluster")
    size = _size(jobs, cores, memory)
    if adaptive and not size:
        raise UsageError("adaptive=True needs a limit: jobs=10, cores=48 or memory='200GB'")
    cluster = _make(on, _checked(resources), name, options)
    try:
        if adaptive:
            cluster.adapt(**{f"maximum_{unit}": amount for unit, amount in size.items()})
        elif size:
            cluster.scale(**{"n": 0 if "jobs" not in size else None, **size})
    except BaseException:
        cluster.close()
        raise
    return cluster


def _size(jobs: int | None, cores: int | None, memory: str | int | None) -> dict[str, Any]:
    """How large the cluster shall be, as dask-jobqueue calls it."""
    given = {"jobs": jobs, "cores": cores, "memory": memory}
    asked = {unit: amount for unit, amount in given.items() if amount is not None}
    if len(asked) > 1:
        raise UsageError(f"say one of jobs, cores and memory, not {' and '.join(asked)}")
    for unit, amount in asked.items():
        if unit == "memory" and isinstance(amount, str):
            asked[unit] = f"{parse_size(amount)}B"
        elif isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
            raise UsageError(f"{unit} must be a whole number from 1, not {amount!r}")
        elif unit == "memory":
            asked[unit] = f"{amount}B"
    return asked


def _checked(resources: Resources | None) -> Resources:
    example = 'ff.Resources(cores=4, memory="8GB", walltime="1h")'
    if resources is None:
        raise UsageError(f"say what each job asks for: resources={example}")
    if resources.memory is None:
        raise UsageError(f"Dask divides the memory of a job among its workers: say it, {example}")
    if resources.nodes > 1:
        raise UsageError(
            f"a Dask worker is on one node: ask for jobs={resources.nodes} of nodes=1, not for "
            f"nodes={resources.nodes}"
        )
    return resources


def _jobqueue() -> Any:
    """The package. When it is imported it takes Ctrl-C for itself (0.9, runner.py): not here."""
    mine = signal.getsignal(signal.SIGINT)
    try:
        return import_module("dask_jobqueue")
    except ValueError as error:
        raise UsageError(
            "dask-jobqueue can be imported in the main thread only: call ff.dask_cluster there"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread() and mine is not None:
            signal.signal(signal.SIGINT, mine)


def _make(on: str, resources: Resources, name: str, options: dict[str, Any]) -> Any:
    if on not in _KINDS:
        raise UsageError(f"on= takes {' or '.join(map(repr, _KINDS))}, not {on!r}")
    dask_jobqueue = _jobqueue()
    kind, prefix = _KINDS[on]
    lines = [line.removeprefix(prefix).strip() for line in directives(resources, on)]
    lines += _named(on, name, options.get("log_directory"))
    cluster = getattr(dask_jobqueue, kind)
    return cluster(
        job_cls=_told(cluster.job_cls),
        cores=resources.cores,
        processes=1 if resources.gpus else resources.cores,
        memory=f"{resources.memory}B",
        job_name=name,
        job_directives_skip=[prefix],  # ours say the same, and all that it does not know of
        job_extra_directives=[*lines, *options.pop("job_extra_directives", [])],
        scheduler_options={"dashboard_address": ":0", **options.pop("scheduler_options", {})},
        **options,
    )


def _told(kind: Any) -> Any:
    """Such a job, that fails when it is refused: Dask else takes it for one that is to come."""
    from distributed.core import Status

    class Job(kind):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                self.refusal = "; ".join(str(error).rpartition("stderr:")[2].strip().splitlines())
                self.status = Status.failed
                raise

    return Job


def _named(on: str, name: str, folder: str | None) -> list[str]:
    """The name of the jobs, and the folder that gets what they print (None: where they begin)."""
    if on == "pbs":
        return [f"-N {name}", *([f"-o {folder}/", f"-e {folder}/"] if folder else [])]
    return [f"--job-name={name}", *([f"--output={folder}/{name}-%j.out"] if folder else [])]
