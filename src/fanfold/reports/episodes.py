"""When a run was worked on, by whom, and how busy they were.

Sessions that overlap in time are one *episode*: the elements of an array work side by side. What is
resumed later is an episode of its own, with a time axis of its own. In an episode each worker has a
*lane*; a worker that took the place of a dead one continues its lane.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fanfold.history import History, Session
from fanfold.reports.pieces import Integers, Pieces

__all__ = ["Episode", "Lane", "episodes", "team"]

_ENDED = ("TaskTimeout", "TaskStalled", "WorkerDied")  # failures that end the worker, too


class _Worker(NamedTuple):
    """One worker: its pieces in the order of their begin, and its first and last moment at work."""

    writer: str
    name: str
    rows: Integers
    began: float
    ended: float


class Lane(NamedTuple):
    """Workers of which each took the place of the one before; ``work`` is their seconds of work."""

    writer: str
    names: tuple[str, ...]
    rows: Integers
    work: float
    ended: float


class Episode(NamedTuple):
    """A time in which a run was worked on, in seconds since 1970."""

    began: float
    ended: float
    sessions: tuple[Session, ...]
    lanes: tuple[Lane, ...]

    @property
    def wall(self) -> float:
        """Its length in seconds."""
        return self.ended - self.began

    @property
    def lanes_ended(self) -> list[float]:
        """When each lane ended, in order."""
        return sorted(lane.ended for lane in self.lanes)

    @property
    def work(self) -> float:
        """Seconds of work of all workers."""
        return sum(lane.work for lane in self.lanes)

    @property
    def busy(self) -> float:
        """The share of the workers' time that was work."""
        whole = self.wall * len(self.lanes)
        return min(1.0, self.work / whole) if whole > 0 else 0.0


def episodes(history: History, pieces: Pieces) -> list[Episode]:
    """The episodes of a run in order; pieces whose begin is not known belong to none."""
    workers = defaultdict(list)
    for worker in _workers(pieces):
        workers[worker.writer].append(worker)
    spans = _spans(history, workers)
    dead = {
        (failure.writer, failure.worker)
        for failure in history.failures
        if failure.death is not None or failure.kind.rpartition(".")[2] in _ENDED
    }
    found: list[Episode] = []
    for writers, began, ended in _overlapping(spans):
        lanes = [lane for writer in writers for lane in _lanes(workers[writer], dead, pieces)]
        sessions = tuple(session for session in history.sessions if session.writer in writers)
        found.append(Episode(began, ended, sessions, tuple(sorted(lanes, key=_natural))))
    return found


def team(history: History, worked: Sequence[Episode]) -> int:
    """How many workers there were at once."""
    return max((len(episode.lanes) for episode in worked), default=0) or history.workers


def _workers(pieces: Pieces) -> Iterator[_Worker]:
    placed = np.flatnonzero(~np.isnan(pieces.began))
    if not len(placed):
        return
    order = placed[np.lexsort((pieces.began[placed], pieces.worker[placed]))]
    borders = np.flatnonzero(np.diff(pieces.worker[order])) + 1
    for rows in np.split(order, borders):
        writer, name = pieces.workers[pieces.worker[rows[0]]]
        ended = float(pieces.ended[rows].max())
        yield _Worker(writer, name, rows, float(pieces.began[rows[0]]), ended)


def _spans(history: History, workers: dict[str, list[_Worker]]) -> dict[str, tuple[float, float]]:
    """From when to when each writer worked."""
    moments: dict[str, list[float]] = defaultdict(list)
    for writer, team in workers.items():
        moments[writer] += [at for worker in team for at in (worker.began, worker.ended)]
    for session in history.sessions:
        known = (at for at in (session.began, session.ended) if at is not None)
        moments[session.writer] += [at for at in known if 0 <= at < 1e11]
    return {writer: (min(times), max(times)) for writer, times in moments.items() if times}


def _overlapping(
    spans: dict[str, tuple[float, float]],
) -> list[tuple[set[str], float, float]]:
    """The writers in groups that overlap in time, and the time of each group."""
    groups: list[tuple[set[str], float, float]] = []
    for writer, (began, ended) in sorted(spans.items(), key=lambda span: span[1]):
        if groups and began < groups[-1][2]:
            writers, first, last = groups[-1]
            groups[-1] = (writers | {writer}, first, max(last, ended))
        else:
            groups.append(({writer}, began, ended))
    return groups


def _lanes(workers: list[_Worker], dead: set[tuple[str, str]], pieces: Pieces) -> Iterator[Lane]:
    """One lane a worker; who began after another had died continues its lane."""
    chains: list[list[_Worker]] = []
    free: list[tuple[float, int]] = []  # when the worker of a lane died, and which lane it is
    for worker in sorted(workers, key=lambda worker: worker.began):
        if free and free[0][0] <= worker.began:
            _, number = heapq.heappop(free)
            chains[number].append(worker)
        else:
            number = len(chains)
            chains.append([worker])
        if (worker.writer, worker.name) in dead:
            heapq.heappush(free, (worker.ended, number))
    for chain in chains:
        rows = np.concatenate([worker.rows for worker in chain])
        yield Lane(
            writer=chain[0].writer,
            names=tuple(worker.name for worker in chain),
            rows=rows,
            work=float(pieces.seconds[rows].sum()),
            ended=chain[-1].ended,
        )


def _natural(lane: Lane) -> list[tuple[int, str]]:
    """A key that puts worker 10 after worker 9."""
    parts = re.findall(r"[0-9]+|[^0-9]+", f"{lane.writer} {lane.names[0]}")
    return [
        (int(part[:18]), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts
    ]
