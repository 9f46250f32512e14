"""Who ended a worker: the guilty task is named, the innocent are sent again.

The worker's mark says what it was doing. A task that was running alone is guilty. Where several may
be (a slice of tiny tasks, arguments loaded together), each is sent again on its own: the guilty one
does it again and is named, the others finish.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from fanfold.errors import TaskError, TaskLost, TaskStalled, TaskTimeout, TaskTooLarge, WorkerDied
from fanfold.executors.pool.shipments import Shipment
from fanfold.executors.work.mark import IDLE, LOAD, RUN, Started

if TYPE_CHECKING:
    from fanfold.executors.pool.handle import WorkerHandle, WorkerLimits

__all__ = [
    "LOSSES", "NOBODY", "START_FAILURES", "Ending", "Sentence", "Verdict", "accuse", "in_words",
    "judge", "lost", "never_ready", "too_full",
]  # fmt: skip

LOSSES = 20  # workers that end with a task that is not to blame, until it is given up
START_FAILURES = 3  # workers that die before they are ready, until the pool gives up

_STALL = 2.0  # seconds a worker may stay stopped (SIGSTOP)
_PHASES = {1: "load", 2: "run", 3: "send"}
_DOING = {"load": "loading its input", "run": "running", "send": "sending its result"}


class Verdict(NamedTuple):
    """Why the pool itself ended a worker: the task that it was because of, and its error."""

    shipment: int
    offset: int
    error: TaskError
    started: Started


#: The pool ended the worker for a reason that is no task's fault.
NOBODY = Verdict(-1, -1, TaskError(), Started(0.0, False, 0, 0))

#: The pool ended the worker because of one of those tasks that its mark tells of.
SOMEBODY = NOBODY._replace(shipment=-2)


class Ending(NamedTuple):
    """How a worker process ended, as far as that is known: exit code (negative: minus the signal),
    peak memory in bytes, and whether the kernel ended it for want of memory."""

    exitcode: int | None = None
    peak_memory: int | None = None
    out_of_memory: bool | None = None


class Sentence(NamedTuple):
    """What becomes of a shipment whose worker ended: parts to send again, and who is guilty."""

    again: list[Shipment]
    guilty: range
    error: TaskError | None


def accuse(worker: WorkerHandle, now: float) -> Verdict | None:
    """Why the pool should end a worker: a task over its timeout, a process that stays still, or one
    that is too large."""
    clock = perf_counter()  # before the mark is read: this process may stand still in between
    identity, offset, began = worker.running_since() or (0, 0, 0.0)
    shipment = worker.outstanding.get(identity)
    limit = shipment.call.call.timeout if shipment is not None else None
    started = worker.started()
    if shipment is not None and limit is not None and clock - began > limit:
        index = shipment.first + offset
        late = TaskTimeout(f"task {index} exceeded its timeout of {limit:g} s")
        return Verdict(identity, offset, late, started)
    if worker.stopped_for(now) > _STALL:
        stalled = TaskStalled(
            f"the worker (pid {worker.pid}) was stopped (SIGSTOP) for {_STALL:g} s and was killed"
        )
        return Verdict(identity, offset, stalled, started)
    if worker.limits.memory is not None:
        return _too_large(worker, worker.limits.memory)
    return None


def _too_large(worker: WorkerHandle, limit: int) -> Verdict | None:
    """Who makes a worker larger than it may be; what it has between two tasks is its own affair."""
    doing, started = worker.doing(), worker.started()
    memory, added = worker.memory()
    shipment = worker.outstanding.get(doing[0])
    if memory <= limit or shipment is None or doing[-1] == IDLE or worker.doing() != doing:
        return None
    suspects = _suspects(worker, shipment)
    if len(suspects) != 1:
        return SOMEBODY
    if added <= limit:  # with what others have left here it is too much: a new worker has room
        return NOBODY
    from fanfold.units import format_size  # late: it is a tenth of what a pool has to import

    text = (
        f"task {shipment.first + suspects.start} needs too much memory: its worker (pid "
        f"{worker.pid}) had {format_size(memory)}, and max_memory_per_worker is "
        f"{format_size(limit)}"
    )
    error = TaskTooLarge(text, memory=memory, limit=limit)
    return Verdict(shipment.id, suspects.start, error, started)


def lost() -> TaskLost:
    """The error of a task that is given up."""
    return TaskLost(f"{LOSSES} workers died with this task before it could run")


def never_ready(exitcode: int | None) -> str:
    """Why a pool cannot be had whose workers end at once."""
    return (
        f"{START_FAILURES} workers in a row ended before they were ready (exit code {exitcode}): "
        "see what they wrote on stderr; the initializer, an import or the environment ends them"
    )


def too_full(limits: WorkerLimits, memory: int) -> str:
    """Why no worker can have so little."""
    from fanfold.units import format_size

    return (
        f"a worker has {format_size(memory)} of memory before its first task, and "
        f"max_memory_per_worker is {format_size(limits.memory or 0)}: allow more, or have the "
        "initializer load less"
    )


def judge(worker: WorkerHandle, shipment: Shipment, ending: Ending) -> Sentence:
    """Decide about a shipment that a dead worker had not answered whole."""
    identity, offset, count, _, phase = worker.doing()
    pending = shipment.pending
    verdict = worker.verdict
    if verdict is not None and verdict is not SOMEBODY:
        if verdict.shipment == shipment.id and verdict.offset in pending:
            _add_evidence(verdict.error, shipment, verdict.offset, worker, verdict.started, ending)
            return _one_guilty(shipment, pending, verdict.offset, verdict.error, worker)
        return _innocent(shipment, pending)
    packing = worker.packing()
    if packing in worker.outstanding:
        return _two_suspected(shipment, pending, packing, identity, range(offset, offset + count))
    known = identity in worker.outstanding
    if phase == IDLE or (known and identity != shipment.id):
        return _innocent(shipment, pending)
    suspects = _suspects(worker, shipment)
    certain = shipment.deaths or (known and phase != LOAD)
    if len(suspects) == 1 and certain and verdict is None:
        error = _death(worker, ending, _PHASES[phase])
        _add_evidence(error, shipment, suspects.start, worker, worker.started(), ending)
        return _one_guilty(shipment, pending, suspects.start, error, worker)
    again = _parts(shipment, pending.start, suspects.start)
    again += [shipment.alone(one, died=True) for one in suspects]
    again += _parts(shipment, max(suspects.stop, pending.start), pending.stop)
    return Sentence(again, range(0), None)


def _suspects(worker: WorkerHandle, shipment: Shipment) -> range:
    """Which tasks of a shipment the worker was at when it was seen last."""
    identity, offset, count, _, phase = worker.doing()
    pending = shipment.pending
    if phase != RUN or identity not in worker.outstanding:
        return pending
    return range(max(offset, pending.start), min(offset + count, pending.stop))


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


def _add_evidence(
    error: TaskError,
    shipment: Shipment,
    offset: int,
    worker: WorkerHandle,
    started: Started,
    ending: Ending,
) -> None:
    """Say how the guilty task ran, and what it printed, where its call asks for that."""
    prefix = shipment.call.call.evidence
    if prefix is not None:
        from fanfold.executors.work.evidence import unfinished

        index = shipment.first + offset
        error.evidence = unfinished(index, started, prefix, worker.name, ending.peak_memory)


def _death(worker: WorkerHandle, ending: Ending, phase: str) -> WorkerDied:
    peak = ending.peak_memory
    error = WorkerDied("", pid=worker.pid, exitcode=ending.exitcode, phase=phase, peak_memory=peak)
    error.out_of_memory = ending.out_of_memory
    memory = f", peak memory {peak / 2**20:,.0f} MB" if peak else ""
    doing = _DOING[phase]
    error.args = (f"the worker (pid {worker.pid}{memory}) {in_words(error)} while {doing}",)
    return error


#: Why SIGKILL came, by whether the kernel sent it for want of memory.
_KILLED = {
    True: " (by the kernel, for want of memory)",
    False: " (by somebody: it was not for want of memory)",
    None: " (by somebody, or by the kernel for want of memory)",
}


def in_words(error: WorkerDied) -> str:
    """How a worker ended."""
    if error.exitcode is None:
        return "ended, nobody knows how,"
    if error.signal is not None:
        killer = _KILLED[error.out_of_memory] if error.signal == 9 else ""
        return f"was ended by {error.signal.name}{killer}"
    if error.exitcode < 0:
        return f"was ended by signal {-error.exitcode}"
    return f"exited with code {error.exitcode}"
