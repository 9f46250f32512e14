"""What is known of the elements of jobs, from all that the queue and its records have told."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, NamedTuple, get_args

from fanfold.schedulers.base import ENDED, JobState, Seen

__all__ = ["Elements", "Known", "Look"]

Elements = Mapping[str, Sequence[int | None]]  # job: the indices of its elements

_GRACE = 60.0  # seconds in which the records may be late
_LATE = 600.0  # the same, where they know the job but not its end
_VANISHED = "neither the queue nor its records know it any more"

_FORMAT = 1
_STATES = frozenset(get_args(JobState))
_NUMBER = (int, float, NoneType)
_TYPES: dict[str, tuple[type, ...]] = {
    "index": (int, NoneType),
    "exit_status": (int, NoneType),
    "signal": (int, NoneType),
    "began": _NUMBER,
    "ended": _NUMBER,
    "cpu_time": _NUMBER,
    "peak_memory": (int, NoneType),
    "restarts": (int,),
}


class Look(NamedTuple):
    """What is known of some elements of jobs, ``seen[job, index]``.

    ``at`` is when the scheduler told the oldest of it, in seconds since 1970 (0: never).
    ``trouble`` is a sentence where it does not answer now: the states are those of before.
    """

    seen: dict[tuple[str, int | None], Seen]
    at: float
    trouble: str


@dataclass(slots=True)
class _Job:
    """``asked`` and ``told`` are when the scheduler was last asked of it, and last answered.

    ``gone`` is since when an element is not in the queue any more, as far as it is known.
    """

    asked: float = -math.inf
    told: float = 0.0
    seen: dict[int | None, Seen] = field(default_factory=dict)
    gone: dict[int | None, float] = field(default_factory=dict)

    def final(self, index: int | None, now: float) -> bool:
        """Whether nothing new of this element can be told.

        A job that was ended by the scheduler may be begun again, and the records may say "failed"
        before they say how.
        """
        seen = self.seen.get(index)
        if seen is None or (seen.state not in ENDED and seen.state != "vanished"):
            return False
        told = seen.exit_status or seen.signal
        sure = seen.state not in ("node", "preempted") and (seen.state != "failed" or told)
        return bool(sure) or now - self.gone.get(index, now) >= _GRACE


class Known:
    """Gathers what one scheduler tells. All times are in seconds since 1970.

    An element is ``"unknown"`` until something is told of it, and keeps its last state while
    nothing is. When both the queue and the records were asked, again and again for a minute, and
    have not got it, it has ``"vanished"``; for ten minutes, where the records still have it alive.
    """

    def __init__(self, scheduler: str) -> None:
        self._scheduler = scheduler
        self._jobs: dict[str, _Job] = {}
        self._since: float | None = None  # there has been trouble
        self._trouble = ""

    def to_ask(self, elements: Elements, now: float, max_age: float) -> Elements:
        """Those of the elements that something new can be told of, of jobs that nobody has asked
        about for ``max_age`` seconds."""
        wanted = {}
        for name, indices in elements.items():
            job = self._jobs.setdefault(name, _Job())
            live = [index for index in indices if not job.final(index, now)]
            fresh = abs(now - job.asked) <= max_age and all(index in job.seen for index in live)
            if live and not fresh:
                wanted[name] = live
        return wanted

    def queue_told(self, elements: Elements, told: Iterable[Seen], now: float) -> Elements:
        """Take what the queue told; returns the elements that it has not got."""
        shown = {(seen.job, seen.index): seen for seen in told}
        absent = {}
        for name, indices in elements.items():
            job = self._jobs[name]
            for index in indices:
                seen = shown.get((name, index))
                if seen is not None:
                    job.seen[index] = seen
                    if seen.state in ENDED:
                        job.gone.setdefault(index, now)
                    else:
                        job.gone.pop(index, None)
            missing = [index for index in indices if (name, index) not in shown]
            if missing:
                absent[name] = missing
        return absent

    def records_told(self, absent: Elements, told: Iterable[Seen], now: float) -> None:
        """Take what the records told of elements that the queue has not got."""
        shown = {(seen.job, seen.index): seen for seen in told}
        for name, indices in absent.items():
            job = self._jobs[name]
            for index in indices:
                gone = now - job.gone.setdefault(index, now)
                record = shown.get((name, index), _never_began(shown, name, index))
                last = job.seen.get(index) or Seen(name, index, "unknown", "")
                if record is not None and record.state in ENDED:
                    last = record
                elif last.state not in ENDED and gone >= (_GRACE if record is None else _LATE):
                    last = last._replace(state="vanished", reason=_VANISHED)
                job.seen[index] = last

    def answered(self, elements: Elements, now: float) -> None:
        """Both have told what they know of these."""
        for name in elements:
            self._jobs[name].asked = self._jobs[name].told = now
        self._since, self._trouble = None, ""

    def failed(self, elements: Elements, trouble: str, now: float) -> None:
        """They were asked of these, in vain. That they are missing has to be seen anew: what was
        written meanwhile may be late."""
        for name, indices in elements.items():
            job = self._jobs[name]
            job.asked = now
            for index in indices:
                last = job.seen.setdefault(index, Seen(name, index, "unknown", ""))
                if last.state not in ENDED:
                    job.gone.pop(index, None)
        self._since = now if self._since is None else self._since
        self._trouble = trouble

    def look(self, elements: Elements) -> Look:
        """What is known of these elements."""
        seen = {}
        for name, indices in elements.items():
            job = self._jobs[name]
            for index in indices:
                seen[name, index] = job.seen.get(index) or Seen(name, index, "unknown", "")
        at = min((self._jobs[name].told for name in elements), default=0.0)
        return Look(seen, at, self._sentence())

    def _sentence(self) -> str:
        if self._since is None:
            return ""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._since))
        return f"unknown since {since}: {self._trouble}"

    def dump(self) -> dict[str, Any]:
        """All of it, as it goes into JSON; `merge` takes it."""
        jobs = {
            name: {
                "asked": job.asked,
                "told": job.told,
                "seen": list(map(list, job.seen.values())),
                "gone": list(map(list, job.gone.items())),
            }
            for name, job in self._jobs.items()
            if job.seen
        }
        return {
            "format": _FORMAT,
            "scheduler": self._scheduler,
            "since": self._since,
            "trouble": self._trouble,
            "jobs": jobs,
        }

    def merge(self, dumped: Mapping[str, Any], now: float) -> None:
        """Take what another process knows, where that is newer.

        Raises `ValueError`, `TypeError`, `KeyError` or `AttributeError` when it is not what `dump`
        returns.
        """
        if (dumped["format"], dumped["scheduler"]) != (_FORMAT, self._scheduler):
            raise ValueError("of another format or scheduler")
        since = None if dumped["since"] is None else _time(dumped["since"])
        trouble = _text(dumped["trouble"])
        loaded = {_text(name): _load(name, job) for name, job in dumped["jobs"].items()}
        newer = False
        for name, job in loaded.items():
            mine = self._jobs.setdefault(name, _Job())
            if job.asked > mine.asked:
                newer = True
                for index in [index for index in mine.seen if mine.final(index, now)]:
                    job.seen[index] = mine.seen[index]
                    job.gone[index] = mine.gone.get(index, now)
                self._jobs[name] = job
        if newer:
            self._since, self._trouble = since, trouble


def _never_began(
    shown: Mapping[tuple[str, int | None], Seen], job: str, index: int | None
) -> Seen | None:
    """What the records tell of an element that they do not name: it was cancelled with others."""
    seen = shown.get((job, None))
    return seen._replace(index=index) if seen is not None and seen.state == "cancelled" else None


def _load(name: str, dumped: Mapping[str, Any]) -> _Job:
    seen = {}
    for row in dumped["seen"]:
        one = Seen(*row)
        if one.job != name or one.state not in _STATES or not all(map(_fits, Seen._fields, row)):
            raise ValueError(f"not an element: {row!r}")
        seen[one.index] = one
    gone = {index: _time(since) for index, since in dumped["gone"] if index in seen}
    return _Job(_time(dumped["asked"]), _time(dumped["told"]), seen, gone)


def _fits(field_name: str, value: Any) -> bool:
    """Whether a field can have this value; numbers are not beyond all measure."""
    kinds = _TYPES.get(field_name, (str,))
    return type(value) in kinds and (type(value) in (str, NoneType) or abs(value) < 1e18)


def _time(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e11:
        raise ValueError(f"not a time: {value!r}")
    return float(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"not a text: {value!r}")
    return value
