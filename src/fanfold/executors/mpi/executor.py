"""MPI ranks, on the nodes of an allocation or on one machine: started once, by a launcher.

Rank 0 is the bridge: it takes what the driver sends to the other ranks, and their answers back.
The driver talks to it over one connection, on the loopback or, in an allocation, over the network;
both sides prove that they know the secret of the crew before anything is loaded.

Each of the other ranks is a worker, and has its tasks run by a process beside it. A task that kills
its process is a `WorkerDied`, and no rank has died. When a rank dies all the same, MPI ends all of
them; a new crew is started, and what was lost with the old one is sent again.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import pickle
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from fanfold.errors import EngineLost, FanfoldError
from fanfold.executors.base import worker_count
from fanfold.executors.mpi import wire
from fanfold.executors.mpi.crew import Crew
from fanfold.executors.mpi.launchers import default_ranks
from fanfold.executors.mpi.start import start_crew
from fanfold.executors.remote.errand import Buffer, Parcel
from fanfold.executors.remote.executor import RemoteExecutor
from fanfold.executors.remote.nearby import Nearby, Stored
from fanfold.executors.remote.site import Loss, Site
from fanfold.resources import cores
from fanfold.transport.segments import Segment, release

__all__ = ["MPIExecutor"]

_LEAVING = 10.0  # seconds for ranks to end in good order


class MPIExecutor(RemoteExecutor):
    """An executor whose workers are MPI ranks. Needs ``pip install "fanfold[mpi]"``.

    ``max_workers`` is by default the number of tasks of the Slurm or PBS job that this program runs
    in, outside of one the number of cores it may use. One rank more is started, as the bridge.
    ``initializer(*initargs)`` runs once in each worker, before its first task.

    The launcher is found by trying, once: ``srun`` in a Slurm allocation, ``mpiexec`` beside the
    interpreter, ``mpiexec`` on PATH; ``FANFOLD_MPIEXEC`` names another.

    A task is an ordinary call, and no rank of an MPI program: for such programs see `fanfold.spmd`.

    Raises `UsageError` where mpi4py is not installed, and `StartupFailed`, with what each launcher
    said, where none works.

    >>> with MPIExecutor(2) as pool:
    ...     list(pool.map(abs, [-1, -2, -3]))
    [1, 2, 3]
    """

    name = "mpi"

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        workers = worker_count(max_workers, default_ranks() or int(cores()), "max_workers")
        super().__init__(_RankSite(workers), initializer, initargs)


_ALL = Loss("every rank")


class _Lost(Exception):  # noqa: N818 - an event, told to the base
    """What an errand was lost with."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss)
        self.loss = loss


class _RankSite(Site):
    """Errands for the ranks of a crew. One thread writes to the bridge, one reads from it."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._published: dict[int, Parcel] = {}
        self._trips: dict[int, concurrent.futures.Future[Parcel]] = {}
        self._rank_of: dict[int, int] = {}  # errands that a rank has, unwanted ones included
        self._nearby = Nearby()
        self._segments: dict[int, list[Segment]] = {}  # by errand
        self._broken: FanfoldError | None = None
        self._closing = False
        crew = self._start()
        self.name = f"the MPI ranks of {crew.launcher.name}"
        self._crew: Crew | None = crew
        self._held: list[Parcel] = []  # while there is no crew
        self._outbox: queue.SimpleQueue[tuple[Crew, Parcel] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="fanfold-mpi", daemon=True)
        self._reader = threading.Thread(target=self._read, args=(crew,), daemon=True)
        self._writer.start()
        self._reader.start()

    def _start(self) -> Crew:
        crew = start_crew(self._workers + 1, connect="first", eager=True)
        crew.begin({"kind": "bridge"})
        return crew

    @property
    def workers(self) -> int:
        return self._workers

    @property
    def _near(self) -> bool:
        return self._crew is not None and self._crew.near

    def copy(self, view: memoryview) -> Buffer:
        return self._nearby.copy(view) if self._near else super().copy(view)

    def publish(self, parcel: Parcel) -> int:
        with self._lock:
            number = next(self._numbers)
            self._published[number] = parcel
            self._put((0, "publish", number), parcel)
        return number

    def retract(self, handle: int) -> None:
        with self._lock:
            del self._published[handle]
            self._put((0, "retract", handle))

    def post(self, handle: int | None, parcel: Parcel) -> concurrent.futures.Future[Parcel]:
        future: concurrent.futures.Future[Parcel] = concurrent.futures.Future()
        with self._lock:
            if self._broken is not None:
                raise self._broken
            errand = next(self._numbers)
            load = Counter(self._rank_of.values())
            rank = min(range(1, self._workers + 1), key=load.__getitem__)
            self._trips[errand] = future
            self._rank_of[errand] = rank
            stored = self._nearby.store(parcel) if self._near else Stored({}, parcel, [])
            self._segments[errand] = stored.made
            self._put((rank, "run", errand, handle, stored.near), stored.parcel)
        return future

    def cancel(self, future: concurrent.futures.Future[Parcel]) -> None:
        with self._lock:
            for errand, known in self._trips.items():
                if known is future:
                    del self._trips[errand]
                    self._put((self._rank_of[errand], "cancel", errand))
                    return

    def lost(self, error: BaseException) -> Loss | None:
        return error.loss if isinstance(error, _Lost) else None

    def check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def close(self) -> None:
        with self._lock:
            self._closing = True
            crew = self._crew
            self._put((0, "exit"))
        self._outbox.put(None)
        self._writer.join()
        if crew is not None:
            crew.settle(_LEAVING)
            crew.end()
        self._reader.join()
        for segments in self._segments.values():
            _release(segments)

    def _put(self, header: tuple[Any, ...], parcel: Parcel | None = None) -> None:
        """Have something written to the bridge, now or when there is a crew; under the lock."""
        message = [pickle.dumps(header), *(parcel or ())]
        if self._crew is None:
            self._held.append(message)
        else:
            self._outbox.put((self._crew, message))

    # The threads

    def _write(self) -> None:
        while (item := self._outbox.get()) is not None:
            crew, message = item
            with contextlib.suppress(OSError):  # who reads sees the end, too
                wire.send(crew.connections[0], *message)

    def _read(self, crew: Crew) -> None:
        while True:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    header, *parcel = wire.receive(crew.connections[0])
                    rank, kind, errand = pickle.loads(header)
                    self._take(rank, kind, errand, parcel)
            if not self._lose(crew):
                return
            try:
                crew = self._start()
            except FanfoldError as error:
                self._break(error)
                return
            self._resume(crew)

    def _take(self, rank: int, kind: str, errand: int, parcel: Parcel) -> None:
        with self._lock:
            self._rank_of.pop(errand, None)
            _release(self._segments.pop(errand, ()))
            future = self._trips.pop(errand, None)
        if future is None:
            return
        if kind == "done":
            future.set_result(parcel)
            return
        error, _ = wire.loads(parcel)
        if kind == "died":
            error = _Lost(Loss(f"rank {rank}", error.exitcode, error.pid))
        future.set_exception(error)

    def _lose(self, crew: Crew) -> bool:
        """The crew has ended: tell whoever waits; False when that was as it should be."""
        with self._lock:
            if self._closing:
                return False
            self._crew = None
            self._held = [
                [pickle.dumps((0, "publish", number)), *parcel]
                for number, parcel in self._published.items()
            ]
            trips, self._trips = self._trips, {}
            self._rank_of.clear()
            for segments in self._segments.values():
                _release(segments)
            self._segments.clear()
        crew.end()
        for future in trips.values():
            future.set_exception(_Lost(_ALL))
        return True

    def _resume(self, crew: Crew) -> None:
        with self._lock:
            self._crew = crew
            for message in self._held:
                self._outbox.put((crew, message))
            self._held.clear()

    def _break(self, error: FanfoldError) -> None:
        """There will be no other crew."""
        self._broken = EngineLost(f"the MPI ranks have ended, and no new ones start: {error}")
        with self._lock:
            trips, self._trips = self._trips, {}
        for future in trips.values():
            future.set_exception(self._broken)


def _release(segments: Iterable[Segment]) -> None:
    for segment in segments:
        release(segment)
