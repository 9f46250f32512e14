"""Slurm 22.05 as its commands show it."""

from __future__ import annotations

import re

from fanfold.errors import UsageError
from fanfold.testing.cluster.dialect import Dialect
from fanfold.testing.cluster.requests import Reply, Request
from fanfold.testing.cluster.site import Index, Site
from fanfold.testing.cluster.slurm.about import ping, sinfo
from fanfold.testing.cluster.slurm.control import scancel, scontrol
from fanfold.testing.cluster.slurm.document import as_json
from fanfold.testing.cluster.slurm.sacct import sacct
from fanfold.testing.cluster.slurm.squeue import squeue
from fanfold.testing.cluster.slurm.submit import sbatch

__all__ = ["SLURM"]

_COMMANDS = {
    "sacct": sacct,
    "sbatch": sbatch,
    "scancel": scancel,
    "scontrol": scontrol,
    "sinfo": sinfo,
    "squeue": squeue,
}

_DOWN = "Unable to contact slurm controller (connect failure)"
_LOST = "Socket timed out on send/recv operation"
_NO_DATABASE = (
    "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection to "
    "host:localhost:6819: Connection refused\n"
    "sacct: error: Sending PersistInit msg: Connection refused\n"
    "sacct: error: Problem talking to the database: Connection refused\n"
)
_SAID = {
    "sbatch": ("sbatch: error: Batch job submission failed: {}\n", 1),
    "scancel": ("scancel: error: Kill job error on job id {job}: {}\n", 8),
    "sinfo": ("slurm_load_partitions: {}\n", 1),
    "scontrol": ("slurm_load_jobs error: {}\n", 1),
    "squeue": ("slurm_load_jobs error: {}\n", 1),
}


def _down(site: Site, request: Request) -> Reply:
    """What a command says when there is no controller; sacct, when there is no database."""
    if request.name == "sacct":
        return Reply("", _NO_DATABASE, 1)
    if request.name == "squeue" and "--json" in request.argv:
        return Reply(as_json(site, None))
    if request.name == "scontrol" and "ping" in request.argv:
        return ping(site)
    return _said(request, _DOWN)


def _lost(site: Site, request: Request) -> Reply:
    """What a command says when the controller does not answer any more."""
    return Reply("", _NO_DATABASE, 1) if request.name == "sacct" else _said(request, _LOST)


def _said(request: Request, message: str) -> Reply:
    text, code = _SAID[request.name]
    job = next((word for word in request.argv if word[:1].isdigit()), "")
    return Reply("", text.format(message, job=job), code)


def _named(text: str) -> tuple[int, Index]:
    """The number of a job, and the index of the element that is meant, if one is."""
    match = re.fullmatch(r"([0-9]+)(?:_([0-9]+))?(?:;\w+)?", text)
    if match is None:
        raise UsageError(f"{text!r} is no job of Slurm: write 12 or 12_3")
    return int(match[1]), None if match[2] is None else int(match[2])


SLURM = Dialect(_COMMANDS, _down, _lost, _named)
