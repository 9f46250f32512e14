"""qsub."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from fanfold.errors import UsageError
from fanfold.schedulers.local import LocalJob, read_job
from fanfold.testing.cluster.pbs.ids import job_id, read_id
from fanfold.testing.cluster.pbs.options import (
    Words,
    array,
    kilobytes,
    merged,
    options,
    pairs,
    resources,
    usage,
    variables,
)
from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Awaited, Entry, Site

__all__ = ["QUEUES", "qsub"]

QUEUES = ("workq", "defaultQ")
MAX_ARRAY_SIZE = 10_000

_NO_TERMINAL = (
    "qsub:\tstandard input and output must be a terminal for\n\tinteractive job submission\n"
)
_PASSED = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL")


def qsub(site: Site, request: Request) -> Reply:
    """Take a job: print its id, and nothing else."""
    if list(request.argv) == ["--version"]:
        return Reply("pbs_version = 23.06.06\n")
    words = options(request.argv)
    text, default = _script(request, words)
    chosen, requests = merged(text, words)
    _check(chosen, default)
    variables(chosen.get("v", ""), request.environment)  # qsub itself refuses these
    site.contact()
    try:
        entry = _submit(site, request, words, text, chosen, requests, chosen.get("N", default))
    except Refusal:
        site.queue.skip()
        raise
    return Reply("" if "z" in chosen else f"{job_id(entry, None, site.host)}\n")


def _submit(
    site: Site,
    request: Request,
    words: Words,
    text: str,
    chosen: Mapping[str, str],
    requests: list[str],
    name: str,
) -> Entry:
    """What the server does: a refusal of it uses up a number."""
    asked = _attributes(site, request, chosen, requests, name) | _command(words)
    _check_limits(site, chosen, asked)
    job = _job(site, request, words, text, name)
    awaited, unknown = _dependencies(site, asked["depend"])
    entry = site.submit(
        job._replace(queue=asked["queue"]),
        asked,
        awaited=awaited,
        never=_never(site, asked["Resource_List"]),
        requeue=chosen.get("r") != "n",
        hold="h" in chosen,
    )
    if unknown:
        site.take_away(entry)
    return entry


def _script(request: Request, words: Words) -> tuple[str, str]:
    """What is to be run, and the name of a job that has none."""
    if words.command:
        return f"#!/bin/sh\nexec {shlex.join(words.command)}\n", "STDIN"
    if any(letter == "I" for letter, _ in words.options) and words.script is None:
        return "", "STDIN"
    if words.script is None:
        return request.input(), "STDIN"
    try:
        data = request.path(words.script).read_bytes()
    except OSError as error:
        raise Refusal(f"qsub: script file:: {os.strerror(error.errno or 0)}\n") from error
    return data.decode("utf-8", "surrogateescape"), os.path.basename(words.script)


def _check(chosen: Mapping[str, str], default: str) -> None:
    if "N" not in chosen and not re.fullmatch(r"[A-Za-z0-9_.+-]{1,230}", default):
        raise usage("illegal -N value")
    if "J" in chosen and "I" in chosen:
        raise usage("interactive and array job submission cannot be used together")
    if "J" in chosen and chosen.get("r") == "n":
        raise usage(" cannot submit non-rerunable Array Job")
    if "I" in chosen:
        raise Refusal(_NO_TERMINAL)


def _attributes(
    site: Site, request: Request, chosen: Mapping[str, str], requests: list[str], name: str
) -> dict[str, Any]:
    """The attributes of a job that never change."""
    queue = chosen.get("q", "").partition("@")[0]
    queues = site.settings.queues or QUEUES
    passed = variables(chosen.get("v", ""), request.environment)
    asked: dict[str, Any] = {
        "Job_Name": name,
        "Job_Owner": f"{site.user}@{site.host}",
        "queue": queue or queues[0],
        "server": site.host,
        "Checkpoint": "u",
        "Join_Path": chosen.get("j", "n"),
        "Keep_Files": chosen.get("k", "n"),
        "Mail_Points": chosen.get("m", "a"),
        "Priority": int(chosen.get("p", "0")),
        "Rerunable": "False" if chosen.get("r") == "n" else "True",
        "Resource_List": resources(requests),
        "Variable_List": _variable_list(site, request, passed, queue or queues[0]),
        "project": chosen.get("P", "_pbs_project_default"),
        "Submit_Host": site.host,
    }
    for letter, attribute in (("A", "Account_Name"), ("M", "Mail_Users")):
        if letter in chosen:
            asked[attribute] = chosen[letter]
    if request.argv:
        asked["Submit_arguments"] = " ".join(request.argv)
    for letter, attribute in (("o", "Output_Path"), ("e", "Error_Path")):
        if letter in chosen:
            path = chosen[letter].rpartition(":")[2] if "/" in chosen[letter] else chosen[letter]
            asked[attribute] = f"{site.host}:{os.path.join(request.cwd, path)}"
    if "J" in chosen:
        asked["-J"] = array(chosen["J"])
    asked["depend"] = ",".join(_depend(site, chosen))
    asked["cwd"] = request.cwd
    return asked


def _command(words: Words) -> dict[str, str]:
    """What stood behind ``--``, in tags."""
    if not words.command:
        return {}
    program, *arguments = (escape(word, {'"': "&quot;"}) for word in words.command)
    asked = {"executable": f"<jsdl-hpcpa:Executable>{program}</jsdl-hpcpa:Executable>"}
    if arguments:
        tags = (f"<jsdl-hpcpa:Argument>{word}</jsdl-hpcpa:Argument>" for word in arguments)
        asked["argument_list"] = "".join(tags)
    return asked


def _depend(site: Site, chosen: Mapping[str, str]) -> Iterator[str]:
    """What it waits for, with the names of the server in every id."""
    for name, value in pairs(chosen.get("W", "")):
        for part in value.split(",") if name == "depend" else ():
            kind, *ids = part.split(":")
            full = (f"{read_id(text, 'qsub').full(site)}@{site.host}" for text in ids)
            yield ":".join([kind, *full])


def _variable_list(
    site: Site, request: Request, passed: list[tuple[str, str]], queue: str
) -> tuple[tuple[str, str], ...]:
    """What the job gets, as the server keeps it: a backslash of ``-v`` is doubled twice."""
    environment = [
        (f"PBS_O_{name}", request.environment[name].replace("\\", "\\\\"))
        for name in _PASSED
        if name in request.environment
    ]
    return (
        *environment,
        ("PBS_O_WORKDIR", request.cwd.replace("\\", "\\\\")),
        ("PBS_O_SYSTEM", "Linux"),
        *((name, value.replace("\\", "\\\\")) for name, value in passed),
        ("PBS_O_QUEUE", queue),
        ("PBS_O_HOST", site.host),
    )


def _check_limits(site: Site, chosen: Mapping[str, str], asked: Mapping[str, Any]) -> None:
    settings = site.settings
    if asked["queue"] not in (settings.queues or QUEUES):
        raise Refusal("qsub: Unknown queue\n", 170)
    count = len(array(chosen["J"]).indices) if "J" in chosen else 1
    if count > (settings.max_array_size or MAX_ARRAY_SIZE):
        raise Refusal("qsub: Array job exceeds server or queue size limit\n", 3)
    if settings.max_queued is not None and site.queued() + count > settings.max_queued:
        raise Refusal("qsub: would exceed queue generic's per-user limit\n", 38)
    limit = settings.max_walltime
    if limit and seconds(dict(asked["Resource_List"]).get("walltime", "0")) > limit:
        raise Refusal("qsub: Job violates queue and/or server resource limits\n", 188)


def seconds(clock: str) -> int:
    """``HH:MM:SS`` in seconds."""
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part)
    return total


def _job(site: Site, request: Request, words: Words, text: str, name: str) -> LocalJob:
    """The job for the queue. What PBS passes of the environment is not for ``-V`` to say."""
    flat = [word for key, value in words.options if key not in "zfV" for word in (f"-{key}", value)]
    try:
        job = read_job(
            text,
            "pbs",
            file_name=name,
            folder=request.cwd,
            environ=request.environment,
            words=[word for word in flat if word],
        )
    except UsageError as error:
        raise Refusal(f"qsub: {error}\n") from error
    return job._replace(name=name)


def _dependencies(site: Site, depend: str) -> tuple[list[Awaited], bool]:
    """What it waits for, and whether there is something that the server does not know."""
    awaited, unknown = [], False
    for part in filter(None, depend.split(",")):
        kind, *ids = part.split(":")
        for entry in (read_id(text, "qsub").entry(site) for text in ids):
            unknown = unknown or entry is None
            if entry is not None and kind.startswith("after"):
                awaited.append(Awaited(kind, entry))
    return awaited, unknown


def _never(site: Site, wanted: tuple[tuple[str, Any], ...]) -> str:
    """Why no node, nor all of them, could ever run such a job; "" where they could."""
    asked, settings = dict(wanted), site.settings
    cores = max(map(int, re.findall(r"ncpus=([0-9]+)", asked["select"])))
    if cores > settings.cores:
        return _too_much("ncpus", cores, settings.cores)
    memory = max(map(kilobytes, re.findall(r":mem=(\w+)", asked["select"])), default=0)
    if memory > settings.memory * 1024:
        return _too_much("mem", f"{memory}kb", f"{settings.memory * 1024}kb")
    chunks = int(asked["nodect"]) if asked["place"].startswith("scatter") else 0
    total = settings.all_cores
    if int(asked["ncpus"]) > total:
        return _too_much("ncpus", asked["ncpus"], total)
    return "Can Never Run: Not enough total nodes available" if chunks > len(site.nodes) else ""


def _too_much(name: str, wanted: object, there_is: object) -> str:
    amounts = f"R: {wanted} A: {there_is} T: {there_is}"
    return f"Can Never Run: Insufficient amount of resource: {name} ({amounts})"
