"""What the elements of job arrays asked for, what they used, and what to ask for next time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fanfold.history import History
from fanfold.reports.document import Advice, Code, Facts, Item, Paragraph, Section, Table
from fanfold.reports.next_time import next_time
from fanfold.reports.sizing import Use, percentile, sizing, uses
from fanfold.reports.used import CORES, KINDS, MEMORY, TIME, Kind, cpu_time, ending, warned
from fanfold.reports.words import duration, number, one_line, percent, plural
from fanfold.schedulers.scripts.writing import DIALECTS

if TYPE_CHECKING:
    from fanfold.reports.pieces import Pieces

__all__ = ["elements", "usage"]

MOST_TIGHT = 5
APART = 0.1  # by which our count and the scheduler's may differ without a word
COUNTED = 60.0  # seconds that an element must have run for the scheduler's count of it to mean much

_MEASURED = (
    "Measured by the elements themselves about once a second, with all their processes; memory "
    "that these share counts once, and shorter peaks are known of single workers only. Where the "
    "scheduler counts more, its count is taken."
)


def usage(history: History, pieces: Pieces) -> Section | None:
    """What the elements used that have ended; None where there are none."""
    used = uses(history.elements, pieces)
    if not used:
        return None
    advised = sizing(used)
    items: list[Item] = [
        Facts(tuple(_figures(used, len(history.elements))), short=True),
        *(Paragraph(text, warning=True) for text in warned(used, advised)),
        *(Paragraph(text) for text in _differences(used, _scheduler(history))),
        _spread([use for use in used if use.whole] or used),
        _table(_title(used), sorted(used, key=_tightness, reverse=True)[:MOST_TIGHT]),
        *_next_time(history, pieces),
        Paragraph(_MEASURED),
    ]
    return Section("Resources", tuple(items))


def elements(history: History, pieces: Pieces) -> Section:
    """Every element that has ended, a line each."""
    used = uses(history.elements, pieces)
    if not used:
        return Section("Elements", (Paragraph("No element has ended yet."),))
    return Section("Elements", (_table("", used),))


def _scheduler(history: History) -> str:
    """The name of the scheduler, as it is in `DIALECTS`; "" for another place."""
    name = history.asked.get("on")
    return name if isinstance(name, str) and name in DIALECTS else ""


# Figures and words --------------------------------------------------------------------------------


def _figures(used: Sequence[Use], total: int) -> Iterator[tuple[str, str]]:
    ended = Counter(ending(use) for use in used)
    told = ", ".join(f"{number(count)} {word}" for word, count in ended.most_common())
    yield "elements", f"{number(len(used))} of {number(total)} ended: {told}"
    known = [use for use in used if use.cores is not None]
    cpu, given = cpu_time(known), _core_time(known)
    if given:
        yield "CPU time", duration(cpu)
        yield "core time asked for", f"{duration(given)}, {percent(cpu, given)} used"


def _core_time(known: Sequence[Use]) -> float:
    """Seconds of all cores that were asked for, while the elements ran."""
    return sum(use.element.cores * (use.seconds or 0.0) for use in known)


# Tables -------------------------------------------------------------------------------------------


def _spread(used: Sequence[Use]) -> Table:
    columns = ("", "asked for", "least", "median", "95 % within", "most")
    which = "one element" if len(used) == 1 else f"each of {plural(len(used), 'element')}"
    ended = "that came to an end" if used[0].whole else "that was cut short"
    rows = tuple(_spread_row(kind, used) for kind in KINDS)
    return Table(f"What {which} {ended} used", columns, rows, frozenset(columns[1:]))


def _spread_row(kind: Kind, used: Sequence[Use]) -> tuple[str, ...]:
    values = [found for use in used if (found := kind.used(use)) is not None]
    if not values:
        return (kind.name, kind.asked_by(used), *["unknown"] * 4)
    unknown = len(used) - len(values)
    name = f"{kind.name} ({number(unknown)} unknown)" if unknown else kind.name
    spread = (kind.shown(percentile(values, share)) for share in (0.0, 0.5, 0.95, 1.0))
    return (name, kind.asked_by(used), *spread)


def _title(used: Sequence[Use]) -> str:
    if len(used) <= MOST_TIGHT:
        return "The elements"
    return "The elements that came closest to what they asked for"


def _tightness(use: Use) -> tuple[bool, float]:
    """Those first for which it was not enough."""
    shares = [kind.share(use) or 0.0 for kind in KINDS]
    return use.element.state in ("walltime", "memory"), max(shares)


def _table(title: str, used: Sequence[Use]) -> Table:
    columns = (
        "element", "job", "index", "node", "ended", "tasks", "cores", "CPU time", "peak memory",
        "run time",
    )  # fmt: skip
    figures = frozenset({"element", "index", "tasks", "cores", "CPU time", "peak memory"})
    return Table(title, columns, tuple(map(_row, used)), figures | {"run time"})


def _row(use: Use) -> tuple[str, ...]:
    element = use.element
    return (
        str(element.number),
        one_line(element.job, 40),
        str(element.index),
        one_line(element.node, 40) or "unknown",
        one_line(ending(use), 40),
        number(element.tasks),
        f"{'unknown' if use.cores is None else CORES.shown(use.cores)} of {element.cores}",
        duration(use.cpu_time),
        _with_share(MEMORY, use),
        _with_share(TIME, use),
    )


def _with_share(kind: Kind, use: Use) -> str:
    """What it used, and what part that is of what it asked for."""
    used, share = kind.used(use), kind.share(use)
    told = "unknown" if used is None else kind.shown(used)
    return told if share is None else f"{told} ({percent(share, 1)})"


# The scheduler's count ----------------------------------------------------------------------------


def _differences(used: Sequence[Use], scheduler: str) -> Iterator[str]:
    """How the scheduler's count differs, where that is more than it may."""
    long = [use.element for use in used if (use.seconds or 0.0) >= COUNTED]
    counts: dict[str, list[tuple[float | None, float | None]]] = {
        "CPU time": [(one.cpu_time, one.recorded_cpu_time) for one in long],
        "memory": [(one.peak_memory, one.recorded_memory) for one in long],
    }
    may = {"memory": " It may hold cached files, or what processes share several times."}
    for what, pairs in counts.items():
        known = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
        ours, theirs = sum(ours for ours, _ in known), sum(theirs for _, theirs in known)
        if abs(theirs - ours) > APART * ours:
            share = percent(abs(theirs - ours), ours)
            yield (
                f"{DIALECTS[scheduler].name if scheduler else 'The scheduler'} counts {share} "
                f"{'more' if theirs > ours else 'less'} {what} than was measured here, in "
                f"{plural(len(known), 'element')} of a minute and more. (Up to "
                f"{percent(APART, 1)} goes without saying.){may.get(what, '')}"
            )


# Next time ----------------------------------------------------------------------------------------


def _next_time(history: History, pieces: Pieces) -> Iterator[Item]:
    advised = next_time(history, pieces)
    if advised is None:
        return
    yield Advice(advised.text, " ".join(advised.sentences))
    lines, title = [advised.options], "To copy: options of fanfold run"
    if scheduler := _scheduler(history):
        lines += advised.directives(scheduler)
        title += ", and directives for a script"
    yield Code(title, "\n".join(lines), copied=True)
