"""sbatch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from fanfold.errors import UsageError
from fanfold.schedulers.local import LocalJob, read_job
from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Awaited, Entry, Site
from fanfold.testing.cluster.slurm.options import (
    Array,
    Words,
    array,
    error,
    failed,
    megabytes,
    merged,
    minutes,
    options,
    variables,
)

__all__ = ["PARTITIONS", "Asked", "max_array_size", "max_minutes", "sbatch"]

PARTITIONS = ("debug", "short")

_KINDS = ("after", "afterok", "afternotok", "afterany", "aftercorr")
_COUNTED = "node configuration is not available|dependency problem"  # these use up a number
_NO_SCRIPT = (
    "This does not look like a batch script.  The first\n"
    "line must start with #! followed by the path to an interpreter.\n"
    "For instance: #!/bin/sh"
)
_DOS = "Batch script contains DOS line breaks (\\r\\n)\ninstead of expected UNIX line breaks (\\n)."
_NOT_SATISFIED = "{}\nRequested node configuration is not available"


class Asked(NamedTuple):
    """What the controller keeps of a submission. ``limit`` is in minutes, ``memory`` in MB, of a
    node, or of a core where ``per_core``."""

    name: str
    partition: str
    account: str
    comment: str
    command: str
    folder: str
    limit: int | None
    nodes: int
    cores: int
    tasks: int
    memory: int
    per_core: bool
    dependency: str
    kill_on_invalid: bool
    output: str
    error: str


def max_array_size(site: Site) -> int:
    """One more than the highest index."""
    return site.settings.max_array_size or 1001


def max_minutes(site: Site) -> int:
    """The longest time that a partition allows."""
    return (site.settings.max_walltime or 86_400) // 60


def sbatch(site: Site, request: Request) -> Reply:
    """Take a job: print its id."""
    if list(request.argv) == ["--version"]:
        return Reply("slurm-wlm 22.05.8\n")
    words = options(request.argv)
    wrapped = dict(words.options).get("wrap")
    text = f"#!/bin/sh\n{wrapped}\n" if wrapped is not None else _script(request, words)
    chosen = merged(text, words, request.environment)
    site.contact()
    asked = _asked(site, request, words, chosen)
    try:
        entry = _submit(site, request, words, text, chosen, asked)
    except Refusal as refusal:
        if re.search(_COUNTED, refusal.reply.err):
            site.queue.skip()
        raise
    if "quiet" in chosen:
        return Reply()
    said = "{}\n" if "parsable" in chosen else "Submitted batch job {}\n"
    return Reply(said.format(entry.number))


def _submit(
    site: Site,
    request: Request,
    words: Words,
    text: str,
    chosen: Mapping[str, str],
    asked: Asked,
) -> Entry:
    """What the controller does."""
    indices = _array(site, chosen)
    _check(site, asked, chosen)
    awaited = _dependencies(site, asked.dependency)
    _check_room(site, len(indices.indices) if indices else 1)
    return site.submit(
        _job(request, words, text, asked, indices),
        asked,
        never=_never(site, asked),
        requeue="no-requeue" not in chosen,
        hold="hold" in chosen,
        awaited=awaited,
    )


def _script(request: Request, words: Words) -> str:
    if words.script is None:
        text = request.input()
    else:
        try:
            data = request.path(words.script).read_bytes()
        except IsADirectoryError:
            data = b""
        except OSError as problem:
            raise error(f"Unable to open file {words.script}") from problem
        text = data.decode("utf-8", "surrogateescape")
    if not text:
        raise error("Batch script is empty!")
    if not text.startswith("#!") or "\0" in text:
        raise error(_NO_SCRIPT)
    if "\r\n" in text:
        raise error(_DOS)
    return text


def _asked(site: Site, request: Request, words: Words, chosen: Mapping[str, str]) -> Asked:
    script = request.path(words.script) if words.script else None
    cores = int(chosen.get("cpus-per-task", "1"))
    nodes = int(chosen.get("nodes", "1").partition("-")[0])
    per_node = int(chosen.get("ntasks-per-node", "1"))
    tasks = int(chosen.get("ntasks", str(nodes * per_node)))
    limit = minutes(chosen["time"]) if "time" in chosen else max_minutes(site)
    default = "wrap" if "wrap" in chosen else script.name if script else "sbatch"
    return Asked(
        name=chosen.get("job-name", default),
        partition=chosen.get("partition") or (site.settings.queues or PARTITIONS)[0],
        account=chosen.get("account", ""),
        comment=chosen.get("comment", ""),
        command=" ".join([str(script), *words.arguments]) if script else "",
        folder=os.path.join(request.cwd, chosen.get("chdir", "")).rstrip("/") or "/",
        limit=limit,
        nodes=nodes,
        cores=cores * tasks,
        tasks=tasks,
        memory=megabytes(chosen.get("mem") or chosen.get("mem-per-cpu") or "100"),
        per_core="mem" not in chosen,
        dependency=chosen.get("dependency", ""),
        kill_on_invalid=chosen.get("kill-on-invalid-dep", "no").startswith("y"),
        output=chosen.get("output", ""),
        error=chosen.get("error", ""),
    )


def _array(site: Site, chosen: Mapping[str, str]) -> Array | None:
    text = chosen.get("array", "")
    return array(text, max_array_size(site) - 1) if text else None


def _check(site: Site, asked: Asked, chosen: Mapping[str, str]) -> None:
    """What the controller refuses at once: what no node can do."""
    settings = site.settings
    if asked.partition not in (settings.queues or PARTITIONS):
        line = f"invalid partition specified: {asked.partition}"
        raise failed(f"{line}\nInvalid partition name specified")
    per_task = int(chosen.get("cpus-per-task", "1")) * int(chosen.get("ntasks-per-node", "1"))
    if per_task > settings.cores:
        raise failed(_NOT_SATISFIED.format("CPU count per node can not be satisfied"))
    if not asked.per_core and asked.memory > settings.memory:
        raise failed(_NOT_SATISFIED.format("Memory specification can not be satisfied"))
    if chosen.get("nodes") == "1" and asked.cores > settings.cores:
        raise failed("Requested node configuration is not available")


def _never(site: Site, asked: Asked) -> str:
    """The reason for which it waits for ever; "" when it does not."""
    settings = site.settings
    if asked.nodes > len(site.nodes):
        return "PartitionNodeLimit"
    if asked.limit is None or asked.limit > max_minutes(site):
        return "PartitionTimeLimit"
    return "PartitionConfig" if asked.cores > settings.all_cores else ""


def _check_room(site: Site, count: int) -> None:
    settings, queued = site.settings, site.queued()
    if settings.max_queued is not None and queued + count > settings.max_queued:
        limits = "job submit limit, user's size and/or time limits"
        raise failed(f"AssocMaxSubmitJobLimit\nJob violates accounting/QOS policy ({limits})")
    if queued + count > settings.max_jobs:
        line = "Slurm temporarily unable to accept job, sleeping and retrying"
        raise failed(f"{line}\nResource temporarily unavailable")


def _dependencies(site: Site, text: str) -> list[Awaited]:
    """The jobs it waits for: those that the controller does not know count as ended well."""
    awaited = []
    for part in filter(None, text.replace("?", ",").split(",")) if text else ():
        kind, *ids = part.split(":")
        if kind == "singleton":
            continue
        if kind not in _KINDS or not ids or text.endswith(","):
            raise failed("Job dependency problem")
        for id_ in ids:
            number, _, index = id_.partition("+")[0].partition("_")
            if not number.isdigit():
                raise failed("Job dependency problem")
            entry = site.entries.get(int(number))
            if entry and not entry.hidden:
                if kind == "aftercorr":
                    raise error("the pretend cluster cannot wait for corresponding tasks")
                awaited.append(Awaited(kind, entry, int(index) if index.isdigit() else None))
    return awaited


def _job(
    request: Request, words: Words, text: str, asked: Asked, indices: Array | None
) -> LocalJob:
    given = [*variables(request.environment).items(), *words.options]
    left_out = ("array", "wrap", "parsable", "quiet", "verbose", "hold", "dependency")
    flat = [
        f"--{name}={value}" if value else f"--{name}"
        for name, value in given
        if name not in left_out
    ]
    try:
        job = read_job(
            text,
            "slurm",
            file_name=asked.name,
            folder=request.cwd,
            environ=request.environment,
            words=flat,
            arguments=words.arguments,
        )
    except UsageError as problem:
        raise error(str(problem)) from problem
    job = job._replace(name=asked.name, queue=asked.partition)
    if indices is None:
        return job._replace(indices=(None,), at_once=None)
    return job._replace(indices=indices.indices, at_once=indices.at_once)
