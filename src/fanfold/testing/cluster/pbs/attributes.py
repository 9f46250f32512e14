"""Everything that qstat says of a job: the attributes of PBS, in its order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from fanfold.schedulers.base import ENDED
from fanfold.schedulers.local import LocalElement
from fanfold.testing.cluster.pbs.ids import job_id
from fanfold.testing.cluster.pbs.options import Array, kilobytes
from fanfold.testing.cluster.pbs.printing import Row
from fanfold.testing.cluster.site import Entry, Index, Site

__all__ = ["element_row", "job_row", "rows"]

# The order of a plain job; an array and its elements have some of these.
_ORDER = (
    "Job_Name Job_Owner resources_used job_state queue server Account_Name Checkpoint ctime depend "
    "Error_Path exec_host exec_vnode Hold_Types Join_Path Keep_Files Mail_Points Mail_Users mtime "
    "Output_Path Priority qtime Rerunable Resource_List stime obittime session_id jobdir substate "
    "Variable_List comment etime run_count Stageout_status Exit_status Submit_arguments executable "
    "argument_list array array_id array_index array_state_count array_indices_submitted "
    "array_indices_remaining history_timestamp project Submit_Host max_run_subjobs"
)
_OF_NO_ELEMENT = frozenset({"Checkpoint", "Hold_Types", "Submit_arguments", "depend"})
_OF_NO_WAITING_ELEMENT = frozenset({"history_timestamp", "project", "Submit_Host"})

_RUNNING = {"waiting": "Q", "held": "Q", "running": "R", "ending": "E"}
_EXIT = {"walltime": -29, "memory": -27}
_HOW = {"done": " and finished", "walltime": " and exceeded resource walltime"}
_JOB_STATES = {"Q": 10, "H": 20, "W": 30, "R": 42, "E": 51, "B": 70}
_CYCLE = 0.1  # seconds until the scheduler has looked at a job


def rows(site: Site, entry: Entry, *, elements: bool) -> Iterator[Row]:
    """A job, and its elements when they are asked for."""
    yield job_row(site, entry)
    if elements and entry.is_array:
        for index in entry.elements:
            yield element_row(site, entry, index)


def _row(id_: str, attributes: dict[str, Any]) -> Row:
    return Row(id_, {name: attributes[name] for name in _ORDER.split() if name in attributes})


def job_row(site: Site, entry: Entry) -> Row:
    """A plain job, or an array as a whole."""
    attributes = _common(site, entry)
    if entry.is_array:
        attributes.update(_of_array(site, entry))
    else:
        attributes.update(_of_element(site, entry, entry.elements[None]))
    attributes["job_state"] = state = _job_state(site, entry)
    attributes.update(_of_holding(site, entry, state))
    if entry.gone:
        attributes = {name: value for name, value in attributes.items() if name != "comment"}
    return _row(job_id(entry, None, site.host), attributes)


def element_row(site: Site, entry: Entry, index: Index) -> Row:
    """An element of an array: while it has not started, it is little but a copy of the array."""
    element = entry.elements[index]
    began = element.began is not None and element.state not in ("waiting", "held")
    attributes = _common(site, entry)
    if began and index not in entry.wiped:
        attributes.update(_of_element(site, entry, element))
        attributes["array_id"] = job_id(entry, None, site.host)
        attributes["array_index"] = index
        for name in ("Output_Path", "Error_Path"):
            attributes[name] = attributes[name].replace("^array_index^", str(index), 1)
        left_out = _OF_NO_ELEMENT
    else:
        attributes.update(_of_array(site, entry))
        attributes.update(_of_holding(site, entry, _job_state(site, entry)))
        if element.state in ENDED:
            attributes["comment"] = "Subjob finished"
        else:
            attributes["substate"] = _JOB_STATES["Q"]
        own = {name for name in attributes if name.startswith("array") or name == "max_run_subjobs"}
        left_out = _OF_NO_WAITING_ELEMENT | own
    attributes["job_state"] = _element_state(entry, element)
    kept = {name: value for name, value in attributes.items() if name not in left_out}
    return _row(job_id(entry, index, site.host), kept)


# States -------------------------------------------------------------------------------------------


def _element_state(entry: Entry, element: LocalElement) -> str:
    if element.state in ENDED:
        return "F" if entry.ended else "X"
    return _RUNNING[element.state]


def _job_state(site: Site, entry: Entry) -> str:
    states = {element.state for element in entry.elements.values()}
    waits = states & {"waiting", "held"}
    if states <= ENDED:
        return "F"
    if waits and entry.held:
        return "H"
    if entry.is_array and states - {"waiting", "held"}:
        return "B"
    if not waits:
        return _RUNNING[next(iter(states))]
    return {"dependency": "H", "never": "H", "begin": "W"}.get(_why(site, entry), "Q")


def _why(site: Site, entry: Entry) -> str:
    """Why the first of those waits that wait."""
    waiting = (index for index, one in entry.elements.items() if one.state in ("waiting", "held"))
    return site.why(entry, next(waiting))


def _of_holding(site: Site, entry: Entry, state: str) -> dict[str, Any]:
    """What tells whether it is held, by whom, and what it waits for."""
    waits = entry.gone or (state == "H" and not entry.held)
    attributes: dict[str, Any] = {"Hold_Types": "s" if waits else "u" if entry.held else "n"}
    if waits:
        attributes["depend"] = entry.asked["depend"]
    if state == "H":
        attributes["substate"] = 22 if waits else 20
    if state == "H" and entry.held_at:
        attributes["comment"] = f"Job held by {site.user} on {time.ctime(entry.held_at)}"
    return attributes


# Attributes ---------------------------------------------------------------------------------------


def _common(site: Site, entry: Entry) -> dict[str, Any]:
    since = time.ctime(entry.since)
    attributes = {**entry.asked, "ctime": since, "qtime": since, "etime": since, "mtime": since}
    for name, letter in (("Output_Path", "o"), ("Error_Path", "e")):
        if name not in attributes:
            end = ".^array_index^" if entry.is_array else ""
            file = f"{entry.asked['Job_Name']}.{letter}{entry.number}{end}"
            attributes[name] = f"{site.host}:{entry.asked['cwd']}/{file}"
    if all(element.state in ("waiting", "held") for element in entry.elements.values()):
        attributes["substate"] = _JOB_STATES[_job_state(site, entry)]
        attributes.update(_of_waiting(site, entry))
    if entry.gone or entry.held or entry.awaited:
        del attributes["etime"]
    return {name: value for name, value in attributes.items() if name != "depend"}


def _of_waiting(site: Site, entry: Entry) -> dict[str, str]:
    if entry.never:
        return {"comment": entry.never}
    busy = _why(site, entry) == "workers" and time.time() - entry.since > _CYCLE
    return {"comment": "Not Running: Not enough free nodes available"} if busy else {}


def _of_array(site: Site, entry: Entry) -> dict[str, Any]:
    elements = entry.elements.values()
    began = [element.began for element in elements if element.began is not None]
    attributes: dict[str, Any] = {"substate": 10, **_counts(entry), "array": "True"}
    if began:
        start = min(began)
        attributes["stime"] = attributes["mtime"] = time.ctime(start)
        attributes["comment"] = f"Job Array Began at {_moment(start)}"
        attributes["substate"] = 70
    last = entry.last_ended
    if last is not None:
        attributes["Stageout_status"] = 1
        attributes["Exit_status"] = _of_the_last(_exit_status(last))
        attributes["mtime"] = time.ctime(last.ended)
    if entry.ended:
        _end_array(entry, attributes)
    return attributes


def _counts(entry: Entry) -> dict[str, Any]:
    asked: Array = entry.asked["-J"]
    states = [element.state for element in entry.elements.values()]
    waiting = [
        index
        for index, element in entry.elements.items()
        if element.state in ("waiting", "held") and index is not None
    ]
    ended = len(entry.wiped) if entry.ended else sum(state in ENDED for state in states)
    numbers = {
        "Queued": len(waiting),
        "Running": states.count("running"),
        "Exiting": states.count("ending"),
        "Expired": ended,
    }
    counts: dict[str, Any] = {
        "array_state_count": " ".join(f"{name}:{number}" for name, number in numbers.items()),
        "array_indices_submitted": asked.written,
        "array_indices_remaining": _ranges(waiting) or "-",
    }
    if len(waiting) == len(states) > 1:
        counts["array_indices_remaining"] = asked.whole
    if asked.at_once is not None:
        counts["max_run_subjobs"] = asked.at_once
    return counts


def _ranges(indices: Sequence[int]) -> str:
    """Indices as PBS lists them: ``1,3``, ``5-8``, ``4-25:3``."""
    parts: list[str] = []
    at = 0
    while at < len(indices):
        step = indices[at + 1] - indices[at] if at + 1 < len(indices) else 0
        end = at
        while end + 1 < len(indices) and indices[end + 1] - indices[end] == step:
            end += 1
        if end - at < 2 and step != 1:
            end = at
        more = f":{step}" if step > 1 else ""
        parts.append(f"{indices[at]}-{indices[end]}{more}" if end > at else str(indices[at]))
        at = end + 1
    return ",".join(parts)


def _end_array(entry: Entry, attributes: dict[str, Any]) -> None:
    ended = max(element.ended or 0.0 for element in entry.elements.values())
    failed = any(element.state not in ("done", "cancelled") for element in entry.elements.values())
    cancelled = any(element.state == "cancelled" for element in entry.elements.values())
    attributes["substate"] = 91 if entry.deleted else 93 if failed or cancelled else 92
    attributes["history_timestamp"] = int(ended)
    if attributes.get("stime"):
        attributes["obittime"] = time.ctime(ended)
    how = (
        " and terminated"
        if entry.deleted
        else {92: " and finished"}.get(attributes["substate"], " and failed")
    )
    attributes["comment"] = attributes.get("comment", "Subjob finished") + how


def _of_element(site: Site, entry: Entry, element: LocalElement) -> dict[str, Any]:
    """What a plain job, or an element that has started, has of its own."""
    attributes: dict[str, Any] = {}
    if element.began is not None and element.state not in ("waiting", "held"):
        attributes.update(_of_running(entry, element))
    if element.state in ENDED:
        attributes["substate"] = _substate(entry, element)
        attributes["history_timestamp"] = int(element.ended or 0)
        if element.began is not None:
            attributes["obittime"] = attributes["mtime"] = time.ctime(element.ended)
            attributes["Stageout_status"] = 0 if element.undelivered else 1
            attributes["Exit_status"] = _exit_status(element)
            attributes["comment"] += _how(site, element)
    return attributes


def _of_running(entry: Entry, element: LocalElement) -> dict[str, Any]:
    wanted = dict(entry.asked["Resource_List"])
    chunk = ":".join(_in_kilobytes(part) for part in wanted["select"].split("+")[0].split(":")[1:])
    began = time.ctime(element.began)
    vnode = f"({element.node}:{chunk})"
    cores = int(wanted["ncpus"])
    attributes = {
        "resources_used": _used(element, cores),
        "exec_host": f"{element.node}/0" + (f"*{cores}" if cores > 1 else ""),
        "exec_vnode": vnode,
        "stime": began,
        "mtime": began,
        "jobdir": entry.job.folder,
        "substate": _JOB_STATES[_RUNNING.get(element.state, "R")],
        "comment": f"Job run at {_moment(element.began or 0)} on {vnode}",
        "run_count": element.restarts + 1,
    }
    if element.pid is not None:
        attributes["session_id"] = element.pid
    return attributes


def _in_kilobytes(part: str) -> str:
    name, _, value = part.partition("=")
    return f"mem={kilobytes(value)}kb" if name == "mem" else part


def _used(element: LocalElement, cores: int) -> tuple[tuple[str, Any], ...]:
    """What it has used, which is looked at rarely while it runs."""
    ended = element.ended if element.state in ENDED else element.began
    seconds = int((ended or 0) - (element.began or 0))
    cpu_time, memory = element.cpu_time or 0.0, (element.peak_memory or 0) // 1024
    return (
        ("cpupercent", int(100 * cpu_time / seconds) if seconds else 0),
        ("cput", _clock(int(cpu_time))),
        ("mem", f"{memory}kb"),
        ("ncpus", cores),
        ("vmem", f"{memory}kb"),
        ("walltime", _clock(seconds)),
    )


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _moment(seconds: float) -> str:
    return time.strftime("%a %b %d at %H:%M", time.localtime(seconds))


def _substate(entry: Entry, element: LocalElement) -> int:
    if entry.gone or element.state == "done":
        return 92
    return 91 if element.state == "cancelled" else 93


def _how(site: Site, element: LocalElement) -> str:
    if element.state == "cancelled":
        return f" and terminated by {site.user}@{site.host}"
    return _HOW.get(element.state, " and failed")


def _exit_status(element: LocalElement) -> int:
    """As PBS counts: a script ended by a signal is 128 and it, by PBS itself 256 and it."""
    if element.state in _EXIT:
        return _EXIT[element.state]
    if element.reason:
        return -3
    if element.signal is not None:
        return (128 if element.state == "failed" else 256) + element.signal
    return element.exit_status or 0


def _of_the_last(status: int) -> int:
    """What an array makes of the exit status of its last element."""
    return (status > 0) + 2 * (status < 0)
