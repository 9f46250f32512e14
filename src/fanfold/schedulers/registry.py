"""The schedulers by name; each is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module

from fanfold.errors import UsageError
from fanfold.schedulers.base import Scheduler

__all__ = ["SCHEDULERS", "scheduler"]

SCHEDULERS = {
    "slurm": "fanfold.schedulers.slurm:Slurm",
    "pbs": "fanfold.schedulers.pbs:PBS",
}


def scheduler(name: str) -> Scheduler:
    """The scheduler of this name. Raises `UsageError` for another."""
    if name not in SCHEDULERS:
        raise UsageError(f"{name!r} is no scheduler that fanfold knows: write slurm or pbs")
    module, _, kind = SCHEDULERS[name].partition(":")
    found: Scheduler = getattr(import_module(module), kind)()
    return found
