"""sinfo, and what scontrol tells of the site."""

from __future__ import annotations

import getopt
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Site
from fanfold.testing.cluster.slurm.records import clock, node_list
from fanfold.testing.cluster.slurm.submit import PARTITIONS, max_array_size, max_minutes

__all__ = ["config", "ping", "sinfo"]


def config(site: Site) -> str:
    """What ``scontrol show config`` prints."""
    settings = site.settings
    kind = "accounting_storage/slurmdbd" if settings.history else "accounting_storage/none"
    values = {
        "AccountingStorageEnforce": "none",
        "AccountingStorageType": kind,
        "ClusterName": site.host,
        "EnforcePartLimits": "NO",
        "FirstJobId": 1,
        "JobRequeue": 1,
        "KillWait": f"{settings.grace:.0f} sec",
        "MaxArraySize": max_array_size(site),
        "MaxJobCount": settings.max_jobs,
        "MaxJobId": 67043328,
        "MaxNodeCount": len(site.nodes),
        "MaxTasksPerNode": 512,
        "MinJobAge": f"{settings.min_job_age:.0f} sec",
        "OverTimeLimit": "0 min",
        "PreemptType": "preempt/none",
        "SchedulerParameters": "(null)",
        "SchedulerType": "sched/backfill",
        "SelectType": "select/cons_tres",
        "SLURM_VERSION": "22.05.8",
    }
    head = time.strftime("Configuration data as of %Y-%m-%dT%H:%M:%S")
    lines = "".join(f"{name:<23} = {value}\n" for name, value in values.items())
    return f"{head}\n{lines}\nSlurmctld(primary) at localhost is UP\n"


def ping(site: Site) -> Reply:
    """Whether the controller is there."""
    state = "DOWN" if site.down else "UP"
    return Reply(f"Slurmctld(primary) at localhost is {state}\n", "", int(site.down))


# sinfo --------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """Some nodes of a partition that are in the same state."""

    site: Site
    partition: str
    nodes: Sequence[str]
    state: str

    @property
    def title(self) -> str:
        first = (self.site.settings.queues or PARTITIONS)[0]
        return self.partition + ("*" if self.partition == first else "")


_FIELDS: dict[str, tuple[str, Callable[[Line], str]]] = {
    "P": ("PARTITION", lambda line: line.title),
    "R": ("PARTITION", lambda line: line.partition),
    "a": ("AVAIL", lambda line: "up"),
    "l": ("TIMELIMIT", lambda line: clock(max_minutes(line.site))),
    "D": ("NODES", lambda line: str(len(line.nodes))),
    "t": ("STATE", lambda line: line.state[:5]),
    "T": ("STATE", lambda line: line.state),
    "N": ("NODELIST", lambda line: node_list(line.nodes)),
    "c": ("CPUS", lambda line: str(line.site.settings.cores)),
    "m": ("MEMORY", lambda line: str(line.site.settings.memory)),
    "f": ("AVAIL_FEATURES", lambda line: "(null)"),
    "G": ("GRES", lambda line: "(null)"),
}
_DEFAULT = "%9P %.5a %.10l %.6D %.6t %N"


def sinfo(site: Site, request: Request) -> Reply:
    """Tell of partitions and nodes."""
    try:
        found, _ = getopt.gnu_getopt(
            list(request.argv), "hNo:p:t:", ["format=", "noheader", "Node", "partition=", "states="]
        )
    except getopt.GetoptError as problem:
        said = f"sinfo: unrecognized option '{problem.opt}'\n"
        raise Refusal(f'{said}Try "sinfo --help" for more information\n') from problem
    chosen = {key.lstrip("-")[:1]: value for key, value in found}
    if "n" in chosen:
        chosen["h"] = ""
    site.contact()
    lines = [
        line
        for line in _lines(site, apart="N" in chosen)
        if chosen.get("p", line.partition) == line.partition
        and chosen.get("t", chosen.get("s", line.state)) == line.state
    ]
    form = chosen.get("o", chosen.get("f", _DEFAULT))
    texts = [] if "h" in chosen else [_text(form, None)]
    return Reply("".join(f"{text}\n" for text in [*texts, *(_text(form, line) for line in lines)]))


def _lines(site: Site, *, apart: bool) -> Iterator[Line]:
    for partition in site.settings.queues or PARTITIONS:
        states: dict[str, list[str]] = {}
        for name in site.nodes:
            states.setdefault(_state(site, name), []).append(name)
        for state, names in states.items():
            for some in [[name] for name in names] if apart else [names]:
                yield Line(site, partition, some, state)


def _state(site: Site, node: str) -> str:
    used = len(site.on_node(node))
    return "idle" if used == 0 else "mixed" if used < site.settings.cores else "allocated"


def _text(form: str, line: Line | None) -> str:
    def field(match: re.Match[str]) -> str:
        right, width, letter = match.groups()
        if letter not in _FIELDS:
            return ""
        head, value = _FIELDS[letter]
        text = head if line is None else value(line)
        if width:
            text = text[: int(width)]
            text = text.rjust(int(width)) if right else text.ljust(int(width))
        return text

    return re.sub(r"%(\.?)([0-9]*)(.)", field, form)
