"""The whole report of a run: each subject adds its part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fanfold.history import History
from fanfold.reports.advice import advice
from fanfold.reports.asked import asked
from fanfold.reports.document import Document, Section
from fanfold.reports.episodes import Episode, episodes, team
from fanfold.reports.failures import failures, grouped, recovered
from fanfold.reports.memory import memory
from fanfold.reports.outcomes import outcomes, sessions
from fanfold.reports.pieces import Pieces
from fanfold.reports.timeline import timeline
from fanfold.reports.times import times
from fanfold.reports.usage import usage
from fanfold.reports.words import moment, one_line, plural

__all__ = ["report"]


def report(history: History) -> Document:
    """What there is to tell of a run; a history that is empty or damaged has a report, too."""
    pieces = Pieces(history.pieces)
    worked = episodes(history, pieces)
    parts = (part for part in _sections(history, pieces, worked) if part is not None)
    workers = plural(team(history, worked), "worker")
    return Document(
        title=one_line(history.name, 120) or "a run without a name",
        state=history.state,
        about=(
            f"{one_line(history.target, 200)}, {plural(history.total, 'task')} on {workers}",
            f"begun {moment(history.created)}",
        ),
        sections=tuple(parts),
    )


def _sections(
    history: History, pieces: Pieces, worked: Sequence[Episode]
) -> Iterator[Section | None]:
    groups = grouped(history.failures)
    saved = recovered(history, pieces)
    yield outcomes(history, pieces, worked)
    yield advice(history, pieces, worked, groups, saved)
    yield failures(history, groups, saved)
    yield usage(history, pieces)
    yield timeline(history, pieces, worked)
    yield times(pieces)
    yield memory(pieces, history.shared, history.spilled)
    yield sessions(history)
    yield asked(history)
