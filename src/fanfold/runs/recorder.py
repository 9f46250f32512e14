"""Writes down what happens in a run: a listener of the same events as the bar.

A thread of its own does the writing, so that a slow disk does not hold up the workers, and what
arrives while it waits for the disk is committed together. The order of a commit is stated in
docs/reference/run-directory.md.
"""

from __future__ import annotations

import os
import pickle
import platform
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from fanfold.dispatch import Event
from fanfold.errors import (
    NotSerializable,
    RemoteTraceback,
    RunCancelled,
    RunSuperseded,
    WorkerDied,
)
from fanfold.executors.work.packing import text_of
from fanfold.mailbox import Mailbox
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import FORMAT, JournalWriter
from fanfold.store.lease import Lease
from fanfold.store.pack import PackWriter
from fanfold.tasks import Activity, Evidence, Report, TaskRetried
from fanfold.transport.pickling import dumps
from fanfold.transport.segments import held

__all__ = ["Recorder", "Tally", "cancel_request", "journal_header"]

_BEAT = 1.0  # seconds between heartbeats, and at most until a journal is synced
_TALLY_EVERY = 8 << 10  # bytes of a journal
_PACE = 0.05  # seconds from commit to commit: what ends meanwhile shares the wait for the disk

Record = dict[str, Any]


class Tally:
    """How many tasks are done and failed, and the seconds they took."""

    def __init__(self, done: int, failed: int, seconds: float = 0.0) -> None:
        self.done = done
        self.failed = failed
        self.seconds = seconds

    def record(self) -> Record:
        return {
            "is": "tally", "done": self.done, "failed": self.failed,
            "seconds": round(self.seconds, 6),
        }  # fmt: skip


class Recorder:
    """Records the events of one driver's work; made with the lease that the driver holds.

    ``about`` goes into the header of the journal: the run, its generation of inputs, the
    fingerprint of the function. ``tally`` is what counts already, ``lost`` the tasks whose results
    are damaged, ``shown`` gives an input in one line, ``workers`` what each worker is doing, for
    the heartbeat, and ``meter``, where there is one, what all of it uses.

    Calling it with an event raises what has gone wrong with the writing, which ends the map.
    """

    def __init__(
        self,
        directory: RunDirectory,
        lease: Lease,
        about: Record,
        tally: Tally,
        *,
        lost: Sequence[range] = (),
        shown: Callable[[int], str],
        workers: Callable[[], list[Activity]],
        meter: Callable[[], Record] | None = None,
    ) -> None:
        self.tally = tally
        self._lease = lease
        self._cancel = cancel_request(directory, lease.writer)
        self._cancelled = False
        self._shown = shown
        self._workers = workers
        self._meter = meter
        self._running: list[int] = []  # at the last beat
        self._ended: list[range] = []  # since then
        self._message = ""
        self._held = 0, 0  # bytes in shared memory, and on disk instead, at the most
        header = journal_header(directory, lease, about, tally)
        names = {name: header[name] for name in ("run", "element", "attempt")}
        self._pack = PackWriter(directory.pack(lease.element, lease.attempt), names)
        try:
            self._journal = JournalWriter(directory.journal(lease.element, lease.attempt), header)
            if lost:
                self._journal.append(
                    {"is": "lost", "first": tasks.start, "count": len(tasks)} for tasks in lost
                )
        except BaseException:
            self._pack.close()
            raise
        self._tallied = self._synced = self._journal.size
        self._beaten = self._committed = 0.0
        self._closing = threading.Event()
        self._events: Mailbox[Event | str] = Mailbox()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="fanfold-recorder")
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if self.error is not None:
            raise self.error
        if self._cancelled:
            raise RunCancelled("the run was cancelled: the same command, or retry(), goes on")
        self._events.put(event)

    def close(self, why: str, message: str = "") -> None:
        """Write what is left, and how and with what message it ended; raises what has gone wrong
        with the writing."""
        self._message = message
        self._events.put(why)
        self._closing.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    # In the thread

    def _main(self) -> None:
        try:
            with closing(self._pack), closing(self._journal):
                self._write()
        except BaseException as error:  # noqa: BLE001 - told to the driver, which ends the map
            self.error = error

    def _write(self) -> None:
        try:
            while (why := self._turn()) is None:
                pass
        except BaseException:
            with suppress(OSError):  # it may go for such a small record
                self._end("error")
            raise
        self._end(why)

    def _turn(self) -> str | None:
        """Commit what has arrived; how the run ended once that is known."""
        events: list[Event] = []
        why = None
        try:
            event = self._events.get(timeout=_BEAT)
            self._closing.wait(self._committed + _PACE - time.monotonic())
            while not isinstance(event, str):
                events.append(event)
                event = self._events.get_nowait()
            why = event
        except queue.Empty:
            pass
        self._record(events)
        self._beat()
        return why

    def _record(self, events: list[Event]) -> None:
        records: list[Record] = []
        try:
            for event in events:
                for record in self._records(event):
                    records.append(record)  # noqa: PERF402 - those before an error count
        finally:
            self._commit(records)

    def _commit(self, records: list[Record]) -> None:
        if self._lease.superseded():
            raise RunSuperseded(
                f"another driver has taken over this run: what {self._lease.writer} goes on with "
                "counts for nothing, so it stops"
            )
        if records:
            self._pack.sync()
            if self._journal.size - self._tallied > _TALLY_EVERY:
                records.append(self.tally.record())
            self._journal.append(records)
            if records[-1]["is"] == "tally":
                self._tallied = self._journal.size
            self._committed = time.monotonic()

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten < _BEAT:
            return
        self._beaten = now
        self._look_at_segments()
        if self._synced < self._journal.size:
            self._journal.sync()
            self._synced = self._journal.size
        self._cancelled = self._cancel.exists()
        workers = self._workers()
        self._running = [one.task for one in workers if one.task is not None]
        self._ended.clear()
        used = {} if self._meter is None else {"usage": self._meter()}
        self._lease.beat({"workers": [one._asdict() for one in workers], **used})

    def _look_at_segments(self) -> None:
        shared, spilled = held()
        self._held = max(self._held[0], shared), max(self._held[1], spilled)

    def _end(self, why: str) -> None:
        if self._lease.superseded():
            return
        records = [self.tally.record()]
        self._look_at_segments()
        if any(self._held):
            shared, spilled = self._held
            records.append({"is": "held", "shared": shared, "spilled": spilled})
        if self._meter is not None:
            records.append({"is": "usage", **self._meter()})
        if why in ("walltime", "terminated"):
            ended = chain.from_iterable(self._ended)
            records.append({"is": "running", "tasks": sorted({*self._running}.difference(ended))})
        said = {"message": self._message} if self._message else {}
        records.append({"is": "end", "why": why, "at": time.time(), **said})
        self._journal.append(records)
        self._journal.sync()
        self._lease.beat({"workers": []})

    def _records(self, event: Event) -> Iterator[Record]:
        if isinstance(event, TaskRetried):
            for index in event.report.failed:
                yield self._failure(event.report, index, final=False)
        elif isinstance(event, Report):
            yield from self._of_report(event)

    def _of_report(self, report: Report) -> Iterator[Record]:
        first, stop = report.first, report.first + len(report.values)
        self._ended.append(range(first, stop))
        for index in [*sorted(report.failed), stop]:
            if index > first:
                yield from self._results(report, first, index)
            if index < stop:
                yield self._failure(report, index, final=True)
            first = index + 1

    def _results(self, report: Report, first: int, stop: int) -> Iterator[Record]:
        values = report.values[first - report.first : stop - report.first]
        try:
            payload = dumps(values)
        except NotSerializable:
            yield from self._one_by_one(report, first, values)
            return
        yield self._done(report, first, len(values), payload)

    def _one_by_one(self, report: Report, first: int, values: list[Any]) -> Iterator[Record]:
        """One of the results cannot be kept: that task has failed, the others have not."""
        for index, value in enumerate(values, first):
            try:
                yield self._done(report, index, 1, dumps([value]))
            except NotSerializable as error:
                error.index = index
                report.values[index - report.first] = error
                report.failed = tuple(sorted({*report.failed, index}))
                yield self._failure(report, index, final=True)

    def _done(self, report: Report, first: int, count: int, payload: bytes) -> Record:
        place = self._pack.append(first, count, report.attempt, payload)
        self.tally.done += count
        ran = list(_ran(report, first, first + count))
        self.tally.seconds += sum(piece[2] for piece in ran)
        return {
            "is": "done", "first": first, "count": count, "try": report.attempt,
            "worker": report.worker,
            "place": place, "ran": ran,
        }  # fmt: skip

    def _failure(self, report: Report, index: int, *, final: bool) -> Record:
        error: BaseException = report.values[index - report.first]
        text = _traceback(error)
        place = self._pack.append(index, 1, report.attempt, _pack_error(error, text))
        self.tally.failed += final
        record = {
            "is": "failed", "first": index, "try": report.attempt, "final": final,
            "worker": report.worker, "input": self._shown(index),
            "place": place,
            "error": {"type": type(error).__name__, "message": text_of(error), "traceback": text},
            "ran": list(_ran(report, index, index + 1)),
        }  # fmt: skip
        if isinstance(error, WorkerDied):
            record["death"] = _death(error)
        return record


def journal_header(directory: RunDirectory, lease: Lease, about: Record, before: Tally) -> Record:
    """How the journal of the lease's holder begins; ``before`` is what counts already."""
    return {
        "is": "journal", "format": FORMAT, "run": about["run"], "element": lease.element,
        "attempt": lease.attempt, **about,
        "host": lease.host, "pid": os.getpid(), "at": time.time(),
        "python": platform.python_version(),
        "after": _lengths(directory, lease), "before": before.record(),
    }  # fmt: skip


def cancel_request(directory: RunDirectory, writer: str) -> Path:
    """The file whose existence asks a driver to stop."""
    return directory.path / "leases" / f"{writer}.cancel"


def _lengths(directory: RunDirectory, lease: Lease) -> dict[str, int]:
    """How long the journals of the earlier attempts at this element are now: they end there."""
    attempts = [n for n in directory.attempts(lease.element) if n < lease.attempt]  # not all:
    earlier = (directory.journal(lease.element, n) for n in attempts)  # it may be late itself
    return {path.name: path.stat().st_size for path in earlier if path.exists()}


def _ran(report: Report, first: int, stop: int) -> Iterator[list[Any]]:
    """How the tasks ``first`` ... ``stop - 1`` ran, piece by piece."""
    if report.evidence:
        for piece in report.evidence:
            begin, end = max(piece.first, first), min(piece.first + piece.count, stop)
            if begin < end:
                yield _row(piece, end - begin)
        return
    seconds: Sequence[float] = (
        [report.work_time / len(report)] * len(report)
        if isinstance(report.seconds, float)
        else report.seconds
    )
    total = sum(seconds[first - report.first : stop - report.first])
    yield [stop - first, None, round(total, 6), None, report.peak_memory or None, *[None] * 4]


def _row(piece: Evidence, count: int) -> list[Any]:
    share = count / piece.count
    cpu = None if piece.cpu_time is None else round(piece.cpu_time * share, 6)
    return [
        count, round(piece.began, 4), round(piece.seconds * share, 7), cpu, piece.peak_memory,
        *(piece.log or [None] * 4),
    ]  # fmt: skip


def _death(error: WorkerDied) -> Record:
    return {
        "pid": error.pid,
        "signal": error.signal.name if error.signal else None,
        "exitcode": error.exitcode,
        "phase": error.phase,
        "peak": error.peak_memory,
        "out_of_memory": error.out_of_memory,
    }


def _traceback(error: BaseException) -> str:
    """The traceback where the task ran, as text."""
    cause = error.__cause__
    if isinstance(cause, RemoteTraceback):
        return cause.text
    return "".join(traceback.format_exception(error))


def _pack_error(error: BaseException, text: str) -> bytes:
    """The exception and its traceback; the text alone where the exception cannot be kept."""
    try:
        payload = dumps((error, text))
        pickle.loads(payload)
    except Exception:  # noqa: BLE001 - whatever is wrong with it leads to the same
        payload = dumps((None, text))
    return payload
