"""Which tasks of a run are done, and where their results are: the journals, folded.

The first valid record of a task wins, in the order of the attempts; what an attempt wrote after a
newer one had taken over counts for nothing.
"""

from __future__ import annotations

import re
from array import array
from collections import deque
from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

from fanfold.errors import RunDamaged, RunTooNew
from fanfold.runs.arrays import arrays, closed_lengths, is_closed
from fanfold.runs.asked import Asked
from fanfold.runs.inputs import Generation, generation_of, read_generation
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import Journal

__all__ = [
    "DONE",
    "FAILED",
    "MISSING",
    "Header",
    "State",
    "Where",
    "journals",
    "open_journal",
    "read_state",
]

MISSING, DONE, FAILED = range(3)
_NOT_DONE = re.compile(rb"[^\x01]+")
_ONES = re.compile(rb"\x01+")
_HEADER = {
    "run": str, "element": int, "attempt": int, "inputs": int, "after": dict, "before": dict,
    "code": dict, "anew": bool, "host": str, "pid": int, "at": float,
}  # fmt: skip
_IN_ARRAY = {"session": int, "array": int}

_NOT_UNDERSTOOD = (KeyError, TypeError, ValueError, IndexError, OverflowError)

Record = dict[str, Any]


class Where(NamedTuple):
    """Where the results of consecutive tasks are: a frame of a writer's pack."""

    element: int
    attempt: int
    first: int
    count: int  # type: ignore[assignment]  # of tasks, as everywhere
    place: tuple[int, int]


class _Frames:
    """Where frames are, numbered from 1; rows of an array, for there may be millions."""

    def __init__(self) -> None:
        self._writers: list[tuple[int, int]] = []
        self._rows = array("Q")  # writer, first task, count, begin, length

    def add(self, element: int, attempt: int, first: int, count: int, place: Sequence[int]) -> int:
        """The number of a frame that is new."""
        if not self._writers or self._writers[-1] != (element, attempt):
            self._writers.append((element, attempt))
        begin, length = place
        self._rows += array("Q", (len(self._writers) - 1, first, count, begin, length))
        return len(self._rows) // 5

    def where(self, number: int) -> Where:
        writer, first, count, begin, length = self._rows[5 * number - 5 : 5 * number]
        return Where(*self._writers[writer], first, count, (begin, length))


class State:
    """The tasks of a run, each missing, done or failed, and the place of what it ended with."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.status = bytearray(generation.total)
        self.duplicates = 0
        self.damage: list[str] = []
        self._frame_of = array("I", bytes(4 * generation.total))  # 0 is none
        self._offset_of = array("I", bytes(4 * generation.total))  # in that frame
        self._frames = _Frames()

    @property
    def total(self) -> int:
        return len(self.status)

    @property
    def done(self) -> int:
        return self.status.count(DONE)

    @property
    def failed(self) -> int:
        return self.status.count(FAILED)

    def where(self, index: int) -> tuple[Where, int]:
        """Where the result, or the exception, of a task is: a frame, and its offset in that."""
        return self._frames.where(self._frame_of[index]), self._offset_of[index]

    def from_frame(self, index: int, count: int) -> bool:
        """Are ``count`` tasks from ``index`` on consecutive members of one frame?"""
        frames, offset = self._frame_of[index : index + count], self._offset_of[index]
        same = frames == array("I", [frames[0]]) * count
        return same and self._offset_of[index + count - 1] == offset + count - 1

    def without_result(self) -> list[range]:
        """The tasks that are missing or have failed, as ascending ranges of indices."""
        return [range(*found.span()) for found in _NOT_DONE.finditer(self.status)]

    def frames(self) -> Iterator[tuple[int, Where]]:
        """The frames that hold what the tasks ended with, by their numbers."""
        for number in sorted(set(self._frame_of) - {0}):
            yield number, self._frames.where(number)

    def forget(self, frames: Set[int]) -> list[range]:
        """Count the tasks that ended with something in these frames as missing; returns them."""
        of = bytes(number in frames for number in self._frame_of)
        found = [range(*found.span()) for found in _ONES.finditer(of)]
        for tasks in found:
            self._miss(tasks)
        return found

    def take(self, element: int, attempt: int, record: Record) -> None:
        """Count a record in."""
        kind = record["is"]
        if kind == "done":
            first, count = record["first"], record["count"]
            frame = self._frames.add(element, attempt, first, count, record["place"])
            if count == 1 and self.status[first] != DONE:  # by far the most: no slices for it
                self.status[first] = DONE
                self._frame_of[first] = frame
                self._offset_of[first] = 0
            else:
                self._mark_done(first, count, frame)
        elif kind == "failed" and record["final"]:
            index = record["first"]
            if self.status[index] != DONE:
                self.status[index] = FAILED
                frame = self._frames.add(element, attempt, index, 1, record["place"])
                self._frame_of[index] = frame
                self._offset_of[index] = 0
        elif kind == "lost":
            self._miss(range(record["first"], record["first"] + record["count"]))

    def _miss(self, tasks: range) -> None:
        if tasks and tasks[-1] < self.total:
            self.status[tasks.start : tasks.stop] = bytes(len(tasks))
            self._frame_of[tasks.start : tasks.stop] = array("I", bytes(4 * len(tasks)))

    def _mark_done(self, first: int, count: int, frame: int) -> None:
        status, stop = self.status, first + count
        if not first < stop <= self.total:
            raise ValueError(f"there are no tasks {first} to {stop - 1}")
        if DONE not in status[first:stop]:
            status[first:stop] = bytes([DONE]) * count
            self._frame_of[first:stop] = array("I", [frame]) * count
            self._offset_of[first:stop] = array("I", range(count))
            return
        for index in range(first, stop):
            if status[index] == DONE:
                self.duplicates += 1
            else:
                status[index] = DONE
                self._frame_of[index], self._offset_of[index] = frame, index - first

    def carried_to(self, generation: Generation) -> State:
        """The same for a later list of inputs, which says what is kept."""
        later = State(generation)
        later.duplicates, later.damage, later._frames = self.duplicates, self.damage, self._frames
        for index, before, count in generation.kept or ():
            later.status[index : index + count] = self.status[before : before + count]
            later._frame_of[index : index + count] = self._frame_of[before : before + count]
            later._offset_of[index : index + count] = self._offset_of[before : before + count]
        return later


class Header(NamedTuple):
    """The begin of a journal, and how far the journal counts (None: to its end).

    ``session`` is the attempt at element 0 that it is part of: its own, or the one that submitted
    its element.
    """

    element: int
    attempt: int
    told: Record
    end: int | None

    @property
    def session(self) -> int:
        return self.told["session"] if self.element else self.attempt


def journals(
    directory: RunDirectory, damage: list[str], *, element: int | None = None
) -> Iterator[tuple[Header, Journal]]:
    """The journals, or those of one element, in the order in which they count.

    What cannot be read is told in ``damage``.

    Raises `RunTooNew` when a newer fanfold wrote one: its records may mean something else.
    """
    run = Asked.read(directory).id
    opened: list[tuple[Header, Journal]] = []
    ends: dict[str, int] = {}
    for of, attempt in directory.writers():
        if element not in (None, of):
            continue
        path = directory.journal(of, attempt)
        try:
            journal = open_journal(directory, run, of, attempt)
        except RunTooNew:
            raise
        except (RunDamaged, OSError) as error:
            damage.append(f"{path.name}: {error}")
            continue
        after = journal.header["after"]
        for header, earlier in opened:
            if header.element == of:  # who began after it was taken over has no say
                ends.setdefault(earlier.path.name, after.get(earlier.path.name, 0))
        damage += [
            f"{name} is missing: what it said is lost"
            for name in after
            if name not in ends and not (path.parent / name).exists()
        ]
        ends = {**after, **ends}
        opened.append((Header(of, attempt, journal.header, None), journal))
    ends |= _closed(directory, opened, ends, damage)
    opened.sort(key=lambda one: _order(one[0]))
    for header, journal in opened:
        end = ends.get(journal.path.name)
        if end == 0:
            continue
        journal = Journal(journal.path, end=end)
        yield header._replace(end=end), journal
        damage += [f"{journal.path.name}: {sentence}" for sentence in journal.damage]


def _order(header: Header) -> tuple[int, ...]:
    """Who comes first: the session, within it who has submitted before what was submitted."""
    at_work = header.element != 0
    return header.told["inputs"], header.session, at_work, header.attempt, header.element


def _closed(
    directory: RunDirectory,
    opened: list[tuple[Header, Journal]],
    ends: dict[str, int],
    damage: list[str],
) -> dict[str, int]:
    """Where the journals of closed arrays end, as far as they do not end before."""
    lengths: dict[int, dict[str, int]] = {}
    last = max((header.session for header, _ in opened), default=0)
    for number, session in {
        (header.told["array"], header.session) for header, _ in opened if header.element
    }:
        if session < last or is_closed(directory, number):
            try:
                lengths[number] = closed_lengths(directory, number)
            except (RunDamaged, OSError) as error:
                damage.append(f"{error}: all that its elements wrote counts")
    found = {}
    for header, journal in opened:
        if header.element and header.told["array"] in lengths:
            name = journal.path.name
            end = lengths[header.told["array"]].get(name, 0)
            found[name] = min(end, ends.get(name, end))
    return found


def open_journal(directory: RunDirectory, run: str, element: int, attempt: int) -> Journal:
    """The journal of an attempt at a run. Raises `RunTooNew`, and `RunDamaged` for any other."""
    journal = Journal(directory.journal(element, attempt))
    told = journal.header
    fields = _HEADER | _IN_ARRAY if element else _HEADER
    if [type(told.get(name)) for name in fields] != list(fields.values()):
        raise RunDamaged(f"{journal.path} does not say what it should: what it said is lost")
    if (told["run"], told["element"], told["attempt"]) != (run, element, attempt):
        raise RunDamaged(
            f"{journal.path} is attempt {told['attempt']} of the run {told['run']}: files are "
            "mixed up, and it counts for nothing"
        )
    return journal


def read_state(directory: RunDirectory, *, element: int | None = None) -> State:
    """Fold all journals, or those of one element.

    Raises `RunTooNew`, and `RunDamaged` where the inputs cannot be known.
    """
    newest = read_generation(directory)
    state = State(generation_of(directory, 1))
    if element is None:
        deque(arrays(directory, state.damage), maxlen=0)  # for what is wrong with them
    for header, journal in journals(directory, state.damage, element=element):
        state = _up_to(directory, state, header.told["inputs"])
        if header.told["anew"]:
            state.status[:] = bytes(state.total)
        for record in journal.records():
            try:
                state.take(header.element, header.attempt, record)
            except _NOT_UNDERSTOOD as error:
                told = f"a record counts for nothing ({type(error).__name__}: {error})"
                state.damage.append(f"{journal.path.name}: {told}")
    return _up_to(directory, state, newest.number)


def _up_to(directory: RunDirectory, state: State, number: int) -> State:
    while state.generation.number < number:
        state = state.carried_to(generation_of(directory, state.generation.number + 1))
    return state
