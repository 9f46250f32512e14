"""How far a run is, from the ends of its journals: quick, however many tasks it has."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from fanfold.errors import RunDamaged
from fanfold.runs.asked import Asked
from fanfold.runs.elements import Watch, Watched, is_over, open_arrays, queue_of
from fanfold.runs.inputs import read_generation
from fanfold.runs.state import open_journal, read_state
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import newest
from fanfold.store.lease import Holder, holder
from fanfold.tasks import Activity

__all__ = ["Status", "read_status"]


class Status(NamedTuple):
    """The counts of a run.

    ``state`` is "running", "done", "failed" (all tried, some failed) or "unfinished"; ``why`` how
    the last driver ended, "died" where it did not say. ``rate`` is tasks a second of the driver
    that is at work, ``left`` the seconds that the rest takes at that rate; None when not known.
    ``driver`` is the host and the process id of the last driver. On a scheduler the ``elements``
    of the job arrays are at work; ``trouble`` says what keeps the scheduler from being asked, and
    ``damage`` what of the arrays cannot be read.
    """

    name: str
    state: str
    total: int
    done: int
    failed: int
    why: str
    rate: float | None
    left: float | None
    driver: tuple[str, int] | None
    workers: tuple[Activity, ...]
    elements: tuple[Watched, ...] = ()
    trouble: str = ""
    damage: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        return self.total - self.done - self.failed


def read_status(directory: RunDirectory, *, ask: bool = True) -> Status:
    """Needs no unpickling, so that anybody may look who may read the folder.

    The scheduler is asked where elements are at work, unless ``ask`` is False.
    """
    asked = Asked.read(directory)
    generation = read_generation(directory)
    last = holder(directory, 0)
    told = _NOTHING
    if last is not None:
        told = _counts(directory, asked.id, generation.number, last.attempt)
    driver = None if last is None else (last.host, last.pid)
    status = _with_elements(
        Status(asked.name, "", generation.total, told.done, told.failed, told.why, None, None,
               driver, ()),
        directory,
        ask,
    )  # fmt: skip
    by_others = not told.worked and directory.arrays() and not status.elements
    if told.unsure or status.damage or by_others:
        state = read_state(directory)
        status = status._replace(done=state.done, failed=state.failed)
    if last is not None and last.alive is not False:
        workers = status.workers or _activities(directory, last)
        status = status._replace(state="running", why="running", workers=workers)
    if status.state != "running":
        return status._replace(state=_rest_state(status.missing, status.failed))
    return _with_rate(status, told)


def _with_elements(status: Status, directory: RunDirectory, ask: bool) -> Status:
    """What the elements of the job arrays add that were submitted last."""
    damage: list[str] = []
    arrays = open_arrays(directory, damage)
    status = status._replace(damage=tuple(damage))
    if not arrays:
        return status
    watch = Watch(directory, queue_of(directory, arrays[0].scheduler) if ask else None, arrays)
    elements = tuple(watch.look())
    at_work = not all(is_over(one.state) for one in elements)
    return status._replace(
        state="running" if at_work else "",
        why="running" if at_work else "submitted",
        done=status.done + sum(one.done for one in elements),
        failed=status.failed + sum(one.failed for one in elements),
        workers=tuple(
            worker._replace(worker=f"element {one.number}, {worker.worker}")
            for one in elements
            if one.state == "running"
            for worker in one.workers
        ),
        elements=elements,
        trouble=watch.trouble,
    )


def _with_rate(status: Status, told: _Told) -> Status:
    began = [one.began for one in status.elements if one.began is not None]
    since = min(began, default=told.began if not status.elements else None)
    spent = 0.0 if since is None else time.time() - since
    if spent <= 0:
        return status
    rate = (status.done + status.failed - told.before) / spent
    return status._replace(rate=rate, left=status.missing / rate if rate else None)


def _rest_state(missing: int, failed: int) -> str:
    return "unfinished" if missing else "failed" if failed else "done"


class _Told(NamedTuple):
    """What the journal of the last driver tells.

    ``began`` is when it began, with how many tasks done and failed ``before``; ``worked`` whether
    it has done any task itself; ``unsure`` that its counts are not those of the run.
    """

    done: int = 0
    failed: int = 0
    why: str = "died"
    began: float | None = None
    before: int = 0
    worked: bool = False
    unsure: bool = False


_NOTHING = _Told(why="")


def _counts(directory: RunDirectory, run: str, generation: int, attempt: int) -> _Told:
    path = directory.journal(0, attempt)
    if not path.exists():  # it died before it wrote a word: what was before counts
        earlier = [number for number in directory.attempts(0) if number < attempt]
        if not earlier:
            return _Told()
        told = _counts(directory, run, generation, earlier[-1])
        return told if told.why == "submitted" else told._replace(why="died", began=None, before=0)
    try:
        header = open_journal(directory, run, 0, attempt).header
    except (OSError, RunDamaged):
        header = None
    if header is None or header["inputs"] != generation:  # it counts something else
        return _Told(unsure=True)
    before = header["before"]
    told = _Told(before["done"], before["failed"], began=header["at"])
    told = told._replace(before=told.done + told.failed)
    for record in newest(path):
        kind = record["is"]
        if kind == "tally":
            told = told._replace(done=record["done"], failed=record["failed"], worked=True)
        elif kind == "done":
            told = told._replace(done=told.done + record["count"], worked=True)
        elif kind == "failed":
            told = told._replace(failed=told.failed + record["final"], worked=True)
        elif kind == "end":
            told = told._replace(why=record["why"])
    return told


def _activities(directory: RunDirectory, last: Holder) -> tuple[Activity, ...]:
    """From the heartbeat; who has not told yet is not known to do anything."""
    name = f"leases/e0-a{last.attempt}.beat"
    try:
        told: dict[str, Any] = directory.read_json(name)
        since = max(0.0, time.time() - told["at"])
        return tuple(
            Activity(one["worker"], one["task"], one["seconds"] + since) for one in told["workers"]
        )
    except (OSError, RunDamaged, KeyError, TypeError, ValueError):
        return ()
