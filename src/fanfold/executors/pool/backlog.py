"""The shipments of a pool that wait for a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from fanfold.executors.pool.handle import WorkerHandle
from fanfold.executors.pool.shipments import PooledCall, Shipment

__all__ = ["Backlog"]

_BATCH = 2e-3  # seconds of work in one message
_BATCH_TASKS = 500


class Backlog:
    """A queue that hands out batches: what one message to a worker should hold."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._queue: deque[Shipment] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Shipment]:
        return iter(self._queue)

    @property
    def plenty(self) -> bool:
        """Would each worker get something if one got two?"""
        return len(self._queue) > self._workers

    @property
    def suspect_first(self) -> bool:
        """The next shipment may have ended a worker before: it travels alone."""
        return bool(self._queue) and self._queue[0].deaths > 0

    def append(self, shipment: Shipment) -> None:
        self._queue.append(shipment)

    def put_back(self, shipment: Shipment) -> None:
        """Queue it first, unless nobody waits for it any more."""
        if shipment.call.closed:
            shipment.let_go()
        else:
            self._queue.appendleft(shipment)

    def take_batch(self, worker: WorkerHandle) -> list[Shipment]:
        """The next shipments for a worker: little enough that others get their share."""
        queue = self._queue
        share = max(1, min(_BATCH_TASKS, len(queue) // (2 * self._workers)))
        batch: list[Shipment] = []
        seconds = 0.0
        while queue and len(batch) < share:
            shipment = queue[0]
            seconds += shipment.expected()
            if batch and (seconds > _BATCH or shipment.deaths):
                break
            queue.popleft()
            if not shipment.begin():  # its future was cancelled
                shipment.let_go()
                continue
            if worker.limits.tasks is not None:
                self._fit(worker, worker.limits.tasks, shipment)
            batch.append(shipment)
            if shipment.deaths or worker.is_full:
                break
        return batch

    def _fit(self, worker: WorkerHandle, limit: int, shipment: Shipment) -> None:
        """Cut a shipment to what the worker may still do (max_tasks_per_child)."""
        tasks = shipment.stop - shipment.start
        fits = min(tasks, limit - worker.given)
        if fits < tasks:
            middle = shipment.start + fits
            self._queue.appendleft(shipment.part(middle, shipment.stop))
            shipment.stop = middle
            shipment.left = fits
        worker.given += fits

    def drop(self, call: PooledCall) -> None:
        """Remove all shipments of a call."""
        for shipment in [one for one in self._queue if one.call is call]:
            self._queue.remove(shipment)
            shipment.let_go()

    def take_all(self) -> list[Shipment]:
        """Everything that waits; nothing waits afterwards."""
        taken = list(self._queue)
        self._queue.clear()
        return taken
