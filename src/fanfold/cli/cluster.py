"""What commands ask of a scheduler: the options that they share, and what they mean."""

from __future__ import annotations

import sys
from typing import Any

import click

from fanfold.cli.options import together, whole_number
from fanfold.errors import UsageError
from fanfold.resources import Resources
from fanfold.runs.begin import gpus_here
from fanfold.runs.cluster import Cluster
from fanfold.runs.run import Run

__all__ = [
    "array_options",
    "changed_resources",
    "cluster_of",
    "resource_options",
    "resources_of",
]

#: What a job asks for.
resource_options = together(
    click.option("--nodes", metavar="N", help="Nodes of each element. [1]"),
    click.option("--cores", metavar="N", help="Cores of each node. [1]"),
    click.option("--memory", metavar="SIZE", help="Of each node: 4GB, 500MB."),
    click.option("--gpus", metavar="N", help="Of each node; each worker sees its own. [0]"),
    click.option("--walltime", metavar="TIME", help="The longest an element runs: 90m, 1:30:00."),
    click.option("--queue", metavar="NAME", help="The queue (Slurm: partition)."),
    click.option("--account", metavar="NAME", help="Who pays."),
    click.option("--mail", metavar="ADDRESS", help="Where mail goes."),
    click.option("--mail-events", metavar="LIST", help="begin, end, abort. [end,abort]"),
    click.option("--constraint", metavar="TEXT", help="A property of nodes."),
    click.option("--directive", "extra", multiple=True, metavar="TEXT", help="A directive as is."),
)
#: A run as job arrays.
array_options = together(
    click.option("--elements", metavar="N", callback=whole_number(1), help="Of the job array."),
    click.option("--at-once", metavar="N", callback=whole_number(1), help="Elements at a time."),
    click.option("--setup", multiple=True, metavar="LINE", help="Shell before: module load gcc."),
    click.option("--python", default=sys.executable, metavar="PATH", help="On the nodes. [this]"),
    click.option("--after", multiple=True, metavar="RUN", help="Begin when that run is done."),
    click.option("--dry-run", is_flag=True, help="Print the script of the job, and stop."),
    click.option("--detach", is_flag=True, help="Submit, print the name of the run, and stop."),
)


def resources_of(options: dict[str, Any]) -> Resources:
    """What was asked for; takes these options out. Raises `UsageError`, naming what is wrong."""
    given = {name: options.pop(name) for name in Resources._fields}
    return Resources(**{name: value for name, value in given.items() if value})


def changed_resources(before: Resources | None, options: dict[str, Any]) -> Resources | None:
    """What was asked for, with what is asked for now; None where nothing is.

    Raises `UsageError` where there is no job to ask for.
    """
    given = {name: value for name in Resources._fields if (value := options.pop(name))}
    if not given:
        return None
    if before is None:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{names} are for runs on a scheduler, and this one is on one machine")
    return Resources(**{**before._asdict(), **given})


def cluster_of(on: str, options: dict[str, Any], folder: str) -> Cluster | None:
    """How the run is spread over the scheduler; takes these options out. None elsewhere, where
    of all resources the GPUs are left in them.

    Raises `UsageError` for options that mean nothing where the run goes.
    """
    asked = resources_of(options)
    given = {name: options.pop(name) for name in ("elements", "at_once", "setup", "after")}
    python = options.pop("python")
    if on in ("slurm", "pbs"):
        paths = [str(Run.open(run, folder=folder).path) for run in given["after"]]
        return Cluster(
            on, asked, given["elements"], given["at_once"], list(given["setup"]), python, paths
        )
    used = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if used:
        raise UsageError(
            f"{' and '.join(used)} say how a job array is made: add --on slurm or --on pbs"
        )
    options["gpus"] = gpus_here(on, options["workers"], asked)
    return None
