"""Where the blocks are computed: on an executor, or as a durable run."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from fanfold.api import map as map_blocks
from fanfold.api import map_reduce
from fanfold.blocks.plan import Place, Plan
from fanfold.folding import Fold, fold
from fanfold.runs.begin import run as begin_run
from fanfold.runs.prepare import Resume

__all__ = ["execute", "mark"]


def mark(*options: object) -> str:
    """Tells the name of a run with these options from that of one with others."""
    return f"{zlib.crc32(repr(options).encode()):08x}"


def execute(
    task: Callable[[int], Any],
    plan: Plan,
    place: Place,
    combine: Callable[[Any, Any], Any] | None,
    run: str | None,
    resume: Resume = "ask",
) -> Any:
    """What the task makes of all blocks, combined; a durable run where it has a name."""
    numbers = range(plan.blocks)
    if run is not None:
        begun = begin_run(
            task, numbers, name=run, on=place.on, workers=plan.workers, errors="raise",
            resume=resume,
        )  # fmt: skip
        values = begun.wait().results()
        if combine is None:
            return values
        tree = Fold(combine)
        tree.add(fold(combine, 0, values))
        return tree.result()
    workers = None if place.fixed else plan.workers
    if combine is None:
        return map_blocks(task, numbers, on=place.on, workers=workers)
    return map_reduce(task, numbers, combine, on=place.on, workers=workers)
