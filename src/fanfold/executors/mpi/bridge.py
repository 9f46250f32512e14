"""In the ranks of an executor: rank 0 is the bridge to the driver, the others do errands.

The driver sends rank 0 messages, each a pickled header and a parcel; the bridge takes them to the
rank that the header names first, and brings the answers back:

    (rank, "publish", number)       what errands of this number need; to every rank
    (rank, "retract", number)
    (rank, "run", errand, number, near)  do an errand (see `remote/errand.py`); ``near`` are those
                                    of its parts that are here in segments, by position
    (rank, "cancel", errand)        drop it; end it where it runs
    (0, "exit")

    (rank, "done", errand)          with the answer
    (rank, "died", errand)          with the packed error: its worker ended
    (rank, "failed", errand)        with the packed error: it could not be done
    (rank, "dropped", errand)       it was cancelled

A rank runs its tasks in a process beside it, by `ProcessExecutor`. MPI ends a whole crew when one
rank dies; so a task that crashes costs its own process, and the crew never hears of it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import threading
from collections import deque
from concurrent.futures import Future
from time import monotonic
from typing import TYPE_CHECKING, Any

from fanfold.errors import WorkerDied
from fanfold.executors.mpi import wire
from fanfold.executors.mpi.launchers import without_ranks
from fanfold.executors.mpi.mail import Letter, Mail, pause
from fanfold.executors.mpi.memory import forget, named_memory
from fanfold.executors.processes import ProcessExecutor
from fanfold.executors.remote.errand import Buffer, run_errand
from fanfold.transport.segments import Segment, attach, process_folder, release

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["serve"]

_LARGE = 1 << 17  # bytes; larger parts are lent to the worker in shared memory


def serve(world: Intracomm, connection: socket.socket | None) -> None:
    """The life of a rank, until the driver sends it home, or is gone."""
    kept = without_ranks(os.environ)
    for name in set(os.environ) - set(kept):  # MPI has read them; workers are no ranks
        del os.environ[name]
    if connection is not None:
        try:
            _bridge(world, Mail(world), connection)
        except (EOFError, OSError):  # the driver is gone: nothing of it may stay
            forget(named_memory())
            world.Abort(1)
    else:
        with ProcessExecutor(1) as pool:
            _Hand(world, Mail(world), pool).work()


def _bridge(world: Intracomm, mail: Mail, connection: socket.socket) -> None:
    seen = monotonic()
    while True:
        wait = 0.0 if mail.busy else pause(monotonic() - seen)
        if select.select([connection], [], [], wait)[0]:
            header, *parcel = wire.receive(connection)
            rank, *rest = pickle.loads(header)
            for other in range(1, world.size) if rank == 0 else [rank]:
                mail.send(other, rest, parcel)
            seen = monotonic()
            if rest == ["exit"]:
                break
        while (letter := mail.poll()) is not None:
            rank, rest, parcel = letter
            wire.send(connection, pickle.dumps((rank, *rest)), *parcel)
            seen = monotonic()
    while mail.busy:
        mail.poll()


class _Hand:
    """A rank that does errands, one at a time; those that wait are here, to be cancelled here."""

    def __init__(self, world: Intracomm, mail: Mail, pool: ProcessExecutor) -> None:
        self._mail = mail
        self._pool = pool
        self._name = f"rank {world.rank} on {socket.gethostname()}"
        self._published: dict[int, list[bytes | Segment]] = {}
        self._waiting: deque[tuple[int, int | None, list[Any]]] = deque()
        self._current: int | None = None
        self._dropped = False  # the current errand has been cancelled
        # No queue: CPython's SimpleQueue.get, given a few microseconds, may wait for ever.
        self._ended: deque[Future[Any]] = deque()
        self._news = threading.Event()

    def work(self) -> None:
        self._pool.submit(os.getpid)  # the worker starts before it is needed
        seen = monotonic()
        while True:
            self._news.wait(0.0 if self._mail.busy else pause(monotonic() - seen))
            self._news.clear()
            while self._ended:
                seen = monotonic()
                self._answer(self._ended.popleft())
            while (letter := self._mail.poll()) is not None:
                seen = monotonic()
                if not self._obey(letter):
                    return
            if self._current is None and self._waiting:
                self._begin(*self._waiting.popleft())

    def _obey(self, letter: Letter) -> bool:
        """Do what the driver wants; False when this was the last."""
        _, header, parcel = letter
        match header:
            case ["publish", number]:
                self._published[number] = [_stored(part) for part in parcel]
            case ["retract", number]:
                for part in self._published.pop(number, ()):
                    if isinstance(part, Segment):
                        release(part)
            case ["run", errand, number, near]:
                parts = [near.get(place) or _lent(part) for place, part in enumerate(parcel)]
                self._waiting.append((errand, number, parts))
            case ["cancel", errand]:
                self._cancel(errand)
            case ["exit"]:
                return False
        return True

    def _begin(self, errand: int, number: int | None, parts: list[Any]) -> None:
        published = None if number is None else self._published[number]
        self._current, self._dropped = errand, False
        self._pool.submit(_do, published, parts, self._name).add_done_callback(self._note)

    def _note(self, future: Future[Any]) -> None:
        """In the pool's thread."""
        self._ended.append(future)
        self._news.set()

    def _cancel(self, errand: int) -> None:
        for entry in self._waiting:
            if entry[0] == errand:
                self._waiting.remove(entry)
                self._mail.send(0, ("dropped", errand), [])
                return
        if self._current == errand:
            self._dropped = True
            for pid in self._pool.process_ids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _answer(self, future: Future[Any]) -> None:
        errand, self._current = self._current, None
        error = future.exception()
        if self._dropped:
            self._mail.send(0, ("dropped", errand), [])
        elif error is None:
            self._mail.send(0, ("done", errand), [_bytes_of(part) for part in future.result()])
        else:
            kind = "died" if isinstance(error, WorkerDied) else "failed"
            self._mail.send(0, (kind, errand), wire.dumps_error(error))


def _stored(part: Buffer) -> bytes | Segment:
    """A published part: kept once, however often it is lent."""
    view = memoryview(part)
    return process_folder().put(view) if len(view) >= _LARGE else bytes(view)


def _lent(part: Buffer) -> bytes | pickle.PickleBuffer:
    return pickle.PickleBuffer(part) if len(part) >= _LARGE else bytes(part)


def _bytes_of(part: Any) -> Buffer:
    return part if isinstance(part, (bytes, bytearray)) else memoryview(part)


def _do(
    published: list[bytes | Segment] | None, parts: list[Any], worker: str
) -> list[bytes | pickle.PickleBuffer]:
    """In the process beside the rank."""
    lent = None if published is None else [_loaned(part) for part in published]
    return [_lent(part) for part in run_errand(lent, list(map(_loaned, parts)), worker=worker)]


def _loaned(part: Any) -> Buffer:
    found: Buffer = attach(part) if isinstance(part, Segment) else part
    return found
