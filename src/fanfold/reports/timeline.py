"""The timeline: which worker did what when, and when it had nothing to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fanfold.history import History
from fanfold.reports import document
from fanfold.reports.document import Bar, Item, Paragraph, Section, Table
from fanfold.reports.episodes import Episode, Lane
from fanfold.reports.pieces import Floats, Integers, Pieces, task_names
from fanfold.reports.scales import DURATION, linear_axis
from fanfold.reports.words import duration, moment, number, one_line, percent, plural

__all__ = ["timeline"]

MOST_EPISODES = 5
MOST_LANES = 64
MOST_BARS = 4000  # in the whole section

_PIXEL = 0.001  # about the width of a pixel, as a share of the axis


def timeline(history: History, pieces: Pieces, worked: Sequence[Episode]) -> Section | None:
    """A chart for each of the latest episodes."""
    drawn = [episode for episode in worked if episode.lanes and episode.wall > 0]
    latest = drawn[-MOST_EPISODES:]
    items: list[Item] = []
    if len(latest) < len(drawn):
        items.append(Paragraph(f"{plural(len(drawn) - len(latest), 'earlier session')} not drawn."))
    for episode in latest:
        items.append(_chart(episode, pieces, MOST_BARS // len(latest)))
        if len(episode.lanes) > MOST_LANES:
            items.append(
                Paragraph(f"{number(len(episode.lanes) - MOST_LANES)} more workers not drawn.")
            )
    unplaced = int(pieces.count[np.isnan(pieces.began)].sum())
    if unplaced:
        items.append(
            Paragraph(f"{plural(unplaced, 'attempt')} not drawn: when they began is not known.")
        )
    return Section("Timeline", tuple(items)) if items else None


def _chart(episode: Episode, pieces: Pieces, most: int) -> document.Timeline:
    lanes = episode.lanes[:MOST_LANES]
    alone = len({lane.writer for lane in episode.lanes}) == 1
    labels = [_label(lane, alone) for lane in lanes]
    bars: list[list[Bar]] = [[] for _ in lanes]
    for which, bar in _bars(lanes, episode, pieces, most):
        bars[which].append(bar)
    shares = [percent(min(lane.work, episode.wall), episode.wall) for lane in lanes]
    axis = linear_axis(0, episode.wall, DURATION, f"time since {moment(episode.began)}")
    drawn = (
        document.Lane(label, share, tuple(own))
        for label, share, own in zip(labels, shares, bars, strict=True)
    )
    table = _table(lanes, labels, shares, episode, pieces)
    return document.Timeline(_title(episode), axis, tuple(drawn), table)


def _title(episode: Episode) -> str:
    names = [one_line(session.writer, 20) for session in episode.sessions]
    who = f"{', '.join(names[:3])}{' and more' if len(names) > 3 else ''}: " if names else ""
    workers = plural(len(episode.lanes), "worker")
    return f"{who}{workers} busy {percent(episode.busy, 1)} of {duration(episode.wall)}"


def _label(lane: Lane, alone: bool) -> str:
    """The first worker of a lane, and how many took its place."""
    name = one_line(lane.names[0] or "unnamed", 40)
    more = f" +{len(lane.names) - 1}" if len(lane.names) > 1 else ""
    return f"{name}{more}" if alone else f"{one_line(lane.writer, 20)} {name}{more}"


def _table(
    lanes: Sequence[Lane],
    labels: Sequence[str],
    shares: Sequence[str],
    episode: Episode,
    pieces: Pieces,
) -> Table:
    def row(lane: Lane, label: str, share: str) -> tuple[str, ...]:
        count = pieces.count[lane.rows]
        began = float(pieces.began[lane.rows[0]]) - episode.began
        failed = int(count[~pieces.ok[lane.rows]].sum())
        times = (duration(lane.work), share, duration(began), duration(lane.ended - episode.began))
        return (label, number(int(count.sum())), number(failed), *times)

    columns = ("worker", "attempts", "failed", "work time", "busy", "first began", "last ended")
    rows = tuple(map(row, lanes, labels, shares))
    return Table("Workers", columns, rows, frozenset(columns[1:]))


def _bars(
    lanes: Sequence[Lane], episode: Episode, pieces: Pieces, most: int
) -> Iterator[tuple[int, Bar]]:
    """The bars of all lanes, each with the number of its lane; what failed comes last."""
    rows = np.concatenate([lane.rows for lane in lanes])
    numbers = np.repeat(np.arange(len(lanes)), [len(lane.rows) for lane in lanes])
    for ok in (True, False):
        own = pieces.ok[rows] == ok
        if own.any():
            yield from _bars_of(numbers[own], rows[own], episode, pieces, most // 2)


def _bars_of(
    lane: Integers, rows: Integers, episode: Episode, pieces: Pieces, most: int
) -> Iterator[tuple[int, Bar]]:
    """The bars of these pieces, which all ended well, or all failed."""
    begin = (pieces.began[rows] - episode.began) / episode.wall
    end = np.maximum((pieces.ended[rows] - episode.began) / episode.wall, begin)
    starts = _borders(lane, begin, end, most)
    failed = not pieces.ok[rows[0]]
    columns = zip(
        lane[starts].tolist(),
        begin[starts].tolist(),
        np.maximum.reduceat(end, starts).tolist(),
        np.add.reduceat(end - begin, starts).tolist(),
        np.minimum.reduceat(pieces.first[rows], starts).tolist(),
        np.maximum.reduceat((pieces.first + pieces.count)[rows], starts).tolist(),
        np.add.reduceat(pieces.count[rows], starts).tolist(),
        strict=True,
    )
    for which, left, right, work, first, beyond, tasks in columns:
        busy = min(1.0, work / (right - left)) if right > left else 1.0
        told = _told(first, beyond, tasks, failed)
        told += f", {duration((right - left) * episode.wall)}"
        told += f", {percent(busy, 1)} of it at work" if busy < 0.995 else ""
        told += f", from {duration(left * episode.wall)}"
        yield which, Bar(left, right, first, tasks, failed, busy, told)


def _told(first: int, beyond: int, tasks: int, failed: bool) -> str:
    end = " failed" if failed else ""
    if beyond - first == tasks:
        return task_names(first, tasks) + end
    return f"{plural(tasks, 'attempt')} of tasks {first} to {beyond - 1}{end}"


def _borders(lane: Integers, begin: Floats, end: Floats, most: int) -> Integers:
    """Where a new bar begins: each piece has its own, but those too short to be seen are merged.

    Were there more than ``most`` bars, longer ones are merged too. Two pieces are apart when either
    can be seen, or the pause between them.
    """
    shifted, ends = begin + 2 * lane, end + 2 * lane  # so that no bar reaches the next lane
    pauses = shifted[1:] - np.maximum.accumulate(ends)[:-1]
    lengths = end - begin
    unit = _PIXEL
    while True:
        seen: NDArray[np.bool_] = lengths >= 2 * unit
        apart = (pauses > unit) | seen[1:] | seen[:-1]
        if apart.sum() < most or unit >= 0.5:
            return np.concatenate([[0], np.flatnonzero(apart) + 1])
        unit *= 1.25
