"""``fanfold advise``: what to ask a scheduler for next time."""

from __future__ import annotations

import json

import click

from fanfold.cli.options import folder_option, json_option
from fanfold.runs.run import Run

__all__ = ["advise_command"]


@click.command("advise")
@click.argument("run")
@folder_option
@json_option
def advise_command(run: str, folder: str, as_json: bool) -> int:
    """Say what to ask a scheduler for when a run is done again.

    That is cores, memory, walltime, elements and workers, each with how it was found. Options of
    fanfold run, and #PBS and #SBATCH lines, are there to be copied. A run on one machine is told of
    as if it had been one element of a job.

    Exit status: 0 advice is given, 1 nothing has ended yet to go by.
    """
    advised = Run.open(run, folder=folder).advise()
    click.echo(json.dumps(advised.to_json()) if as_json else str(advised))
    return 0
