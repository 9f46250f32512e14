"""`fanfold.run`: a map that survives, resumes and reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from fanfold.api import check_callable, check_options
from fanfold.costs import Cost, read_costs
from fanfold.devices import gpus_each
from fanfold.dispatch import Listener
from fanfold.errors import UsageError
from fanfold.executors import registry
from fanfold.executors.base import worker_count
from fanfold.inputs import listed
from fanfold.programs import Command
from fanfold.resources import Resources, read_memory
from fanfold.runs.asked import Asked
from fanfold.runs.cluster import Cluster, plan_arrays, script_of
from fanfold.runs.identity import FilePolicy
from fanfold.runs.learned import learned
from fanfold.runs.prepare import Request, Resume, existing, new_name, prepare
from fanfold.runs.run import FOLDER, Run
from fanfold.runs.state import read_state
from fanfold.schedulers.registry import SCHEDULERS
from fanfold.store.directory import RunDirectory, safe_name

__all__ = ["begin", "gpus_here", "preview", "run", "worker_memory"]


def run(
    func: Callable[..., Any],
    inputs: Iterable[Any],
    /,
    *,
    name: str | None = None,
    folder: str | os.PathLike[str] = FOLDER,
    on: str = "local",
    workers: int | None = None,
    chunk: int | None = None,
    retries: int = 0,
    timeout: float | None = None,
    errors: Literal["raise", "return"] = "return",
    seed: int | None = None,
    progress: bool | None = None,
    resume: Resume = "ask",
    files: FilePolicy = "stat",
    packages: Sequence[str] = (),
    steal: bool = False,
    resources: Resources | None = None,
    elements: int | None = None,
    at_once: int | None = None,
    setup: Sequence[str] = (),
    python: str = sys.executable,
    after: Sequence[str | os.PathLike[str]] = (),
    cost: Cost | None = None,
    max_memory_per_worker: int | str | None = None,
) -> Run:
    """Run ``func`` over ``inputs`` durably: everything of note is on disk, and any process may die.

    It begins at once, in the background; `Run.wait` waits for it. The same call with the same
    ``name`` goes on where the run stands: what is done is not done again. On a scheduler nothing of
    it stays here: this program may end, and `Run.open` finds the run again, on any node.

    Parameters:
        func, inputs: as for `map`, with one iterable, which ends.
        name: of the run; by default the function's, with a number, and a new run.
        folder: where the runs are kept; this one in a folder of its own, private to you.
        on: "local" (worker processes), "processes", "threads" or "serial"; "slurm" or "pbs".
        workers, chunk, retries, timeout, seed, progress: as for `map`.
        errors: "return" goes on after a failure, "raise" stops after the first.
        resume: what to do when the function has changed since: "ask" raises `RunChanged`, which
            says what has; "anyway" keeps the results; "fresh" keeps the old run aside, and begins.
        files: inputs that name files change when these do: by "stat" (size and time), by "hash"
            (content), or "ignore".
        packages: more packages whose versions count as part of the function.
        steal: take the run over from a driver that may live; that one stops before it writes more.
        resources: what each element of a job array asks for; a task runs on each of its GPUs, where
            it asks for some, or else on each of its cores, or ``workers`` tasks at a time. Without
            a scheduler only ``gpus`` counts. Each worker sees its own GPUs.
        cost: as for `map`. Without it, it is learned from an earlier run of the same function in
            the same folder, where that had the same inputs.
        max_memory_per_worker: as for `ProcessExecutor`; on a scheduler too.

    On a scheduler only:

        elements: how many there are; by default as many as get a minute of work.
        at_once: how many of them may run at a time.
        setup: lines of shell for the begin of each, such as "module load gcc".
        python: the Python that runs on the nodes.
        after: runs, by name or folder, that must have ended well before this one begins.

    Raises `RunChanged`, `RunBusy` when another process works on it, `UsageError`, `SubmitRefused`
    when the scheduler does not take the job, and `SchedulerDown`.

    >>> import fanfold as ff
    >>> run = ff.run(abs, [-1, -2, 3], name="signs", on="threads")
    >>> run.wait().results()
    [1, 2, 3]
    >>> ff.Run.open("signs").status().state
    'done'
    """
    check_callable(func)
    check_options(chunk, retries, timeout, errors, seed)
    if resume not in get_args(Resume):
        raise UsageError(f"resume must be 'ask', 'anyway' or 'fresh', not {resume!r}")
    items = listed(inputs)
    options: dict[str, Any] = {
        "on": _place(on),
        "workers": None if workers is None else worker_count(workers, 1),
        "chunk": chunk,
        "retries": retries,
        "timeout": timeout,
        "errors": errors,
    }
    if on in SCHEDULERS:
        cluster = Cluster(
            on,
            Resources() if resources is None else resources,
            None if elements is None else worker_count(elements, 1, "elements"),
            None if at_once is None else worker_count(at_once, 1, "at_once"),
            [setup] if isinstance(setup, str) else list(setup),
            python,
            [str(Run.open(one, folder=folder).path) for one in after],
        )
        options["cluster"] = cluster.told()
    elif resources is not None:
        options["gpus"] = gpus_here(options["on"], options["workers"], resources)
    if max_memory_per_worker is not None:
        options["max_memory_per_worker"] = worker_memory(func, options["on"], max_memory_per_worker)
    request = Request(
        func, items, Path(folder), options, name,
        seed=seed, resume=resume, files=files, packages=tuple(packages),
        costs=None if cost is None else read_costs(cost, items),
    )  # fmt: skip
    begun, _ = begin(request, progress=progress, steal=steal)
    begun.start()
    return begun


def gpus_here(on: str, workers: int | None, resources: Resources) -> int:
    """How many GPUs the workers of this machine share.

    Raises `UsageError` where they cannot: threads share all of them as it is.
    """
    if resources.gpus and on != "processes":
        raise UsageError(f'GPUs are given to worker processes: on="local", not on={on!r}')
    if resources.gpus:
        gpus_each(workers or resources.gpus, resources.gpus)
    return resources.gpus


def worker_memory(func: Callable[..., Any], on: str, size: int | str) -> int:
    """How much memory a worker may have, in bytes.

    Raises `UsageError` where there is no worker whose memory is the task's.
    """
    if on != "processes" and on not in SCHEDULERS:
        raise UsageError(f'max_memory_per_worker is for processes: on="local", not on={on!r}')
    if isinstance(func, Command):
        raise UsageError(
            "max_memory_per_worker counts the memory of a worker, and not of the programs that it "
            "runs: set a limit of their own, such as ulimit -v, in a script around them"
        )
    return int(read_memory(size) or 0)


def begin(
    request: Request,
    *,
    progress: bool | None = None,
    listeners: Sequence[Listener] = (),
    steal: bool = False,
) -> tuple[Run, list[str]]:
    """`run` for programs: the run, taken but not started, and sentences about what has changed."""
    registry.prepare(request.options["on"])  # while we look what there is to do
    work, notes = prepare(request, steal=steal)
    if work.costs is None:
        work = replace(work, costs=learned(work))
    begun = Run(work.directory, work.asked, trust=request.trust)
    damage = begun.take(work, progress=progress, listeners=listeners, steal=steal)
    return begun, notes + damage


def preview(request: Request) -> list[str]:
    """The scripts that would be submitted; nothing is written, and nothing is submitted."""
    cluster = Cluster.of(request.options["cluster"])
    path = existing(request)
    if path is None:
        name = new_name(request)
        directory = RunDirectory((request.parent / safe_name(name)).absolute())
        todo = [range(len(request.inputs))]
    else:
        directory = RunDirectory.open(path)
        name, todo = Asked.read(directory).name, read_state(directory).without_result()
    planned = plan_arrays(directory, todo, cluster, request.options, name=name, costs=request.costs)
    return [script_of(directory, array, cluster, os.getcwd()) for array in planned]


def _place(on: object) -> str:
    if on in ("auto", "local"):
        return "processes"
    if not isinstance(on, str):
        raise UsageError(
            f"a run goes on when its executor is gone, so on= takes a name such as "
            f'"local", not {on!r}'
        )
    if on not in SCHEDULERS:
        registry.check(on)
    return on
