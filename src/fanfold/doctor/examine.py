"""The examination: every place and this machine, each measured within its time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence

from fanfold.doctor.asking import Question, ask_all
from fanfold.doctor.findings import Finding
from fanfold.doctor.machine import here
from fanfold.executors import plugins, registry
from fanfold.resources import cores
from fanfold.schedulers.registry import SCHEDULERS, scheduler

__all__ = ["examine"]

_MACHINE = 20.0  # seconds for anything that is not a place
_MOST = 4  # places that are tried at a time


def examine(
    places: Sequence[str] = (),
    *,
    folder: str,
    limit: float = 30.0,
    queue: str | None = None,
    account: str | None = None,
) -> list[Finding]:
    """What works here, and what does not and why.

    In each of ``places`` (by default all that are registered) tasks are run, for ``limit`` seconds
    at most; a scheduler gets a job of one element, in ``queue`` and paid by ``account``. ``folder``
    is where runs are kept. With ``places`` nothing else is looked at.

    Raises `UsageError` for a place that is not registered.
    """
    for name in places:
        registry.check(name)
    arguments = {"limit": limit, "folder": folder, "queue": queue, "account": account}
    questions = [
        Question(
            "place",
            name,
            "fanfold.doctor.places:try_place",
            {"name": name, **arguments},
            limit,
            name in SCHEDULERS,
        )
        for name in places or (*registry.EXECUTORS, *plugins.names())
    ]
    if places:
        return ask_all(questions, at_once=1)
    at_once = max(1, min(_MOST, int(cores())))
    found = ask_all([*questions, *_of_machine(folder)], at_once)
    return [*found[: len(questions)], *here(), *found[len(questions) :]]


def _of_machine(folder: str) -> Iterator[Question]:
    def question(name: str, look: str, /, **arguments: str) -> Question:
        return Question("machine", name, f"fanfold.doctor.{look}", arguments, _MACHINE)

    yield question("BLAS threads", "machine:blas")
    yield question("GPUs", "machine:gpus")
    yield question("MPI launcher", "machine:launchers")
    for name in SCHEDULERS:
        if shutil.which(scheduler(name).command):
            yield question(f"{name} limits", "places:limits", name=name)
    yield question("runs", "folder:look_at", path=os.path.abspath(folder))
