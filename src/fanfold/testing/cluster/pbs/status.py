"""qstat and qselect."""

from __future__ import annotations

import getopt
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from fanfold.testing.cluster.pbs import about
from fanfold.testing.cluster.pbs.attributes import element_row, rows
from fanfold.testing.cluster.pbs.ids import Id, read_id
from fanfold.testing.cluster.pbs.printing import (
    Row,
    as_json,
    as_text,
    head,
    long_table,
    short_table,
)
from fanfold.testing.cluster.requests import Refusal, Reply, Request
from fanfold.testing.cluster.site import Entry, Site

__all__ = ["qselect", "qstat"]

_LETTERS = "aBEfF:HJQstu:wx"
_USAGE = """\
usage: 
qstat [-f] [-J] [-p] [-t] [-x] [-E] [-F format | -w] [-D delim] [ job_identifier... | destination... ]
qstat [-a|-i|-r|-H|-T] [-J] [-t] [-u user] [-n] [-s] [-G|-M] [-1] [-w]
	[ job_identifier... | destination... ]
qstat -Q [-f] [-F format] [-D delim] [ destination... ]
qstat -q [-G|-M] [ destination... ]
qstat -B [-f] [-F format] [-D delim] [ server_name... ]
qstat --version
"""  # noqa: E501, W291
_NO_HISTORY = "qstat: PBS is not configured to maintain job history {}\n"
_FINISHED = "qstat: {} Job has finished, use -x or -H to obtain historical job information\n"


class _Found(NamedTuple):
    """What was asked about: rows, what was said of the rest, and the exit status of that."""

    rows: list[Row]
    err: str = ""
    code: int = 0
    first: bool = True  # whether the first one was there: else the table has no head


def qstat(site: Site, request: Request) -> Reply:
    """Tell of jobs, of queues, or of the server."""
    if list(request.argv) == ["--version"]:
        return Reply("pbs_version = 23.06.06\n")
    chosen, operands = _options(request.argv)
    site.contact()
    if {"B", "Q"} & set(chosen):
        return about.server_or_queues(site, chosen, operands)
    found = _found(site, chosen, operands)
    return Reply(_print(site, chosen, found), found.err, found.code)


def _options(argv: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    try:
        found, operands = getopt.gnu_getopt(list(argv), _LETTERS)
    except getopt.GetoptError as error:
        raise Refusal(f"qstat: invalid option -- '{error.opt[:1]}'\n{_USAGE}", 2) from error
    chosen = {key[1]: value for key, value in found}
    if "F" in chosen and (not {"f", "B", "Q"} & set(chosen) or "u" in chosen):
        raise Refusal(f"qstat: conflicting options.\n{_USAGE}", 2)
    if chosen.get("F", "json") != "json":
        raise Refusal(_USAGE, 2)
    return chosen, operands


def _found(site: Site, chosen: Mapping[str, str], operands: list[str]) -> _Found:
    history = "x" in chosen or "H" in chosen
    if history and not site.settings.history:
        names = [read_id(text, "qstat").full(site) for text in operands] or [""]
        return _Found([], "".join(_NO_HISTORY.format(name) for name in names))
    if not operands:
        return _Found(list(_everything(site, chosen, None)))
    results = [_one(site, chosen, text, history) for text in operands]
    return _Found(
        [row for result in results for row in result.rows],
        "".join(result.err for result in results),
        max(result.code for result in results),
        results[0].first,
    )


def _everything(site: Site, chosen: Mapping[str, str], queue: str | None) -> Iterator[Row]:
    history = "x" in chosen or "H" in chosen
    users = chosen["u"].split(",") if "u" in chosen else [site.user]
    for entry in site.known():
        wanted = entry.ended if "H" in chosen else history or not entry.ended
        if not wanted or site.user not in users or ("J" in chosen and not entry.is_array):
            continue
        if queue in (None, entry.asked["queue"]):
            found = list(rows(site, entry, elements="t" in chosen))
            yield from found[1:] if len(found) > 1 and _is_long(chosen) else found


def _one(site: Site, chosen: Mapping[str, str], text: str, history: bool) -> _Found:
    """What one operand names: a job, elements of one, a queue, or everything."""
    if text == "" or text.startswith("@"):
        return _Found(list(_everything(site, chosen, None)))
    if not text[0].isdigit():
        if text.partition("@")[0] not in (site.settings.queues or about.QUEUES):
            said = f"qstat: Unknown queue destination {text}\n"
            return _Found([], said, 170, first=False)
        return _Found(list(_everything(site, chosen, text.partition("@")[0])))
    asked = read_id(text, "qstat")
    entry = asked.entry(site)
    missing = entry is None or any(one not in entry.elements for one in asked.indices or ())
    if entry is None or missing or (entry.ended and not site.settings.history):
        if "E" in chosen:
            return _Found([])
        return _Found([], f"qstat: Unknown Job Id {asked.full(site)}\n", 153, first=False)
    if entry.ended and not history:
        return _Found([], _FINISHED.format(asked.full(site)), 35, first=False)
    return _Found(list(_rows_of(site, chosen, entry, asked)))


def _rows_of(site: Site, chosen: Mapping[str, str], entry: Entry, asked: Id) -> Iterator[Row]:
    if asked.indices is None:
        return rows(site, entry, elements="t" in chosen)
    return (element_row(site, entry, index) for index in asked.indices)


def _is_long(chosen: Mapping[str, str]) -> bool:
    return bool({"a", "H", "s", "u"} & set(chosen))


def _print(site: Site, chosen: Mapping[str, str], found: _Found) -> str:
    if chosen.get("F") == "json":
        return as_json(head(site), found.rows, site.settings.json)
    if _is_long(chosen):
        return long_table(found.rows, site.host, why="s" in chosen)
    if "f" in chosen:
        return as_text(found.rows, fold="w" not in chosen)
    return short_table(found.rows, head=found.first)


# qselect ------------------------------------------------------------------------------------------


def qselect(site: Site, request: Request) -> Reply:
    """List the ids of the jobs that are as asked for."""
    try:
        found, operands = getopt.getopt(list(request.argv), "HJN:q:s:Tu:x")
    except getopt.GetoptError as error:
        raise Refusal(f"qselect: invalid option -- '{error.opt[:1]}'\n", 2) from error
    if operands:
        raise Refusal("usage: qselect [-H] [-J] [-N name] [-q queue] [-s states] [-T] [-x]\n", 2)
    chosen = {key[1]: value for key, value in found}
    site.contact()
    if {"H", "x"} & set(chosen) and not site.settings.history:
        return Reply("", _NO_HISTORY.format("").replace("qstat", "qselect"))
    entries = (entry for entry in site.known() if _selected(site, entry, chosen))
    ids = (id_ for entry in entries for id_ in _ids(site, entry, chosen))
    return Reply("".join(f"{id_}\n" for id_ in ids))


def _selected(site: Site, entry: Entry, chosen: Mapping[str, str]) -> bool:
    tests: dict[str, Callable[[str], bool]] = {
        "H": lambda _: entry.ended,
        "J": lambda _: entry.is_array,
        "N": lambda name: entry.asked["Job_Name"] == name,
        "q": lambda queue: entry.asked["queue"] == queue.partition("@")[0],
        "u": lambda users: site.user in [user.partition("@")[0] for user in users.split(",")],
    }
    shown = "x" in chosen or "H" in chosen or not entry.ended
    return shown and all(tests[key](value) for key, value in chosen.items() if key in tests)


def _ids(site: Site, entry: Entry, chosen: Mapping[str, str]) -> Iterator[str]:
    """The job, or its elements; those in the states that were asked for."""
    whole, *elements = rows(site, entry, elements="T" in chosen)
    for row in elements or [whole]:
        ended = not entry.ended and entry.is_array and row.text("job_state") == "X"
        if row.text("job_state") in chosen.get("s", row.text("job_state")) and not (
            ended and "x" not in chosen and "s" not in chosen
        ):
            yield row.id
