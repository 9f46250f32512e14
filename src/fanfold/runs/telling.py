"""From the journals of a run to its history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fanfold.history import Death, Failure, History, Piece, Session
from fanfold.resources import cores
from fanfold.runs.asked import Asked
from fanfold.runs.inputs import Generation, read_generation
from fanfold.runs.logs import LogFiles
from fanfold.runs.state import FAILED, Header, State, journals, read_state
from fanfold.store.directory import RunDirectory
from fanfold.store.lease import holder

__all__ = ["read_history"]

_LINES = 20  # of a failed task's log

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
    teller = _Teller(directory, generation, state, history)
    for header, journal in journals(directory, []):
        teller.tell(header, journal.records())
    history.workers = int(asked.options["workers"] or cores())
    return history


class _Teller:
    """Fills in a history, a journal at a time."""

    def __init__(
        self, directory: RunDirectory, generation: Generation, state: State, history: History
    ) -> None:
        self._directory = directory
        self._generation = generation
        self._state = state
        self._history = history

    def tell(self, header: Header, records: Iterator[Record]) -> None:
        writer = f"e{header.element}-a{header.attempt}"
        now = header.told["inputs"] == self._generation.number
        why, ended = self._how_it_lives(header), None
        for record in records:
            kind = record["is"]
            if kind == "end":
                why, ended = record["why"], record["at"]
            elif kind == "lost":
                last = record["first"] + record["count"] - 1
                self._history.damage.append(
                    f"{writer}: the results of tasks {record['first']} to {last} were damaged: the "
                    "tasks ran again"
                )
            elif kind in ("done", "failed"):
                pieces = list(_pieces(record, writer))
                self._history.pieces += pieces
                if pieces and pieces[-1].began is not None:
                    ended = max(ended or 0.0, pieces[-1].began + pieces[-1].seconds)
                if kind == "failed":
                    self._fail(header, writer, record, now)
        told = header.told
        self._history.sessions.append(
            Session(writer, told["host"], told["pid"], told["at"], ended, why)
        )

    def _how_it_lives(self, header: Header) -> str:
        last = holder(self._directory, header.element)
        if last is not None and last.attempt == header.attempt and last.alive is not False:
            return "running"
        return "died"

    def _fail(self, header: Header, writer: str, record: Record, now: bool) -> None:
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
                worker=record["worker"],
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


def _pieces(record: Record, writer: str) -> Iterator[Piece]:
    first = record["first"]
    for count, began, seconds, cpu, peak, *_ in record["ran"]:
        yield Piece(
            first, count, writer, record["worker"], record["try"], began, seconds, cpu, peak,
            record["is"] == "done",
        )  # fmt: skip
        first += count


def _death(told: Record) -> Death:
    return Death(
        told["pid"], told["signal"], told["exitcode"], told["phase"], told["peak"],
        told["out_of_memory"],
    )  # fmt: skip
