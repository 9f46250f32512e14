"""Who takes part. Every contender is one small class with the same few verbs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

from benchmarks import tasks


class NotOfferedError(Exception):
    """The contender has nothing that answers to this verb."""


class Contender(ABC):
    """A pool under test. ``with`` starts and closes it; its library is imported before."""

    name: ClassVar[str]
    module: ClassVar[str]

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.library = import_module(self.module)

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.module) is not None

    @abstractmethod
    def start(self) -> None:
        """Make the pool."""

    @abstractmethod
    def close(self) -> None:
        """End the pool; none of its processes is left."""

    def submit_many(self, func: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Submit every item for itself, then gather all results."""
        raise NotOfferedError(f"{self.name} has no submit")

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        """Submit one item and wait for its result."""
        raise NotOfferedError(f"{self.name} has no submit")

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        """All results in order; ``chunk`` is the contender's own chunk size, None its default."""
        raise NotOfferedError(f"{self.name} has no map")

    def warm(self) -> None:
        """Have every worker started and used, whatever the contender puts off."""
        self.map(tasks.hold, [0.05] * 4 * self.workers, chunk=1)
        self.map(tasks.same, range(100))

    def __enter__(self) -> Contender:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FuturesContender(Contender):
    """What all executors of the `concurrent.futures` kind do alike."""

    pool: Any

    def submit_many(self, func: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        futures = [self.pool.submit(func, item) for item in items]
        return [future.result() for future in futures]

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.submit(func, item).result()

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        return list(self.pool.map(func, items, chunksize=chunk or 1))

    def close(self) -> None:
        self.pool.shutdown()


class Fanfold(FuturesContender):
    name = "fanfold"
    module = "fanfold"

    def start(self) -> None:
        self.pool = self.library.ProcessExecutor(self.workers)

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        found: list[Any] = self.library.map(func, items, on=self.pool, chunk=chunk, progress=False)
        return found


class FanfoldCosts(Fanfold):
    """It is told what each item costs: here its items are the lengths of its tasks."""

    name = "fanfold longest first"

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        found: list[Any] = self.library.map(
            func, items, on=self.pool, chunk=chunk, progress=False, cost=list(items)
        )
        return found


class MultiprocessingPool(Contender):
    name = "multiprocessing.Pool"
    module = "multiprocessing"

    def start(self) -> None:
        self.pool = self.library.Pool(self.workers)

    def submit_many(self, func: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        pending = [self.pool.apply_async(func, (item,)) for item in items]
        return [result.get() for result in pending]

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.apply(func, (item,))

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        found: list[Any] = self.pool.map(func, items, chunksize=chunk)
        return found

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class ProcessPoolExecutor(FuturesContender):
    name = "ProcessPoolExecutor"
    module = "concurrent.futures"

    def start(self) -> None:
        context = import_module("multiprocessing").get_context("forkserver")
        self.pool = self.library.ProcessPoolExecutor(self.workers, mp_context=context)


class Loky(FuturesContender):
    name = "loky"
    module = "loky"

    def start(self) -> None:
        self.pool = self.library.get_reusable_executor(self.workers)


class Joblib(Contender):
    """Its `Parallel` is a map; one call of it with one task is its round trip."""

    name = "joblib"
    module = "joblib"

    def start(self) -> None:
        self.stack = contextlib.ExitStack()
        self.stack.callback(self._end_workers)
        self.pool = self.stack.enter_context(self.library.Parallel(self.workers))

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        return self.pool([self.library.delayed(func)(item)])[0]

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        self.pool.batch_size = chunk or "auto"
        delayed = self.library.delayed(func)
        found: list[Any] = self.pool(delayed(item) for item in items)
        return found

    def close(self) -> None:
        self.stack.close()

    def _end_workers(self) -> None:
        """joblib keeps its loky workers for the next caller; here there is none."""
        import_module("joblib.externals.loky").get_reusable_executor().shutdown()


class Mpire(Contender):
    name = "mpire"
    module = "mpire"

    def start(self) -> None:
        self.pool = self.library.WorkerPool(self.workers, keep_alive=True)

    def submit_many(self, func: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        pending = [self.pool.apply_async(func, (item,)) for item in items]
        return [result.get() for result in pending]

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.apply(func, (item,))

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        found: list[Any] = self.pool.map(
            func, items, chunk_size=chunk, concatenate_numpy_output=False
        )
        return found

    def close(self) -> None:
        self.pool.stop_and_join()


class Dask(Contender):
    """A large function is scattered first, as its manual asks."""

    name = "dask.distributed"
    module = "distributed"

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="dask-", ignore_cleanup_errors=True)
        import_module("dask").config.set({"temporary-directory": self.folder.name})
        self.cluster = self.library.LocalCluster(
            n_workers=self.workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
        self.pool = self.library.Client(self.cluster)

    def submit_many(self, func: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self.pool.gather([self.pool.submit(func, item, pure=False) for item in items]))

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        return self.pool.submit(func, item, pure=False).result()

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        if isinstance(func, partial):
            there = self.pool.scatter(func, broadcast=True)
            futures = self.pool.map(tasks.call, [there] * len(items), items, pure=False)
        else:
            futures = self.pool.map(func, items, pure=False)
        return list(self.pool.gather(futures))

    def close(self) -> None:
        self.pool.close()
        self.cluster.close()
        self.folder.cleanup()


class Ray(Contender):
    """A large function is put into its object store first, as its manual asks."""

    name = "ray"
    module = "ray"

    def __init__(self, workers: int) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen on loopback only
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault(
            "RAY_AUTH_TOKEN", secrets.token_hex(32)
        )  # else it is left in the home
        super().__init__(workers)

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        self.library.init(
            num_cpus=self.workers,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=self.folder.name,
        )
        self.call = self.library.remote(tasks.call)

    def submit_many(self, func: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        remote = self.library.remote(func)
        return list(self.library.get([remote.remote(item) for item in items]))

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        return self.library.get(self.call.remote(func, item))

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        if not isinstance(func, partial):
            return self.submit_many(func, items)
        there = self.library.put(func)
        return list(self.library.get([self.call.remote(there, item) for item in items]))

    def close(self) -> None:
        self.library.shutdown()
        self.folder.cleanup()


class Threads(FuturesContender):
    """Results stay where they are: the limit for large ones."""

    name = "threads"
    module = "concurrent.futures"

    def start(self) -> None:
        self.pool = self.library.ThreadPoolExecutor(self.workers)


class Socketpair(Contender):
    """A raw ping-pong of eight bytes with a forked child: the limit for a round trip."""

    name = "socketpair"
    module = "socket"

    def start(self) -> None:
        self.here, there = socket.socketpair()
        self.child = os.fork()
        if self.child == 0:
            self.here.close()
            while ball := there.recv(8):
                there.sendall(ball)
            os._exit(0)
        there.close()

    def warm(self) -> None:
        for item in range(100):
            self.round_trip(tasks.same, item)

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        self.here.sendall(item.to_bytes(8, "big"))
        return int.from_bytes(self.here.recv(8), "big")

    def close(self) -> None:
        self.here.close()
        os.waitpid(self.child, 0)


class BareProcesses(Contender):
    """One forked process a worker, the items dealt out beforehand: the limit of the machine."""

    name = "bare processes"
    module = "multiprocessing"

    def start(self) -> None:
        self.context = self.library.get_context("fork")

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        results: list[Any] = [None] * len(items)
        receivers = [
            self._deal(func, items[first :: self.workers]) for first in range(self.workers)
        ]
        for first, receiver in enumerate(receivers):
            results[first :: self.workers] = receiver.recv()
        return results

    def _deal(self, func: Callable[[Any], Any], items: Sequence[Any]) -> Any:
        receiver, sender = self.context.Pipe(duplex=False)
        work = self.context.Process(target=_run_all, args=(func, items, sender))
        work.start()
        sender.close()
        return receiver

    def close(self) -> None:
        for process in self.library.active_children():
            process.join()


def _run_all(func: Callable[[Any], Any], items: Sequence[Any], sender: Any) -> None:
    sender.send([func(item) for item in items])


PEERS: tuple[type[Contender], ...] = (
    MultiprocessingPool,
    ProcessPoolExecutor,
    Loky,
    Joblib,
    Mpire,
    Dask,
    Ray,
)
LIMITS: tuple[type[Contender], ...] = (Threads, Socketpair, BareProcesses)
EVERYONE: tuple[type[Contender], ...] = (Fanfold, FanfoldCosts, *PEERS, *LIMITS)
CONTENDERS: dict[str, type[Contender]] = {kind.name: kind for kind in EVERYONE}
