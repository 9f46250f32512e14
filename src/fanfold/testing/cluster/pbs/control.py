"""qdel, qhold, qrls, qrerun and qsig."""

from __future__ import annotations

import getopt
import signal
from collections.abc import Callable, Mapping

from fanfold.schedulers.base import ENDED
from fanfold.testing.cluster.pbs.ids import Id, read_id
from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Entry, Site

__all__ = ["qdel", "qhold", "qrerun", "qrls", "qsig"]

_USAGES = {
    "qdel": "usage:\n\tqdel [-W force|suppress_email=X] [-x] job_identifier...\n\tqdel --version\n",
    "qhold": "usage: qhold [-h hold_list] job_identifier...\n       qhold --version\n",
    "qrls": "usage: qrls [-h hold_list] job_identifier...\n       qrls --version\n",
    "qrerun": "usage: qrerun [-W force] job_identifier...\n       qrerun --version\n",
    "qsig": "usage: qsig [-s signal] job_identifier...\n       qsig --version\n",
}
_LETTERS = {"qdel": "W:x", "qhold": "h:", "qrls": "h:", "qrerun": "W:", "qsig": "s:"}

Action = Callable[[Site, Entry, Id, Mapping[str, str]], None]


def _each(site: Site, request: Request, action: Action) -> Reply:
    """Do something to every job that is named; the exit status is that of the last that failed."""
    name = request.name
    try:
        found, operands = getopt.getopt(list(request.argv), _LETTERS[name])
    except getopt.GetoptError as error:
        raise Refusal(f"{name}: invalid option -- '{error.opt[:1]}'\n{_USAGES[name]}", 2) from error
    if not operands:
        raise Refusal(_USAGES[name], 2)
    chosen = {key[1]: value for key, value in found}
    site.contact()
    failures = []
    for text in operands:
        try:
            asked = read_id(text, name)
            action(site, _entry(site, asked, name), asked, chosen)
        except Refusal as refusal:
            failures.append(refusal.reply)
    err = "".join(failure.err for failure in failures)
    return Reply("", err, failures[-1].code if failures else 0)


def _entry(site: Site, asked: Id, name: str) -> Entry:
    entry = asked.entry(site)
    if entry is None or (entry.ended and not site.settings.history):
        shown = asked.text if name == "qdel" else asked.full(site)
        raise Refusal(f"{name}: Unknown Job Id {shown}\n", 153)
    return entry


def qdel(site: Site, request: Request) -> Reply:
    """End jobs, or remove them from the history."""
    return _each(site, request, _delete)


def _delete(site: Site, entry: Entry, asked: Id, chosen: Mapping[str, str]) -> None:
    full = asked.full(site)
    if entry.ended:
        if "x" not in chosen:
            raise Refusal(f"qdel: Job has finished {full}\n", 35)
        entry.hidden = True
    elif asked.indices is None:
        _delete_whole(site, entry)
    elif asked.one is not None and asked.one not in entry.elements:
        raise Refusal(f"qdel: Invalid request {full}\n", 156)
    elif asked.one is not None and entry.elements[asked.one].state in ENDED:
        raise Refusal(f"qdel: Request invalid for finished array subjob {full}\n", 55)
    else:
        there = [index for index in asked.indices if index in entry.elements]
        site.end(entry, list(there), "cancelled")


def _delete_whole(site: Site, entry: Entry) -> None:
    """All elements that do not run lose the records of their own, if they have any."""
    entry.deleted = True
    if entry.is_array:
        entry.wiped |= {
            index
            for index, element in entry.elements.items()
            if element.state not in ("running", "ending")
        }
    site.end(entry, list(entry.elements), "cancelled")


def qhold(site: Site, request: Request) -> Reply:
    """Keep jobs from starting."""

    def hold(site: Site, entry: Entry, asked: Id, chosen: Mapping[str, str]) -> None:
        _check_whole(site, entry, asked, "qhold")
        site.hold(entry, entry.elements)

    return _each(site, request, hold)


def qrls(site: Site, request: Request) -> Reply:
    """Let held jobs wait for their turn."""

    def release(site: Site, entry: Entry, asked: Id, chosen: Mapping[str, str]) -> None:
        _check_whole(site, entry, asked, "qrls")
        if "s" in chosen.get("h", "u"):
            raise Refusal(f"qrls: Unauthorized Request  {asked.full(site)}\n", 159)
        site.release(entry, entry.elements)

    return _each(site, request, release)


def _check_whole(site: Site, entry: Entry, asked: Id, name: str) -> None:
    if entry.ended:
        raise Refusal(f"{name}: Job has finished\n", 35)
    if asked.indices is not None:
        raise Refusal(f"{name}: Invalid request {asked.full(site)}\n", 156)


def qrerun(site: Site, request: Request) -> Reply:
    """Only operators may: users are refused."""

    def refuse(site: Site, entry: Entry, asked: Id, chosen: Mapping[str, str]) -> None:
        if entry.ended:
            raise Refusal("qrerun: Job has finished\n", 35)
        raise Refusal(f"qrerun: Unauthorized Request  {asked.full(site)}\n", 159)

    return _each(site, request, refuse)


def qsig(site: Site, request: Request) -> Reply:
    """Send a signal to jobs that run."""

    def send(site: Site, entry: Entry, asked: Id, chosen: Mapping[str, str]) -> None:
        name = chosen.get("s", "TERM").removeprefix("SIG")
        wanted = list(entry.elements) if asked.indices is None else list(asked.indices)
        there = [one for one in wanted if one in entry.elements]
        running = [one for one in there if entry.elements[one].state == "running"]
        signum = signal.Signals.__members__.get(f"SIG{name}") or name
        if not running or not str(int(signum) if not isinstance(signum, str) else signum).isdigit():
            raise Refusal(f"qsig: Request invalid for state of job {asked.full(site)}\n", 168)
        site.queue.signal(entry.number, int(signum), running)

    return _each(site, request, send)
