"""How a run stands: counts, attempts, times altogether, and the sessions that drove it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fanfold.history import History, Session
from fanfold.reports.document import Facts, Item, Paragraph, Part, Proportion, Section, Table
from fanfold.reports.episodes import Episode
from fanfold.reports.pieces import Pieces
from fanfold.reports.words import duration, moment, number, one_line, percent, plural, size

__all__ = ["outcomes", "sessions"]

MOST_SESSIONS = 20
MOST_DAMAGE = 10

_ENDS = {
    "done": "all tasks done",
    "failed": "some tasks failed",
    "interrupted": "interrupted",
    "cancelled": "cancelled",
    "superseded": "another took over",
    "error": "stopped by an error",
    "running": "running",
    "died": "died",
}


def outcomes(history: History, pieces: Pieces, worked: Sequence[Episode]) -> Section:
    """What became of the tasks, at a glance."""
    items: list[Item] = [
        _proportion(history),
        Facts(tuple(_figures(history, pieces, worked)), True),
    ]
    items += (Paragraph(one_line(line, 400), warning=True) for line in history.damage[:MOST_DAMAGE])
    if len(history.damage) > MOST_DAMAGE:
        more = plural(len(history.damage) - MOST_DAMAGE, "more damaged place")
        items.append(Paragraph(f"{more} could not be read.", warning=True))
    return Section("Outcome", tuple(items))


def _proportion(history: History) -> Proportion:
    parts = (
        Part("done", history.done, "done"),
        Part("failed", history.failed, "failed"),
        Part("not finished", history.missing, "missing"),
    )
    return Proportion(f"{plural(history.total, 'task')}", parts)


def _figures(
    history: History, pieces: Pieces, worked: Sequence[Episode]
) -> Iterator[tuple[str, str]]:
    wall, work = sum(episode.wall for episode in worked), float(pieces.seconds.sum())
    if wall > 0:
        yield "wall time", duration(wall)
    if len(pieces):
        yield "work time", duration(work)
    if wall > 0 and work > 0:
        yield "speed-up", f"{work / wall:.2f}"
    capacity = sum(episode.wall * len(episode.lanes) for episode in worked)
    if capacity > 0:
        yield "workers busy", percent(min(work, capacity), capacity)
    if not np.isnan(pieces.peak_memory).all():
        yield "peak memory", size(float(np.nanmax(pieces.peak_memory)))
    attempts = int(pieces.count.sum())
    again = int(pieces.count[pieces.attempt > 1].sum())
    if again:
        yield "attempts", f"{number(attempts)} ({number(again)} again)"
    if history.duplicates:
        yield "done twice", number(history.duplicates)


def _lasted(session: Session) -> float | None:
    return None if session.ended is None else session.ended - session.began


def sessions(history: History) -> Section | None:
    """Who drove the run when, and how that ended."""
    if not history.sessions:
        return None
    latest = history.sessions[-MOST_SESSIONS:]
    rows = tuple(
        (
            one_line(session.writer, 40),
            one_line(session.host, 60),
            str(session.pid),
            moment(session.began, zone=False),
            duration(_lasted(session)),
            _ENDS.get(session.why, one_line(session.why, 60)),
        )
        for session in latest
    )
    columns = ("session", "host", "process", "began", "lasted", "how it ended")
    items: list[Item] = [Table("", columns, rows, frozenset({"process", "lasted"}))]
    if len(latest) < len(history.sessions):
        earlier = plural(len(history.sessions) - len(latest), "earlier session")
        items.append(Paragraph(f"{earlier} not shown."))
    return Section("Sessions", tuple(items))
