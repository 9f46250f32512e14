"""From the journals of a run to its history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from fanfold.history import Death, Element, Failure, History, Piece, Session
from fanfold.resources import Resources, cores
from fanfold.runs.arrays import arrays
from fanfold.runs.asked import Asked
from fanfold.runs.elements import Watch, Watched, is_over, queue_of
from fanfold.runs.inputs import Generation, read_generation
from fanfold.runs.logs import LogFiles
from fanfold.runs.state import FAILED, Header, State, journals, read_state
from fanfold.schedulers.base import Seen
from fanfold.store.directory import RunDirectory
from fanfold.store.lease import holder

__all__ = ["read_history"]

_LINES = 20  # of a failed task's log
_OLD = 10.0  # seconds: what the scheduler said before that is asked again

Record = dict[str, Any]


def read_history(directory: RunDirectory) -> History:
    """All that the journals tell; needs no unpickling. Raises `RunTooNew`."""
    asked = Asked.read(directory)
    generation = read_generation(directory)
    state = read_state(directory)
    history = History(
        name=asked.name,
        path=str(directory.path),
        target=asked.target,
        total=generation.total,
        workers=0,
        created=asked.created,
        done=state.done,
        failed=state.failed,
        duplicates=state.duplicates,
        asked={**asked.options, "seed": asked.entropy, "command": asked.command},
        damage=state.damage,
    )
    history.elements = list(_elements(directory))
    history.workers = _workers(asked, history)
    teller = _Teller(directory, generation, state, history)
    for header, journal in journals(directory, []):
        teller.tell(header, journal.records())
    return history


def _workers(asked: Asked, history: History) -> int:
    """How many tasks may run at a time: in all elements together, or here."""
    workers = asked.options["workers"]
    if history.elements:
        return sum(workers or one.cores for one in history.elements)
    return int(workers or cores())


def _elements(directory: RunDirectory) -> Iterator[Element]:
    """The elements of all job arrays, also of those that others have taken over."""
    for name, of in groupby(arrays(directory), lambda array: array.scheduler):
        submitted = list(of)
        queue = queue_of(directory, name)
        watched = Watch(directory, queue, submitted).look(_OLD)
        jobs = {one.job for one in watched if one.job is not None}
        records = {(told.job, told.index or 0): told for told in queue.records(sorted(jobs))}
        asked = {array.number: array.resources for array in submitted}
        for one in watched:
            yield _element(one, asked[one.array], records.get((one.job or "", one.index)))


def _element(one: Watched, asked: Resources, record: Seen | None) -> Element:
    used = one.usage or {}
    node = one.seen.node if one.seen is not None else ""
    return Element(
        one.number, one.job or "", one.index, one.host or node, one.state, one.tasks,
        asked.cores, asked.memory, asked.walltime, one.began,
        used.get("seconds"), used.get("cpu"), used.get("peak"),
        record and record.cpu_time, record and record.peak_memory,
    )  # fmt: skip


class _Teller:
    """Fills in a history, a journal at a time."""

    def __init__(
        self, directory: RunDirectory, generation: Generation, state: State, history: History
    ) -> None:
        self._directory = directory
        self._generation = generation
        self._state = state
        self._history = history
        self._of: defaultdict[int, set[int]] = defaultdict(set)  # what each session submitted
        for array in arrays(directory):
            self._of[array.session].update(array.elements)

    def tell(self, header: Header, records: Iterator[Record]) -> None:
        # What elements did counts as that of the session that submitted them.
        writer = f"e0-a{header.session}"
        now = header.told["inputs"] == self._generation.number
        why, ended = self._how_it_lives(header), None
        for record in records:
            kind = record["is"]
            if kind == "end":
                why, ended = record["why"], record["at"]
            elif kind == "held":
                self._history.shared = max(self._history.shared, record["shared"])
                self._history.spilled = max(self._history.spilled, record["spilled"])
            elif kind == "lost":
                last = record["first"] + record["count"] - 1
                self._history.damage.append(
                    f"{writer}: the results of tasks {record['first']} to {last} were damaged: the "
                    "tasks ran again"
                )
            elif kind in ("done", "failed"):
                worker = _worker(header, record)
                pieces = list(_pieces(record, writer, worker))
                self._history.pieces += pieces
                if pieces and pieces[-1].began is not None:
                    ended = max(ended or 0.0, pieces[-1].began + pieces[-1].seconds)
                if kind == "failed":
                    self._fail(header, writer, worker, record, now)
        self._end(header, writer, ended, why)

    def _end(self, header: Header, writer: str, ended: float | None, why: str) -> None:
        """Tell of a driver; an element that ends makes the session longer that submitted it."""
        told = header.told
        if not header.element:
            if why == "submitted":
                why = self._how_elements_end(header.session)
            self._history.sessions.append(
                Session(writer, told["host"], told["pid"], told["at"], ended, why)
            )
            return
        for number, session in enumerate(self._history.sessions):
            if session.writer == writer:
                last = max(session.ended or 0.0, ended or 0.0)
                self._history.sessions[number] = session._replace(
                    ended=last or None, why=self._how_elements_end(header.session)
                )

    def _how_elements_end(self, session: int) -> str:
        """The same words as of any other session."""
        states = [one.state for one in self._history.elements if one.number in self._of[session]]
        if not all(is_over(state) for state in states):
            return "running"
        if states and all(state in ("done", "failed") for state in states):
            return "failed" if "failed" in states else "done"
        return "unfinished"

    def _how_it_lives(self, header: Header) -> str:
        last = holder(self._directory, header.element)
        if last is not None and last.attempt == header.attempt and last.alive is not False:
            return "running"
        return "died"

    def _fail(self, header: Header, writer: str, worker: str, record: Record, now: bool) -> None:
        index = record["first"]
        mine = now and self._state.total > index and self._is_last(header, record)
        error, death = record["error"], record.get("death")
        files = LogFiles(self._directory, header.element, header.attempt)
        self._history.failures.append(
            Failure(
                index,
                record["input"],
                error["type"],
                error["message"],
                error["traceback"],
                final=bool(record["final"] and mine),
                attempt=record["try"],
                writer=writer,
                worker=worker,
                death=None if death is None else _death(death),
                log=tuple(files.last_lines(record, _LINES)),
            )
        )

    def _is_last(self, header: Header, record: Record) -> bool:
        """Is it what the task ended with, as things stand?"""
        if not record["final"] or self._state.status[record["first"]] != FAILED:
            return False
        where, _ = self._state.where(record["first"])
        return (where.element, where.attempt, list(where.place)) == (
            header.element, header.attempt, list(record["place"]),
        )  # fmt: skip


def _worker(header: Header, record: Record) -> str:
    name = record["worker"]
    return f"element {header.element}, {name}" if header.element else name


def _pieces(record: Record, writer: str, worker: str) -> Iterator[Piece]:
    first = record["first"]
    for count, began, seconds, cpu, peak, *_ in record["ran"]:
        yield Piece(
            first, count, writer, worker, record["try"], began, seconds, cpu, peak,
            record["is"] == "done",
        )  # fmt: skip
        first += count


def _death(told: Record) -> Death:
    return Death(
        told["pid"], told["signal"], told["exitcode"], told["phase"], told["peak"],
        told["out_of_memory"],
    )  # fmt: skip
