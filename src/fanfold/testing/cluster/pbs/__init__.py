"""OpenPBS 23.06.06 as its commands show it."""

from __future__ import annotations

from fanfold.testing.cluster.dialect import Dialect
from fanfold.testing.cluster.pbs.about import pbsnodes
from fanfold.testing.cluster.pbs.control import qdel, qhold, qrerun, qrls, qsig
from fanfold.testing.cluster.pbs.ids import read_id
from fanfold.testing.cluster.pbs.printing import as_json, head
from fanfold.testing.cluster.pbs.status import qselect, qstat
from fanfold.testing.cluster.pbs.submit import qsub
from fanfold.testing.cluster.requests import Reply, Request
from fanfold.testing.cluster.site import Index, Site

__all__ = ["PBS"]

_COMMANDS = {
    "pbsnodes": pbsnodes,
    "qdel": qdel,
    "qhold": qhold,
    "qrerun": qrerun,
    "qrls": qrls,
    "qselect": qselect,
    "qsig": qsig,
    "qstat": qstat,
    "qsub": qsub,
}

_SAID = {
    "qdel": ("Connection refused\nCouldn't connect to cluster: {host}\n", 162),
    "qstat": ("Connection refused\nqstat: cannot connect to server {host} (errno=15010)\n", 255),
    "pbsnodes": ("Connection refused\npbsnodes: cannot connect to server {host}, error=15010\n", 1),
}
_OTHERS = ("Connection refused\n{name}: cannot connect to server {host} (errno=15010)\n", 162)


def _down(site: Site, request: Request) -> Reply:
    """What a command says when there is no server."""
    said, code = _SAID.get(request.name, _OTHERS)
    out = ""
    if request.name == "qstat" and "json" in request.argv:
        out = as_json(head(site), [], site.settings.json)
    return Reply(out, said.format(name=request.name, host=site.host), code)


def _lost(site: Site, request: Request) -> Reply:
    """What a command says when the server does not answer any more."""
    return Reply("", f"{request.name}: End of File\n", 15031 % 256)


def _named(text: str) -> tuple[int, Index]:
    """The number of a job, and the index of the element that is meant, if one is."""
    found = read_id(text, "pretend")
    return found.number, found.one


PBS = Dialect(_COMMANDS, _down, _lost, _named)
