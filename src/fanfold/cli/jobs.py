"""The commands that look at a scheduler: jobs and shell."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import click

from fanfold.cli.cluster import resource_options, resources_of
from fanfold.cli.elements import element_told, seen_lines, state_counts
from fanfold.cli.options import folder_option, json_option
from fanfold.cli.summary import shown_name
from fanfold.errors import FanfoldError, UsageError
from fanfold.runs.arrays import job_of
from fanfold.runs.asked import Asked
from fanfold.runs.elements import Watch, is_over, open_arrays
from fanfold.schedulers.pace import Pace
from fanfold.schedulers.queue import Queue
from fanfold.schedulers.registry import SCHEDULERS, scheduler
from fanfold.store.directory import RunDirectory, run_directories

__all__ = ["COMMANDS"]

_SOON = 60.0  # seconds: what was asked of all at once is not asked again of each


@click.command("jobs")
@click.argument("job", required=False)
@folder_option
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.option("--wait", is_flag=True, help="Until JOB has ended.")
@click.option(
    "--on", type=click.Choice(list(SCHEDULERS)), help="Whose JOB; by default the one here."
)
@json_option
def jobs_command(
    job: str | None, folder: str, everything: bool, wait: bool, on: str | None, as_json: bool
) -> int:
    """List the job arrays of runs that wait or are at work.

    They are those of the runs in a folder, with how far they are. With JOB, an id as qsub or sbatch
    print it, the elements of any job of the scheduler are listed, and what became of each.

    \b
      fanfold jobs
      fanfold jobs '1234[]' --wait       all elements of an array of PBS, when they have ended
      fanfold jobs 1234_7                one element of an array of Slurm

    Exit status: 0; with JOB 1 unless all of it is done.
    """
    if job is not None:
        return _show_job(Queue(scheduler(on or _whose(job))), job, wait, as_json)
    if wait or on:
        raise UsageError("--wait and --on are about one job: name it, as in fanfold jobs 1234")
    _show_runs(folder, everything, as_json)
    return 0


def _here() -> str:
    """The scheduler that is here. Raises `UsageError` where there is none, or several."""
    here = [name for name in SCHEDULERS if shutil.which(scheduler(name).command)]
    if len(here) != 1:
        there = "no scheduler is" if not here else f"{' and '.join(here)} are"
        raise UsageError(f"{there} here: say --on slurm or --on pbs, on a login node")
    return here[0]


# One job -----------------------------------------------------------------------------------------


def _whose(job: str) -> str:
    """The scheduler that gives such ids; else the one that is here."""
    if "[" in job or "." in job:
        return "pbs"
    return "slurm" if "_" in job or ";" in job else _here()


def _show_job(queue: Queue, job: str, wait: bool, as_json: bool) -> int:
    pace, seen = Pace(), queue.elements(job)
    while wait and not all(is_over(one.state) for one in seen):
        time.sleep(pace.wait(changed=False))
        seen = queue.elements(job)
    if not seen:
        raise UsageError(
            f"{queue.name} knows no job {job}, or not any more: write the id as "
            f"{scheduler(queue.name).command} printed it"
        )
    lines = (json.dumps(one._asdict()) for one in seen) if as_json else seen_lines(seen)
    click.echo("\n".join(lines))
    return 0 if all(one.state == "done" for one in seen) else 1


# The arrays of runs -------------------------------------------------------------------------------


def _show_runs(folder: str, everything: bool, as_json: bool) -> None:
    found = []
    for path in run_directories(Path(folder)):
        try:
            directory = RunDirectory.open(path)
            found += [(directory, array) for array in open_arrays(directory)]
        except FanfoldError as error:
            click.echo(f"fanfold: {error}", err=True)
    for name in SCHEDULERS:
        queue = Queue(scheduler(name))
        mine = [(directory, array) for directory, array in found if array.scheduler == name]
        _ask_of_all(queue, mine)
        for directory, array in mine:
            watch = Watch(directory, queue, [array])
            elements = watch.look(_SOON)
            if not everything and all(is_over(one.state) for one in elements):
                continue
            run = Asked.read(directory).name
            if as_json:
                told = [element_told(one) for one in elements]
                click.echo(json.dumps({"run": run, "scheduler": name, "elements": told}))
            else:
                job = elements[0].job or "not submitted"
                click.echo(f"{shown_name(run)}  {name}  {job}  {state_counts(elements)}")
            if watch.trouble:
                click.echo(f"fanfold: {watch.trouble}", err=True)


def _ask_of_all(queue: Queue, arrays: list[Any]) -> None:
    """One question for all jobs."""
    jobs: dict[str, list[int | None]] = {}
    for directory, array in arrays:
        job = job_of(directory, array.number)
        if job is not None:
            count = len(array.shares)
            jobs[job] = [None] if count == 1 else list(range(count))
    if jobs:
        queue.look(jobs, max_age=0.0)


@click.command("shell")
@click.option("--on", type=click.Choice(list(SCHEDULERS)), help="Which; by default the one here.")
@click.option("--dry-run", is_flag=True, help="Print the command, and stop.")
@resource_options
def shell_command(on: str | None, dry_run: bool, **options: Any) -> int:
    """Open a shell on a node of the cluster, for a while.

    \b
      fanfold shell --on slurm --cores 4 --walltime 1h
    """
    asked = resources_of(options)
    argv = scheduler(on or _here()).shell(asked)
    if dry_run:
        click.echo(shlex.join(argv))
        return 0
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - it is to have the terminal, and no shell between
    except OSError as error:
        raise UsageError(f"{argv[0]} cannot be started: {error.strerror}") from error


COMMANDS = (jobs_command, shell_command)
