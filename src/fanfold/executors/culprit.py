"""Who ended a worker: the guilty task is named, the innocent are sent again.

The worker's mark says what it was doing. A task that was running alone is guilty. Where several may
be (a slice of tiny tasks, arguments loaded together), each is sent again on its own: the guilty one
does it again and is named, the others finish.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from fanfold.errors import TaskError, TaskStalled, TaskTimeout, WorkerDied
from fanfold.executors.mark import IDLE, LOAD, RUN
from fanfold.executors.shipments import Shipment

if TYPE_CHECKING:
    from fanfold.executors.handle import WorkerHandle

__all__ = ["NOBODY", "Sentence", "Verdict", "accuse", "judge"]

_STALL = 2.0  # seconds a worker may stay stopped (SIGSTOP)
_PHASES = {1: "load", 2: "run", 3: "send"}
_DOING = {"load": "loading its input", "run": "running", "send": "sending its result"}


class Verdict(NamedTuple):
    """Why the pool itself ended a worker: the task that it was because of, and its error."""

    shipment: int
    offset: int
    error: TaskError


#: The pool ended the worker for a reason that is no task's fault.
NOBODY = Verdict(-1, -1, TaskError())


class Sentence(NamedTuple):
    """What becomes of a shipment whose worker ended: parts to send again, and who is guilty."""

    again: list[Shipment]
    guilty: range
    error: TaskError | None


def accuse(worker: WorkerHandle, now: float) -> Verdict | None:
    """Why the pool should end a worker: a task over its timeout, or a process that stays still."""
    identity, offset, began = worker.running_since() or (0, 0, 0.0)
    shipment = worker.outstanding.get(identity)
    limit = shipment.call.call.timeout if shipment is not None else None
    if shipment is not None and limit is not None and perf_counter() - began > limit:
        index = shipment.first + offset
        late = TaskTimeout(f"task {index} exceeded its timeout of {limit:g} s")
        return Verdict(identity, offset, late)
    if worker.stopped_for(now) > _STALL:
        stalled = TaskStalled(
            f"the worker (pid {worker.pid}) was stopped (SIGSTOP) for {_STALL:g} s and was killed"
        )
        return Verdict(identity, offset, stalled)
    return None


def judge(worker: WorkerHandle, shipment: Shipment, code: int | None, peak: int | None) -> Sentence:
    """Decide about a shipment that a dead worker had not answered whole."""
    identity, offset, count, _, phase = worker.doing()
    pending = shipment.pending
    verdict = worker.verdict
    if verdict is not None:
        if verdict.shipment == shipment.id and verdict.offset in pending:
            return _one_guilty(shipment, pending, verdict.offset, verdict.error, worker)
        return _innocent(shipment, pending)
    packing = worker.packing()
    if packing in worker.outstanding:
        return _two_suspected(shipment, pending, packing, identity, range(offset, offset + count))
    known = identity in worker.outstanding
    if phase == IDLE or (known and identity != shipment.id):
        return _innocent(shipment, pending)
    suspects = range(offset, offset + count) if known and phase == RUN else pending
    suspects = range(max(suspects.start, pending.start), min(suspects.stop, pending.stop))
    if len(suspects) == 1 and (shipment.deaths or (known and phase != LOAD)):
        error = _death(worker, code, peak, _PHASES[phase])
        return _one_guilty(shipment, pending, suspects.start, error, worker)
    again = _parts(shipment, pending.start, suspects.start)
    again += [shipment.alone(one, died=True) for one in suspects]
    again += _parts(shipment, max(suspects.stop, pending.start), pending.stop)
    return Sentence(again, range(0), None)


def _two_suspected(
    shipment: Shipment, pending: range, packing: int, identity: int, running: range
) -> Sentence:
    """A task ran while the results before it were packed: either may have ended the worker."""
    if shipment.id not in (packing, identity):
        return _innocent(shipment, pending)
    begin = pending.start if shipment.id == packing else max(running.start, pending.start)
    end = min(running.stop, pending.stop) if shipment.id == identity else pending.stop
    again = _parts(shipment, pending.start, begin)
    again += [shipment.alone(one, died=True) for one in range(begin, end)]
    again += _parts(shipment, max(begin, end), pending.stop)
    return Sentence(again, range(0), None)


def _innocent(shipment: Shipment, pending: range) -> Sentence:
    return Sentence(_parts(shipment, pending.start, pending.stop), range(0), None)


def _one_guilty(
    shipment: Shipment, pending: range, guilty: int, error: TaskError, worker: WorkerHandle
) -> Sentence:
    again = _parts(shipment, pending.start, guilty) + _parts(shipment, guilty + 1, pending.stop)
    what = shipment.call.call.describe(shipment.first + guilty, shipment.items[guilty])
    error.add_note(f"fanfold: {what}, attempt {shipment.attempt}, {worker.name}")
    return Sentence(again, range(guilty, guilty + 1), error)


def _parts(shipment: Shipment, start: int, stop: int) -> list[Shipment]:
    return [shipment.part(start, stop)] if stop > start else []


def _death(worker: WorkerHandle, code: int | None, peak: int | None, phase: str) -> WorkerDied:
    error = WorkerDied("", pid=worker.pid, exitcode=code, phase=phase, peak_memory=peak)
    memory = f", peak memory {peak / 2**20:,.0f} MB" if peak else ""
    doing = _DOING[phase]
    error.args = (f"the worker (pid {worker.pid}{memory}) {_ending(error)} while {doing}",)
    return error


def _ending(error: WorkerDied) -> str:
    if error.exitcode is None:
        return "ended, nobody knows how,"
    if error.signal is not None:
        advice = " (by somebody, or by the kernel for want of memory)" if error.signal == 9 else ""
        return f"was ended by {error.signal.name}{advice}"
    if error.exitcode < 0:
        return f"was ended by signal {-error.exitcode}"
    return f"exited with code {error.exitcode}"
