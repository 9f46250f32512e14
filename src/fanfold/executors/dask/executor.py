"""Dask as an executor: `DaskExecutor`, on workers of this machine or of any Dask cluster.

Errands go to Dask as its tasks, and Dask chooses the worker. What Dask does when a worker dies, to
give up the tasks that were there after some deaths, punishes neighbours: here each is sent again,
and only who ended the worker fails (see `fanfold.executors.remote.traffic`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import socket
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fanfold.errors import EngineLost, UsageError
from fanfold.executors.base import StartupFailed, worker_count
from fanfold.executors.dask.deaths import Jobs, Nannies, bring_back, look_away, watch_workers
from fanfold.executors.remote.errand import Parcel, versions
from fanfold.executors.remote.executor import RemoteExecutor
from fanfold.executors.remote.site import Loss, Site
from fanfold.extras import need
from fanfold.resources import cores

if TYPE_CHECKING:
    from fanfold.executors.dask.local import LocalDask

__all__ = ["DaskExecutor"]

_CONNECT = 5.0  # seconds for a scheduler to answer at all
_ANSWER = 5.0  # seconds for a question to a scheduler that answered before
_PATIENCE = 30.0  # the same, for the first
_SILENCE = 3.0  # seconds without a connection until the scheduler counts as gone
_EMPTY = 15.0  # seconds that a cluster may be without any worker, none being on its way
_EASE = 1.0  # seconds until a new worker is used: its nanny gives it up if it dies before
_ADAPTIVE = 64  # errands at once at a cluster that grows without a limit
_LARGE = 1 << 20  # bytes


Future = concurrent.futures.Future[Parcel]


class DaskExecutor(RemoteExecutor):
    """Runs tasks on Dask workers.

    ``client`` says which: a `distributed.Client`, a cluster (`LocalCluster`, `SLURMCluster`, what
    `fanfold.dask_cluster` returns), or the address of a scheduler, ``"tcp://10.0.0.1:8786"``; it is
    left as it is. Without it ``max_workers`` worker processes of one thread each are started on
    this machine (default: `fanfold.cores`), and ended with the executor. ``initializer`` runs once
    in each thread of a worker.

    ``client`` is the Dask client afterwards, so that ``dask.array`` and the rest run on the same
    workers: ``array.sum().compute(scheduler=executor.client)``.

    Raises `UsageError` where distributed is not installed, `EngineLost` when no scheduler answers,
    `StartupFailed` when its workers have another version of Python or fanfold.

    >>> with DaskExecutor(2) as pool:
    ...     list(pool.map(abs, [-1, -2])), pool.client.submit(divmod, 7, 2).result()
    ([1, 2], (3, 1))
    """

    name = "dask"

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        client: Any = None,
    ) -> None:
        workers = worker_count(max_workers, int(cores()), "max_workers")
        need("distributed", "dask", 'on="dask"')
        site = _local_site(workers) if client is None else _joined_site(client, max_workers)
        self.client = site.client
        super().__init__(site, initializer, initargs)


def _is_dask(on: object) -> bool:
    """Is this a client, a cluster, or the address of a scheduler, of Dask?

    >>> _is_dask("tcp://10.0.0.1:8786"), _is_dask("dask"), _is_dask(3)
    (True, False, False)
    """
    if isinstance(on, str):
        return on.startswith(("tcp://", "tls://", "ws://", "wss://", "ucx://", "inproc://"))
    return any(
        kind.__module__.partition(".")[0] == "distributed"
        and kind.__name__ in ("Client", "Cluster")
        for kind in type(on).__mro__
    )


def _local_site(workers: int) -> _DaskSite:
    from fanfold.executors.dask.local import LocalDask

    local = LocalDask(workers)
    return _DaskSite(local.client, workers, local)


def _joined_site(target: Any, limit: int | None) -> _DaskSite:
    from distributed import Client

    if not _is_dask(target):
        raise UsageError(
            "client= takes a distributed.Client, a Dask cluster or the address of a scheduler such "
            f'as "tcp://10.0.0.1:8786", not {target!r}'
        )
    owned = not isinstance(target, Client)
    client = target
    if owned:
        where = target if isinstance(target, str) else f"the {type(target).__name__}"
        try:
            if isinstance(target, str):
                _knock(target)
            new: Any = Client
            client = new(target, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EngineLost(
                f"no Dask scheduler answers at {where}: {error}. Start one with 'dask scheduler', "
                "which prints its address, or give none, and workers start here"
            ) from error
    site = _DaskSite(client, limit, owned=owned)
    try:
        site.ask_versions()
    except BaseException:
        site.close()
        raise
    return site


def _knock(address: str) -> None:
    """Raises `OSError` at once where nobody listens: a client would try for long, and leave a
    thread behind."""
    place = urlsplit(address)
    if place.scheme in ("tcp", "tls") and place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=_CONNECT).close()


class _Gone(Exception):  # noqa: N818 - never shown
    """A worker has gone: its name, where nothing else is to blame, its address, and whether it was
    sent away."""


class _Published:
    """A large function at Dask, and how to put it there again when those who had it are gone."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        self.future: Any = None


class _DaskSite(Site):
    takes = True

    def __init__(
        self, client: Any, limit: int | None, local: LocalDask | None = None, *, owned: bool = False
    ) -> None:
        if client.asynchronous:
            raise UsageError(
                "on= takes a Dask client that waits: Client(...), without asynchronous=True"
            )
        if client.status != "running":
            raise EngineLost(f"this Dask client is {client.status}: make a new one")
        self.client = client
        self.name = f"the Dask cluster at {client.scheduler.address}"
        self._local = local
        self._owned = owned
        self._limit = limit
        self._loop = client.loop.asyncio_loop
        # Its scheduler is here, so that the workers can be reached from here, too.
        self._near = client.cluster is not None or None
        self._token = uuid.uuid4().hex
        self._serial = count()
        self._errands: dict[Future, Any] = {}
        self._learning: set[asyncio.Task[None]] = set()
        self._since: dict[str, float] = {}  # when each worker came
        self._closed = False
        self._pinned: dict[str, str | None] = {}  # the worker of each errand
        self._gone: dict[str, asyncio.Future[_Gone]] = {}  # set when the worker of an errand has
        self._slots: dict[str, int] = {}  # the threads of each worker that we use
        self._given: Counter[str] = Counter()  # the errands that each of them has
        self._silent_since: float | None = None
        self._empty_since: float | None = None
        self._nannies = Nannies(client)
        self._jobs = Jobs()
        watch_workers(client, self)
        try:
            self._ask(self._learn(), _PATIENCE)
        except TimeoutError as error:
            raise EngineLost(
                f"{self.name} does not answer in {_PATIENCE:g} s: see whether its scheduler is "
                "overloaded, or stopped"
            ) from error

    def _ask(self, question: Coroutine[Any, Any, Any], seconds: float = _ANSWER) -> Any:
        """Its answer; raises `TimeoutError`, or what the connection raises."""
        future = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return future.result(seconds)
        finally:
            future.cancel()

    async def _learn(self) -> None:
        """Find out which workers there are; of them those that make up the limit, and are not as
        new as those that have just come."""
        workers: dict[str, int] = await self.client.scheduler.ncores()
        await self._nannies.learn(workers)
        now = monotonic()
        came = now if self._since else -math.inf
        for worker in workers:
            self._since.setdefault(worker, came)
        for key, pinned in list(self._pinned.items()):
            if pinned is not None and pinned not in workers:
                self._lose(key, _Gone("", pinned, True))  # it left before the errand came
        slots: dict[str, int] = {}
        for worker, threads in workers.items():
            room = self._limit is None or sum(slots.values()) < self._limit
            if room and now - self._since[worker] >= _EASE:
                slots[worker] = threads
        self._slots = slots

    def ask_versions(self) -> None:
        """Raises `StartupFailed` when the scheduler or a worker does not fit."""
        here = versions()
        for where, there in self._versions().items():
            if isinstance(there, ImportError):
                raise StartupFailed(
                    f"the {where} of {self.name} cannot import fanfold ({there}): "
                    f"install version {here[1]} there"
                )
            if isinstance(there, tuple) and there != here:  # else it has just gone
                raise StartupFailed(
                    f"the {where} of {self.name} has Python {there[0]} with fanfold {there[1]}, "
                    f"and here is Python {here[0]} with fanfold {here[1]}: start it from the same "
                    "environment, or one with the same versions"
                )

    def _versions(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            found["scheduler"] = self.client.run_on_scheduler(versions)
        except ImportError as error:
            found["scheduler"] = error
        answers = self.client.run(versions, on_error="return") if self._slots else {}
        return {**found, **{f"worker {address}": there for address, there in answers.items()}}

    @property
    def workers(self) -> int:
        adaptive = getattr(self.client.cluster, "_adaptive", None)
        workers = sum(self._slots.values())
        if adaptive is not None:  # it grows when there is work
            workers = max(workers, int(min(adaptive.maximum, _ADAPTIVE)))
        return workers if self._limit is None else min(workers, self._limit)

    def publish(self, parcel: Parcel) -> object:
        return _Published([bytes(buffer) for buffer in parcel])

    def retract(self, handle: _Published) -> None:
        if handle.future is not None:
            handle.future.release()
            handle.future = None

    def post(self, handle: _Published | None, parcel: Parcel) -> Future:
        from fanfold.executors.dask.worker import run

        key = f"fanfold-{self._token}-{next(self._serial)}"
        worker = self._freest()
        arguments = self._available(handle, worker), self._crate(parcel, worker)
        errand = self.client.submit(run, *arguments, key=key, pure=False, workers=worker)
        self._gone[key] = asyncio.Future(loop=self._loop)
        future = asyncio.run_coroutine_threadsafe(self._fetch(key, errand), self._loop)
        self._errands[future] = errand
        self._pinned[key] = worker
        self._given[worker or ""] += 1
        future.add_done_callback(lambda _: self._returned(future, key, worker))
        return future

    def _freest(self) -> str | None:
        """The worker with the fewest errands; Dask would put a short one behind a long one."""
        slots = self._slots
        return min(slots, key=lambda worker: self._given[worker] / slots[worker], default=None)

    def _returned(self, future: Future, key: str, worker: str | None) -> None:
        self._errands.pop(future, None)
        self._pinned.pop(key, None)
        self._given[worker or ""] -= 1

    def _crate(self, parcel: Parcel, worker: str | None) -> Any:
        """A parcel as an argument; a large one travels beside the task, which Dask would copy."""
        from fanfold.executors.dask.worker import Crate

        crate = Crate(parcel)
        if sys.getsizeof(crate) < _LARGE or worker is None:
            return Crate([bytes(buffer) for buffer in parcel])  # Dask sends it later
        return self._scatter(crate, worker)

    def _available(self, handle: _Published | None, worker: str | None) -> Any:
        """What was published, as an argument; Dask brings it to each worker once."""
        from fanfold.executors.dask.worker import Crate

        if handle is None:
            return None
        if handle.future is None or handle.future.status in ("lost", "cancelled", "error"):
            if worker is None:
                return Crate(handle.parcel)
            handle.future = self._scatter(Crate(handle.parcel), worker)
        return handle.future

    def _scatter(self, crate: Any, worker: str) -> Any:
        return self.client.scatter(
            crate, workers=[worker], hash=False, direct=self._near, timeout=_ANSWER
        )

    async def _fetch(self, key: str, errand: Any) -> Parcel:
        """The answer. Raises `_Gone` when its worker is, before Dask tries another one."""
        gone = self._gone[key]
        answer = asyncio.ensure_future(_gather(self.client, errand, self._near))
        try:
            ends: list[asyncio.Future[Any]] = [answer, gone]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                answer.add_done_callback(_ignore)
                await self.client.cancel([errand], asynchronous=True, force=True)
                raise gone.result()
            return await answer
        finally:
            del self._gone[key]
            errand.release()

    def worker_came(self) -> None:
        """Called in the thread of Dask's loop, as is the next."""
        self._learn_soon()
        self._loop.call_later(1.1 * _EASE, self._learn_soon)

    def _learn_soon(self) -> None:
        if not self._closed:
            task = asyncio.ensure_future(self._learn())
            self._learning.add(task)
            task.add_done_callback(self._learning.discard)
            task.add_done_callback(_ignore)

    def worker_left(self, worker: str, keys: Collection[str], expected: bool) -> None:
        """A worker has gone with these tasks, by intention or not.

        One that we gave up for lost was tried again by Dask: it may be what ended this worker, too,
        so that nobody else may be blamed.
        """
        self._slots = {one: threads for one, threads in self._slots.items() if one != worker}
        if self._local is not None and not expected:
            return  # Dask gives up at once, and tells the process
        ours = [key for key in keys if str(key).startswith(f"fanfold-{self._token}-")]
        waiting = [key for key in ours if key in self._gone and not self._gone[key].done()]
        blamed = worker if len(waiting) == len(ours) else ""
        for key in waiting:
            self._lose(key, _Gone(blamed, worker, expected))
        self._learn_soon()

    def _lose(self, key: str, gone: _Gone) -> None:
        if key in self._gone and not self._gone[key].done():
            self._gone[key].set_result(gone)

    def cancel(self, future: Future) -> None:
        errand = self._errands.get(future)
        if errand is not None:
            cancelled = self.client.cancel([errand], asynchronous=True, force=True)
            asyncio.run_coroutine_threadsafe(_wait_for(cancelled), self._loop)

    def lost(self, error: BaseException) -> Loss | None:
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            worker = error.last_worker
            if self._local is not None:
                return Loss(worker.address, self._local.exitcode(worker.pid), worker.pid)
            error = _Gone(worker.address, worker.address, False)
        if isinstance(error, _Gone):
            name, address, expected = error.args
            if expected:
                return Loss(blameless=True)
            pid, code = self._ending(address)
            return Loss(name, code, pid)
        return Loss() if isinstance(error, OSError) else None

    def _ending(self, worker: str) -> tuple[int | None, int | None]:
        """The process id and exit code of a worker, where its nanny tells."""
        try:
            return self._ask(self._nannies.ending(worker))  # type: ignore[no-any-return]
        except (OSError, TimeoutError):
            return None, None

    def check(self) -> None:
        if self._local is not None:
            self._local.revive()
        if self.client.status != "running":
            self._check_silence()
            return
        self._silent_since = None
        self._loop.call_soon_threadsafe(self._learn_soon)
        if self._local is None:
            self._check_workers()

    def _check_silence(self) -> None:
        now = monotonic()
        self._silent_since = self._silent_since or now
        if self.client.status == "closed" or now - self._silent_since > _SILENCE:
            raise EngineLost(
                f"{self.name} does not answer any more: its scheduler has ended, or the network "
                "between here and there is broken"
            )

    def _check_workers(self) -> None:
        now = monotonic()
        cluster = self.client.cluster
        if self._slots or self.workers or bring_back(cluster) or self._jobs.are_coming(cluster):
            self._empty_since = None
            return
        self._empty_since = self._empty_since or now
        jobs = getattr(cluster, "workers", {}).values()
        if refusals := [job.refusal for job in jobs if getattr(job, "refusal", "")]:
            raise EngineLost(f"{self.name} has no worker, for its jobs were refused: {refusals[0]}")
        if now - self._empty_since > _EMPTY:
            raise EngineLost(
                f"{self.name} has had no worker for {_EMPTY:g} s: start some, with "
                f"`dask worker {self.client.scheduler.address}` or cluster.scale(2)"
            )

    def close(self) -> None:
        self._closed = True
        look_away(self.client, self)
        if self._local is not None:
            self._local.close()
        elif self._owned:
            self.client.close()


async def _gather(client: Any, errand: Any, direct: bool | None) -> Parcel:
    crate = await client.gather(errand, direct=direct, asynchronous=True)
    return crate.parcel  # type: ignore[no-any-return]


def _ignore(task: asyncio.Task[Any]) -> None:
    """Nobody wants to know how it ended, and asyncio is not to complain of that."""
    if not task.cancelled():
        task.exception()


async def _wait_for(awaitable: Any) -> None:
    await awaitable
