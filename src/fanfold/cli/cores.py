"""``fanfold cores``: how many cores may be used here, and why."""

from __future__ import annotations

import json

import click

from fanfold.cli.options import json_option
from fanfold.resources import cores

__all__ = ["cores_command"]


@click.command("cores")
@json_option
def cores_command(as_json: bool) -> int:
    """Tell how many cores this process may really use, and why.

    It is the smallest of: the machine's CPUs, the CPUs the process is bound to, the quota of its
    control groups (containers), and what Slurm or PBS gave the job.
    """
    found = cores()
    if as_json:
        reasons = [reason._asdict() for reason in found.reasons]
        click.echo(json.dumps({"cores": int(found), "reasons": reasons}))
    else:
        click.echo(found.explain())
    return 0
