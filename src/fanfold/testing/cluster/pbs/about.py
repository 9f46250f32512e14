"""What qstat and pbsnodes tell of the server, its queues and its nodes."""

from __future__ import annotations

import getopt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fanfold.testing.cluster.pbs.attributes import job_row
from fanfold.testing.cluster.pbs.printing import Row, as_text, head
from fanfold.testing.cluster.pbs.submit import MAX_ARRAY_SIZE, QUEUES
from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Site

__all__ = ["QUEUES", "pbsnodes", "server_or_queues"]

_STATES = {"Q": "Queued", "H": "Held", "W": "Waiting", "R": "Running", "E": "Exiting", "B": "Begun"}


def server_or_queues(site: Site, chosen: Mapping[str, str], operands: Sequence[str]) -> Reply:
    """What ``qstat -B`` and ``qstat -Q`` print."""
    if "B" in chosen:
        kind, things = "Server", {site.host: _server(site)}
    else:
        kind, things = "Queue", {name: _queue(site, name) for name in _queues(site, operands)}
    if "F" in chosen:
        return Reply(_json(site, kind, things) + "\n")
    if "f" in chosen:
        texts = [as_text([Row(name, things[name])]) for name in things]
        return Reply("".join(text.replace("Job Id", kind, 1) for text in texts))
    return Reply(_table(site, kind, things))


def _queues(site: Site, operands: Sequence[str]) -> Sequence[str]:
    names = site.settings.queues or QUEUES
    for name in operands:
        if name not in names:
            raise Refusal(f"qstat: Unknown queue {name}\n", 170)
    return operands or names


def _json(site: Site, kind: str, things: Mapping[str, Any]) -> str:
    return json.dumps({**head(site), kind: things}, indent=4, separators=(",", ":"))


def _server(site: Site) -> dict[str, Any]:
    settings = site.settings
    attributes: dict[str, Any] = {
        "server_state": "Active",
        "server_host": site.host,
        "scheduling": "True",
        "total_jobs": len(list(site.known())),
        "state_count": _state_count(site, None),
        "default_queue": (settings.queues or QUEUES)[0],
        "scheduler_iteration": 600,
        "max_array_size": settings.max_array_size or MAX_ARRAY_SIZE,
        "pbs_version": "23.06.06",
    }
    if settings.history:
        attributes["job_history_enable"] = "True"
    if settings.max_queued is not None:
        attributes["max_queued"] = f"[u:PBS_GENERIC={settings.max_queued}]"
    return attributes


def _queue(site: Site, name: str) -> dict[str, Any]:
    jobs = [entry for entry in site.known() if entry.asked["queue"] == name]
    return {
        "queue_type": "Execution",
        "total_jobs": len(jobs),
        "state_count": _state_count(site, name),
        "enabled": "True",
        "started": "True",
    }


def _count(site: Site, queue: str | None) -> dict[str, int]:
    counts = dict.fromkeys(["Transit", *_STATES.values()], 0)
    for entry in site.known():
        if queue in (None, entry.asked["queue"]) and not entry.ended:
            counts[_STATES[job_row(site, entry).text("job_state")]] += 1
    return counts


def _state_count(site: Site, queue: str | None) -> str:
    return "".join(f"{name}:{number} " for name, number in _count(site, queue).items())


def _table(site: Site, kind: str, things: Mapping[str, Any]) -> str:
    if kind == "Server":
        title = "Server             Max   Tot   Que   Run   Hld   Wat   Trn   Ext Status"
        ruler, tail = "---------------- " + "----- " * 8 + "-" * 11, "Active    "
    else:
        title = "Queue              Max   Tot Ena Str   Que   Run   Hld   Wat   Trn   Ext Type"
        ruler, tail = "---------------- ----- ----- --- --- " + "----- " * 6 + "----", "Exe*"
    lines = [title, ruler]
    for name, thing in things.items():
        counts = _count(site, None if kind == "Server" else name)
        order = ("Queued", "Running", "Held", "Waiting", "Transit", "Exiting")
        numbers = " ".join(f"{counts[state]:5d}" for state in order)
        flags = "" if kind == "Server" else "yes yes "
        lines.append(f"{name:16s}     0 {thing['total_jobs']:5d} {flags}{numbers} {tail}")
    return "\n".join(lines) + "\n"


# Nodes --------------------------------------------------------------------------------------------


def pbsnodes(site: Site, request: Request) -> Reply:
    """List the nodes."""
    try:
        found, _ = getopt.getopt(list(request.argv), "aF:")
    except getopt.GetoptError as error:
        raise Refusal(f"pbsnodes: invalid option -- '{error.opt[:1]}'\n", 2) from error
    site.contact()
    nodes = {name: _node(site, name) for name in site.nodes}
    if dict(found).get("-F") == "json":
        return Reply(_json(site, "nodes", nodes) + "\n")
    return Reply("".join(_as_text(name, node) for name, node in nodes.items()))


def _node(site: Site, name: str) -> dict[str, Any]:
    running = [
        one
        for entry in site.entries.values()
        for one in entry.elements.values()
        if one.state == "running" and one.node == name
    ]
    return {
        "Mom": name,
        "ntype": "PBS",
        "state": "job-busy" if len(running) >= site.settings.cores else "free",
        "pcpus": site.settings.cores,
        "resources_available": {
            "arch": "linux",
            "host": name,
            "mem": f"{site.settings.memory * 1024}kb",
            "ncpus": site.settings.cores,
            "vnode": name,
        },
        "resources_assigned": {"ncpus": len(running)},
        "resv_enable": "True",
        "sharing": "default_shared",
    }


def _as_text(name: str, node: Mapping[str, Any]) -> str:
    lines = [name]
    for key, value in node.items():
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        lines += [f"     {key}{'.' if part else ''}{part} = {shown}" for part, shown in parts]
    return "\n".join(lines) + "\n\n"
