"""How far a run is, from the ends of its journals: quick, however many tasks it has."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from fanfold.errors import RunDamaged
from fanfold.runs.asked import Asked
from fanfold.runs.inputs import read_generation
from fanfold.runs.state import open_journal, read_state
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import tail
from fanfold.store.lease import Holder, holder
from fanfold.tasks import Activity

__all__ = ["Status", "read_status"]


class Status(NamedTuple):
    """The counts of a run.

    ``state`` is "running", "done", "failed" (all tried, some failed) or "unfinished"; ``why`` how
    the last driver ended, "died" where it did not say. ``rate`` is tasks a second of the driver
    that is at work, ``left`` the seconds that the rest takes at that rate; None when not known.
    ``driver`` is the host and the process id of the last driver.
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

    @property
    def missing(self) -> int:
        return self.total - self.done - self.failed


def read_status(directory: RunDirectory) -> Status:
    """Needs no unpickling, so that anybody may look who may read the folder."""
    asked = Asked.read(directory)
    generation = read_generation(directory)
    total = generation.total
    last = holder(directory, 0)
    done, failed, why, began, before = 0, 0, "", None, 0
    if last is not None:
        done, failed, why, began, before = _counts(
            directory, asked.id, generation.number, last.attempt
        )
    running = last is not None and last.alive is not False
    rate = None
    if running and began is not None:
        spent = time.time() - began
        rate = (done + failed - before) / spent if spent > 0 else None
    missing = total - done - failed
    return Status(
        asked.name,
        "running" if running else _rest_state(missing, failed),
        total,
        done,
        failed,
        "running" if running else why,
        rate,
        missing / rate if rate else None,
        None if last is None else (last.host, last.pid),
        _activities(directory, last) if running else (),
    )


def _rest_state(missing: int, failed: int) -> str:
    return "unfinished" if missing else "failed" if failed else "done"


def _counts(
    directory: RunDirectory, run: str, generation: int, attempt: int
) -> tuple[int, int, str, float | None, int]:
    """Done, failed, how it ended, when it began, and how many were done and failed then."""
    path = directory.journal(0, attempt)
    if not path.exists():  # it died before it wrote a word: what was before counts
        earlier = [number for number in directory.attempts(0) if number < attempt]
        before = _counts(directory, run, generation, earlier[-1]) if earlier else (0, 0)
        return before[0], before[1], "died", None, 0
    try:
        header = open_journal(directory, run, 0, attempt).header
    except (OSError, RunDamaged):
        header = None
    if header is None or header["inputs"] != generation:  # it counts something else
        state = read_state(directory)
        return state.done, state.failed, "died", None, 0
    done, failed, why = header["before"]["done"], header["before"]["failed"], "died"
    before = done + failed
    for record in tail(path):
        kind = record["is"]
        if kind == "tally":
            done, failed = record["done"], record["failed"]
        elif kind == "done":
            done += record["count"]
        elif kind == "failed":
            failed += record["final"]
        elif kind == "end":
            why = record["why"]
    return done, failed, why, header["at"], before


def _activities(directory: RunDirectory, last: Holder | None) -> tuple[Activity, ...]:
    """From the heartbeat; who has not told yet is not known to do anything."""
    if last is None:
        return ()
    name = f"leases/e0-a{last.attempt}.beat"
    try:
        told: dict[str, Any] = directory.read_json(name)
        since = max(0.0, time.time() - told["at"])
        return tuple(
            Activity(one["worker"], one["task"], one["seconds"] + since) for one in told["workers"]
        )
    except (OSError, RunDamaged, KeyError, TypeError, ValueError):
        return ()
