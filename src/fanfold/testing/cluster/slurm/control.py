"""scontrol and scancel."""

from __future__ import annotations

import getopt
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence

from fanfold.schedulers.base import ENDED
from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Entry, Index, Site
from fanfold.testing.cluster.slurm import about
from fanfold.testing.cluster.slurm.options import array
from fanfold.testing.cluster.slurm.records import Record, clock, duration, forgotten, records
from fanfold.testing.cluster.slurm.submit import Asked, max_array_size

__all__ = ["scancel", "scontrol"]

_UNKNOWN = "Invalid job id specified"
_JOB = """\
JobId={raw} {array}JobName={asked.name}
   UserId={user}({uid}) GroupId={user}({uid}) MCS_label=N/A
   Priority={priority} Nice=0 Account={account} QOS=normal
   JobState={state} Reason={reason} Dependency={dependency}
   Requeue={requeue} Restarts={restarts} BatchFlag=1 Reboot=0 ExitCode={code}:{signal}
   RunTime={run_time} TimeLimit={limit} TimeMin=N/A
   SubmitTime={submitted} EligibleTime={began}
   AccrueTime={submitted}
   StartTime={began} EndTime={end} Deadline=N/A
   SuspendTime=None SecsPreSuspend=0 LastSchedEval={submitted} Scheduler=Main
   Partition={asked.partition} AllocNode:Sid=localhost:1
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList={node}
{batch_host}   NumNodes={asked.nodes} NumCPUs={asked.cores} NumTasks={asked.tasks} {each} {req}
   TRES=cpu={asked.cores},mem={memory}M,node={asked.nodes},billing={asked.cores}
   Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=*
   MinCPUsNode={cores} {least} MinTmpDiskNode=0
   Features=(null) DelayBoot=00:00:00
   OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null)
   Command={command}
   WorkDir={asked.folder}
   StdErr={error}
   StdIn=/dev/null
   StdOut={output}
   Power=
   

"""  # noqa: W293


def scontrol(site: Site, request: Request) -> Reply:
    """Show what there is, and change what becomes of jobs."""
    try:
        found, words = getopt.getopt(list(request.argv), "o", ["oneliner"])
    except getopt.GetoptError as problem:
        said = f"scontrol: unrecognized option '{problem.opt}'\n"
        raise Refusal(f'{said}Try "scontrol --help" for more information\n') from problem
    one_line = bool({"-o", "--oneliner"} & {key for key, _ in found})
    verb, *rest = words or [""]
    if verb == "show" and rest[:1] == ["job"]:
        return _show_job(site, request, rest[1:], one_line)
    if verb == "show" and rest == ["config"]:
        site.contact()
        return Reply(about.config(site))
    if verb == "ping":
        return about.ping(site)
    if verb in _ACTIONS and rest:
        site.contact()
        return _act(site, verb, rest)
    raise Refusal(f"invalid keyword: {' '.join(words)}\n")


def _show_job(site: Site, request: Request, names: Sequence[str], one_line: bool) -> Reply:
    site.contact()
    every = records(site, request.environment)
    if names:
        match = re.fullmatch(r"([0-9]+)(?:_([0-9]+))?", names[0])
        if match is None:
            raise Refusal(f"scontrol_print_job error: {_UNKNOWN}\n")
        every = [one for one in every if int(match[1]) in (one.entry.number, one.raw)]
        if not every:
            raise Refusal(f"slurm_load_jobs error: {_UNKNOWN}\n")
        if match[2] is not None:
            every = list(_only(every, int(match[2])))
            if not every:
                return Reply(f"Job {names[0]} not found\n", "", 1)
    texts = [_text(one) for one in every]
    if one_line:
        texts = [re.sub(r"\s*\n\s*", " ", text).rstrip() + " \n" for text in texts]
    return Reply("".join(texts) or "No jobs in the system\n")


def _only(every: Sequence[Record], index: int) -> Iterator[Record]:
    for record in every:
        if index in record.indices:
            element = record.entry.elements[index]
            yield Record(record.site, record.entry, (index,), element)


def _text(record: Record) -> str:
    asked, entry, element = record.asked, record.entry, record.element
    throttle = f"ArrayTaskThrottle={entry.job.at_once} " if entry.job.at_once else ""
    ids = f"ArrayJobId={entry.number} ArrayTaskId={record.tasks} {throttle}"
    code, signum = record.status
    per = "CPU" if asked.per_core else "Node"
    return _JOB.format(
        raw=record.raw,
        array=ids if entry.is_array else "",
        asked=asked,
        user=record.site.user,
        uid=record.site.uid,
        priority=record.priority,
        account=asked.account or "(null)",
        state=record.state,
        reason=record.reason,
        dependency=asked.dependency if record.waits and asked.dependency else "(null)",
        requeue=int(entry.requeue),
        restarts=element.restarts,
        code=code,
        signal=signum,
        run_time=duration(record.seconds, full=True),
        limit=clock(asked.limit, full=True),
        submitted=record.moment(record.submitted),
        began=record.moment(record.began, "Unknown"),
        end=record.moment(record.end, "Unknown"),
        node=record.node,
        batch_host=f"   BatchHost={record.node}\n" if record.node else "",
        cores=asked.cores // asked.tasks,
        each=f"CPUs/Task={asked.cores // asked.tasks}",
        req="ReqB:S:C:T=0:0:*:*",
        memory=record.memory,
        least=f"MinMemory{per}={asked.memory}M",
        command=asked.command or "(null)",
        error=element.error or _pattern(record, asked.error or asked.output),
        output=element.output or _pattern(record, asked.output),
    )


def _pattern(record: Record, pattern: str) -> str:
    """Where the output will go; the index of those that wait together is a senseless number."""
    entry = record.entry
    fields = {
        "%A": entry.number,
        "%a": 4_294_967_294 if record.together else record.tasks,
        "%j": record.raw,
        "%x": record.asked.name,
        "%%": "%",
    }
    path = pattern or ("slurm-%A_%a.out" if entry.is_array else "slurm-%j.out")
    filled = re.sub("%[Aajx%]", lambda match: str(fields[match[0]]), path)
    return os.path.join(record.asked.folder, filled)


# Changes ------------------------------------------------------------------------------------------


def _act(site: Site, verb: str, names: Sequence[str]) -> Reply:
    failures = []
    for name in (part for text in names for part in text.split(",")):
        match = re.fullmatch(r"([0-9]+)(?:_([0-9]+))?", name)
        found = match and _entry(site, int(match[1]))
        if not match or not found:
            failures.append(f"{_UNKNOWN} for job {name}\n")
            if verb in ("hold", "release"):
                failures.append(f"slurm_suspend error: {_UNKNOWN}\n")
            continue
        entry, own = found
        named = own if match[2] is None else [int(match[2])]
        failures += _ACTIONS[verb](
            site, entry, [one for one in named if one in entry.elements], name
        )
    return Reply("", "".join(failures), 1 if failures else 0)


def _entry(site: Site, number: int) -> tuple[Entry, list[Index]] | None:
    """A job by its number, or by the raw one of an element, and the elements that it names."""
    for entry in site.known():
        remembered = {
            index: element
            for index, element in entry.elements.items()
            if not forgotten(site, element)
        }
        if entry.number == number and remembered:
            return entry, list(remembered)
        for index, element in remembered.items():
            if element.raw == number:
                return entry, [index]
    return None


def _requeue(site: Site, entry: Entry, indices: list[Index], name: str) -> list[str]:
    if not entry.requeue:
        return [f"Requested operation is presently disabled for job {name}\n"]
    for index in indices:
        element = entry.elements[index]
        if element.state == "running" or element.state in ENDED:
            site.requeue(entry, index, "waiting")
    return []


def _requeue_held(site: Site, entry: Entry, indices: list[Index], name: str) -> list[str]:
    failures = _requeue(site, entry, indices, name)
    if not failures:
        site.hold(entry, indices)
    return failures


def _hold(site: Site, entry: Entry, indices: list[Index], name: str) -> list[str]:
    site.hold(entry, indices)
    return []


def _release(site: Site, entry: Entry, indices: list[Index], name: str) -> list[str]:
    site.release(entry, indices)
    return []


_ACTIONS: Mapping[str, Callable[[Site, Entry, list[Index], str], list[str]]] = {
    "hold": _hold,
    "release": _release,
    "requeue": _requeue,
    "requeuehold": _requeue_held,
}


# scancel ------------------------------------------------------------------------------------------

_SHORT = "bfHin:p:Qs:t:u:v"
_LONG = "batch ctld full hurry interactive me name= partition= quiet signal= state= user= verbose"
_SAME = {
    "b": "batch", "f": "full", "n": "name", "p": "partition", "Q": "quiet", "s": "signal",
    "t": "state", "u": "user", "v": "verbose",
}  # fmt: skip


def scancel(site: Site, request: Request) -> Reply:
    """End jobs, or send them a signal; nothing is said of those that are not there."""
    try:
        found, operands = getopt.gnu_getopt(list(request.argv), _SHORT, _LONG.split())
    except getopt.GetoptError as problem:
        said = f"scancel: unrecognized option '{problem.opt}'\n"
        raise Refusal(f'{said}Try "scancel --help" for more information\n') from problem
    chosen = {_SAME.get(key.lstrip("-"), key.lstrip("-")): value for key, value in found}
    if not operands and not {"me", "name", "partition", "state", "user"} & set(chosen):
        raise Refusal("scancel: error: No job identification provided\n")
    asked = [_asked(site, text) for text in operands]
    user = chosen.get("user", site.user)
    if not site.has_user(user):
        raise Refusal(f"scancel: error: Invalid user name: {user}\n")
    site.contact()
    if not operands and user == site.user:
        asked = [(str(entry.number), entry.number, None) for entry in site.known()]
    err = "".join(_cancel(site, chosen, *one) for one in asked)
    return Reply("", err)


def _asked(site: Site, text: str) -> tuple[str, int, tuple[int, ...] | None]:
    """The number of a job, and the indices where elements are named."""
    match = re.fullmatch(r"([0-9]+)(?:_(?:([0-9]+)|\[([0-9,:-]+)\]))?", text)
    if match is None:
        raise Refusal(f"scancel: error: Invalid job id {text}\n")
    if match[2] is None and match[3] is None:
        return text, int(match[1]), None
    try:
        return text, int(match[1]), array(match[2] or match[3], max_array_size(site) - 1).indices
    except Refusal:
        raise Refusal(f"scancel: error: Invalid job id {text}\n") from None


def _cancel(
    site: Site, chosen: Mapping[str, str], text: str, number: int, indices: tuple[int, ...] | None
) -> str:
    """Do it to one that is named; what ``-v`` tells of it."""
    found = _entry(site, number)
    why = _UNKNOWN
    if found is not None:
        entry, own = found
        named = own if indices is None else [index for index in indices if index in entry.elements]
        live = [one for one in named if entry.elements[one].state not in ENDED]
        if live and _is_chosen(entry, chosen):
            wanted = [one for one in live if _in_state(entry, one, chosen)]
            _end(site, entry, wanted, chosen, whole=indices is None)
        why = "" if live else "Job/step already completing or completed"
    if "verbose" not in chosen:
        return ""
    failed = f"scancel: error: Kill job error on job id {text}: {why}\n" if why else ""
    return f"scancel: Terminating job {text}\n{failed}"


def _is_chosen(entry: Entry, chosen: Mapping[str, str]) -> bool:
    asked: Asked = entry.asked
    own = {"name": asked.name, "partition": asked.partition}
    return all(chosen.get(key, value) == value for key, value in own.items())


def _in_state(entry: Entry, index: Index, chosen: Mapping[str, str]) -> bool:
    if "state" not in chosen:
        return True
    word = {"PD": "PENDING", "R": "RUNNING"}.get(chosen["state"].upper(), chosen["state"].upper())
    waits = entry.elements[index].state in ("waiting", "held")
    return word == ("PENDING" if waits else "RUNNING")


def _end(
    site: Site, entry: Entry, indices: list[Index], chosen: Mapping[str, str], *, whole: bool
) -> None:
    name = chosen.get("signal", "KILL").upper().removeprefix("SIG")
    if "signal" in chosen and name != "KILL":
        if {"batch", "full"} & set(chosen):
            signum = int(name) if name.isdigit() else signal.Signals[f"SIG{name}"]
            site.queue.signal(entry.number, signum, indices, script_only="batch" in chosen)
        return
    waiting = [one for one in indices if entry.elements[one].raw == 0]
    live = {one for one, element in entry.elements.items() if element.state not in ENDED}
    rest = [one for one in live - set(waiting) if entry.elements[one].raw == 0]
    if entry.is_array and waiting and not rest:
        entry.wiped = set(waiting)
        entry.deleted = whole
    site.end(entry, indices, "cancelled")
