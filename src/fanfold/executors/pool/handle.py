"""A worker process as its pool sees it."""

from __future__ import annotations

import contextlib
import os
import pickle
from time import perf_counter
from typing import Any, NamedTuple

from fanfold.executors.pool.culprit import Verdict
from fanfold.executors.pool.shipments import PooledCall, Shipment
from fanfold.executors.work.mark import RUN, Mark, Started
from fanfold.executors.work.memory import own_memory
from fanfold.tasks import Activity
from fanfold.transport.channel import Channel
from fanfold.transport.segments import claim

__all__ = ["WorkerHandle", "WorkerLimits"]

_AHEAD = 5e-3  # seconds of work a busy worker may have waiting
_SHORT = 4e-3  # seconds of a task of which a busy worker may have more waiting
_UNKNOWN = 1.0  # seconds: a task of unknown length lets nothing wait behind it


class WorkerLimits(NamedTuple):
    """What one worker may do and have, until another takes its place: tasks, and bytes."""

    tasks: int | None = None
    memory: int | None = None


class WorkerHandle:
    """One worker: its channel, its mark, and the shipments it has not answered yet.

    ``leaving`` means that it gets no more work; ``silent`` that its channel has closed; ``verdict``
    is set when the pool itself ends it because of a task.
    """

    def __init__(self, number: int, channel: Channel, mark: Mark, limits: WorkerLimits) -> None:
        self.number = number
        self.name = f"worker {number}"
        self.channel = channel
        self.pid: int | None = None
        self.ready = False
        self.leaving = False
        self.silent = False
        self.verdict: Verdict | None = None
        self.last_moment = 0.0  # when one that is condemned is killed, if it still lives
        self.peak_memory: int | None = None
        self.outstanding: dict[int, Shipment] = {}
        self.calls: set[int] = set()
        self.given = 0
        self.batch = 0  # shipments in the last message
        self.load = 0.0  # seconds of work it should have, as far as known
        self.limits = limits
        self._mark = mark
        self._stopped_since: float | None = None

    @property
    def takes_work(self) -> bool:
        return not (self.leaving or self.silent)

    @property
    def wants_more(self) -> bool:
        """The next batch should be on its way: little is left of the last one, and it is short.

        While that is not so, tasks gather in the queue, so that the next batch is worth its
        message.
        """
        return self.load < _AHEAD and len(self.outstanding) <= max(1, self.batch // 2)

    @property
    def takes_another(self) -> bool:
        """May a chunk wait there, so that the worker does not wait for a driver that is busy? It is
        given back when a task turns out long."""
        return len(self.outstanding) == 1 and all(
            one.stop - one.start > 1 and (one.call.pace or _UNKNOWN) < _SHORT
            for one in self.outstanding.values()
        )

    @property
    def quarantined(self) -> bool:
        """It has a task that may have ended a worker before: nothing else goes there meanwhile."""
        return len(self.outstanding) == 1 and any(one.deaths for one in self.outstanding.values())

    @property
    def is_full(self) -> bool:
        """It has been given all the tasks that it may do (max_tasks_per_child)."""
        return self.limits.tasks is not None and self.given >= self.limits.tasks

    def add(self, shipment: Shipment) -> None:
        self.outstanding[shipment.id] = shipment
        expected = shipment.expected()
        shipment.cost = cost = expected if expected < _UNKNOWN else _UNKNOWN
        self.load += cost

    def remove(self, identity: int) -> Shipment | None:
        """A shipment has been answered whole; None when it is not known (any more)."""
        shipment = self.outstanding.pop(identity, None)
        if not self.outstanding:
            self.load = 0.0
        elif shipment is not None:
            self.load -= shipment.cost
        return shipment

    def post(self, operations: list[tuple[Any, ...]]) -> bool:
        """Send operations without waiting; False when some must wait for the channel."""
        return self.channel.post(pickle.dumps(operations, 5))

    def receive(self) -> list[tuple[Any, ...]]:
        """The answers that have arrived. Raises `ChannelClosed`."""
        entries: list[tuple[Any, ...]] = []
        for message in self.channel.receive_available():
            entries += pickle.loads(message)
            if entries and entries[-1][0] == "large":
                entries += pickle.loads(claim(entries.pop()[1]))
        return entries

    def answers_too_late(self, shipment: int, stop: int) -> bool:
        """Is it condemned for one of the tasks before ``stop``? Then it needs no more time."""
        verdict = self.verdict
        late = verdict is not None and verdict.shipment == shipment and verdict.offset < stop
        if late:
            self.last_moment = 0.0
        return late

    def doing(self) -> tuple[int, int, int, float, int]:
        """(shipment, offset, count, began, phase) as the worker marked it last."""
        return self._mark.read()

    def started(self) -> Started:
        """When the task began that it runs, or else sends the result of."""
        return self._mark.started()

    def packing(self) -> int:
        """The shipment whose results are packed beside the running task; 0 for none."""
        return self._mark.packed_now()

    def running_since(self) -> tuple[int, int, float] | None:
        """(shipment, offset, began) of the one task that it runs; None when that is not so."""
        identity, offset, _, began, phase = self._mark.read()
        return (identity, offset, began) if phase == RUN else None

    def activity(self) -> Activity:
        identity, offset, began = self.running_since() or (0, 0, 0.0)
        shipment = self.outstanding.get(identity)
        if shipment is None:
            return Activity(self.name, None, 0.0)
        return Activity(self.name, shipment.first + offset, perf_counter() - began)

    def runs(self, call: PooledCall) -> bool:
        """Is a task of ``call`` running, or may it be next?"""
        ids = {one.id for one in self.outstanding.values() if one.call is call}
        running = self.running_since()
        return bool(ids) and (running is None or running[0] in ids)

    def memory(self) -> tuple[int, int]:
        """What it has of its own, in bytes, and how much of that the running task has added."""
        born, found = self._mark.memory_found()
        now = 0 if self.pid is None else own_memory(self.pid)
        return now - born, now - found

    def stopped_for(self, now: float) -> float:
        """For how many seconds the process has been seen stopped (SIGSTOP)."""
        if not _is_stopped(self.pid):
            self._stopped_since = None
            return 0.0
        if self._stopped_since is None:
            self._stopped_since = now
        return now - self._stopped_since

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.channel.close()
        self._mark.close()


def _is_stopped(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except ProcessLookupError:  # it ended since the file was opened
        return False
    except FileNotFoundError:
        return not os.path.isdir("/proc/self") and _is_stopped_elsewhere(pid)


def _is_stopped_elsewhere(pid: int) -> bool:
    import psutil  # late: it would be a hundredth of the first seconds of a pool

    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False
