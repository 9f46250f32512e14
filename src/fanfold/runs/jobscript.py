"""The script of a job array: plain sh, that begins an element wherever the scheduler has put it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from fanfold.runs.arrays import Array
from fanfold.schedulers.base import Job, Scheduler
from fanfold.store.directory import RunDirectory

__all__ = ["job_script", "unseen"]

_SCRIPT = """\
#!/bin/sh
{header}
# Array {number} of a fanfold run
FANFOLD_BEGAN="$(date +%s)"; export FANFOLD_BEGAN
if ! [ -r {run}/run.json ]; then
    echo "fanfold: $(hostname) cannot see" {run}": keep runs where all nodes see them (--dir)" >&2
    exit 71
fi
cd {folder} || exit 72
{setup}if ! command -v {python} >/dev/null; then
    echo "fanfold: $(hostname) has no" {python}": name another with --python" >&2
    exit 73
fi
exec {python} -P -m fanfold.runs.element {run} {number}
"""
_UNSEEN = {
    71: "its node cannot see the folder of the run",
    72: "its node cannot see the folder that the run was begun in",
    73: "its node has no such Python",
}


def job_script(
    directory: RunDirectory,
    array: Array,
    scheduler: Scheduler,
    *,
    folder: str,
    python: str,
    setup: Sequence[str] = (),
    at_once: int | None = None,
    after: Sequence[str] = (),
) -> str:
    """The script of an array, which begins in ``folder`` once the jobs ``after`` have ended.

    Of the environment it holds the path of Python's modules and nothing else. Every name in it is
    quoted; the lines of ``setup`` are the user's own shell.
    """
    job = Job(
        name=array.name,
        first=0,
        last=len(array.shares) - 1,
        resources=array.resources,
        output=str(directory.path / "logs" / f"array-{array.number}"),
        at_once=at_once,
        after=after,
    )
    modules = os.environ.get("PYTHONPATH")
    exported = [f"PYTHONPATH={shlex.quote(modules)}; export PYTHONPATH"] if modules else []
    return _SCRIPT.format(
        header="\n".join(scheduler.header(job)),
        number=array.number,
        run=shlex.quote(str(directory.path)),
        folder=shlex.quote(folder),
        setup="".join(f"{line}\n" for line in [*exported, *setup]),
        python=shlex.quote(python),
    )


def unseen(exit_status: int | None) -> str:
    """Why an element ended before it could say anything itself; "" where that is not known.

    >>> unseen(71)
    'its node cannot see the folder of the run'
    """
    return _UNSEEN.get(exit_status or 0, "")
