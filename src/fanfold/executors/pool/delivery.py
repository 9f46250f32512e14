"""From a worker's answer to a future or a report: values loaded, errors rebuilt."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fanfold.errors import LoadFailed, PoolClosed, RemoteTraceback, TaskError
from fanfold.executors.pool.handle import WorkerHandle
from fanfold.executors.pool.shipments import Shipment
from fanfold.executors.work.packing import Read
from fanfold.tasks import Evidence, Report
from fanfold.transport.pickling import Packed, unpack
from fanfold.transport.segments import claim

__all__ = ["Answer", "Outbox", "cancel", "deliver", "deliver_failure", "tell_full", "unpack_error"]

_logger = logging.getLogger("fanfold")


class Outbox:
    """What the pool tells the outside once its lock is free: callbacks may submit again."""

    def __init__(self) -> None:
        self._finished: list[tuple[concurrent.futures.Future[Any] | None, Any]] = []
        self._later: list[Callable[[], None]] = []

    def finish(self, future: concurrent.futures.Future[Any] | None, value: Any) -> None:
        """Give a future its result."""
        self._finished.append((future, value))

    def later(self, callback: Callable[[], None]) -> None:
        self._later.append(callback)

    def fail(
        self, shipment: Shipment, offsets: range, error: BaseException, worker: WorkerHandle | None
    ) -> None:
        """Tell that tasks of a shipment ended with ``error``, if anybody waits for them."""
        if not shipment.call.closed:
            self._later.append(lambda: deliver_failure(shipment, offsets, error, worker))

    def give_up(
        self, shipment: Shipment, offsets: range, error: BaseException, worker: WorkerHandle | None
    ) -> None:
        """The same, of what is left of a shipment."""
        self.fail(shipment, offsets, error, worker)
        self.later(shipment.let_go)

    def deliver(self) -> None:
        """What a user's callback raises, even SystemExit, must not end the pool's thread."""
        for future, value in self._finished:
            try:
                if future is not None:
                    future.set_result(value)
            except BaseException:
                _logger.exception("a callback of a future raised")
        for callback in self._later:
            try:
                callback()
            except BaseException:
                _logger.exception("a callback of a future raised")


def _peak_of(source: object) -> int:
    """The peak memory that an error or a worker knows; 0 when it knows none."""
    return getattr(source, "peak_memory", None) or 0


def unpack_error(packed: Packed, read: Read = claim) -> BaseException:
    error, text = unpack(packed, read)
    error.__cause__ = RemoteTraceback(text)
    return error  # type: ignore[no-any-return]


class Answer(NamedTuple):
    """What a worker tells of tasks from ``offset`` on of a shipment (see `pool.worker`)."""

    shipment: int
    folded: int
    offset: int
    values: Any
    failed: tuple[int, ...]
    seconds: list[float] | float
    evidence: Sequence[Evidence]
    peak_memory: int

    @property
    def tasks(self) -> int:
        return self.folded or len(self.values[0] if self.is_plain else self.values)

    @property
    def stop(self) -> int:
        return self.offset + self.tasks

    @property
    def work_time(self) -> float:
        return self.seconds if isinstance(self.seconds, float) else sum(self.seconds)

    @property
    def is_plain(self) -> bool:
        """Need the values no loading?"""
        return isinstance(self.values, tuple)

    def load(self, read: Read = claim) -> tuple[list[Any], list[int]]:
        """The values, and the offsets of those that failed, loading included."""
        if self.is_plain:
            return self.values[0], list(self.failed)
        loaded: list[Any] = []
        bad: list[int] = []
        for offset, (is_error, *packed) in enumerate(self.values, self.offset):
            value, ok = _load(Packed(*packed), bool(is_error), read)
            loaded.append(value)
            if not ok:
                bad.append(offset)
        return loaded, bad


def _load(packed: Packed, is_error: bool, read: Read) -> tuple[Any, bool]:
    """A value, or the exception that stands for it; is it a value?"""
    try:
        if is_error:
            return unpack_error(packed, read), False
        return unpack(packed, read), True
    except BaseException as error:  # noqa: BLE001 - SystemExit too is only this task's end
        failure = LoadFailed(
            f"the result was sent, but could not be loaded here: {type(error).__name__}: {error}"
        )
        failure.__cause__ = error
        return failure, False


def deliver(worker: WorkerHandle, shipment: Shipment, answer: Answer) -> None:
    loaded, bad = answer.load()
    for index in bad:
        _name_task(loaded[index - answer.offset], shipment, index, worker)
    if shipment.future is not None:
        _finish_future(shipment.future, loaded[0], bool(bad))
        return
    report = shipment.call.report
    assert report is not None  # only a submit has none  # noqa: S101
    first = shipment.first
    report(
        Report(
            first=first + answer.offset,
            values=loaded,
            seconds=answer.seconds,
            failed=tuple(first + index for index in bad),
            attempt=shipment.attempt,
            worker=worker.name,
            peak_memory=answer.peak_memory,
            folded=answer.folded if not bad else 0,
            evidence=answer.evidence,
        )
    )


def deliver_failure(
    shipment: Shipment, offsets: range, error: BaseException, worker: WorkerHandle | None
) -> None:
    if len(offsets) == 1:
        _name_task(error, shipment, offsets.start, worker)
    if shipment.future is not None:
        _finish_future(shipment.future, error, True)
        return
    report = shipment.call.report
    assert report is not None  # only a submit has none  # noqa: S101
    first = shipment.first + offsets.start
    evidence = error.evidence if isinstance(error, TaskError) else None
    report(
        Report(
            first=first,
            values=[error] * len(offsets),
            seconds=evidence.seconds if evidence is not None else 0.0,
            failed=tuple(range(first, first + len(offsets))),
            attempt=shipment.attempt,
            worker=worker.name if worker is not None else "",
            peak_memory=_peak_of(error) or _peak_of(worker),
            evidence=[evidence] if evidence is not None else (),
        )
    )


def tell_full(worker: WorkerHandle, memory: int) -> None:
    """Log, once a pool, that a worker is replaced."""
    from fanfold.units import format_size

    limit = format_size(worker.limits.memory or 0)
    _logger.warning(
        "%s has kept %s of memory after a task, and max_memory_per_worker is %s: a new one takes "
        "its place. It may not be the last; this is told once.",
        worker.name, format_size(memory), limit,
    )  # fmt: skip


def cancel(shipment: Shipment) -> bool:
    """Tell whoever waits for a queued shipment that it will not run; False when it has begun."""
    if shipment.future is None:
        error = PoolClosed("the executor was shut down before this could start")
        deliver_failure(shipment, range(shipment.start, shipment.stop), error, None)
    elif not shipment.future.cancel():
        return False
    else:
        shipment.future.set_running_or_notify_cancel()
    shipment.let_go()
    return True


def _name_task(
    error: BaseException, shipment: Shipment, offset: int, worker: WorkerHandle | None
) -> None:
    """Say which task an error is of, where it does not say so yet."""
    if not isinstance(error, TaskError):
        return
    index = shipment.first + offset
    if shipment.future is None and error.index is None:
        error.index = index
    if not any(note.startswith("fanfold: ") for note in getattr(error, "__notes__", ())):
        task = shipment.call.call.describe(index, shipment.items[offset])
        where = f", {worker.name}" if worker is not None else ""
        error.add_note(f"fanfold: {task}, attempt {shipment.attempt}{where}")


def _finish_future(future: concurrent.futures.Future[Any], value: Any, failed: bool) -> None:
    if future.done():
        return
    if not future.running() and not future.set_running_or_notify_cancel():
        return
    if failed:
        future.set_exception(value)
    else:
        future.set_result(value)
