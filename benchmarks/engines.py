"""fanfold on the engines of others: contenders beside the same engines bare."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.contenders import CONTENDERS, Contender, Fanfold, FuturesContender

__all__ = ["ENGINES"]


class OnEngine(Fanfold):
    """The executor for an engine, with workers of this machine; ``needs`` is the library of it.
    ``survives``: a task may end its worker, and the program goes on."""

    engine: ClassVar[str]
    needs: ClassVar[str]
    survives: ClassVar[bool] = True

    @classmethod
    def installed(cls) -> bool:
        return super().installed() and importlib.util.find_spec(cls.needs) is not None

    def start(self) -> None:
        self.pool = self.library.executor(self.engine, self.workers)


class FanfoldOnDask(OnEngine):
    name = "fanfold on Dask"
    engine = "dask"
    needs = "distributed"


class FanfoldOnMPI(OnEngine):
    name = "fanfold on MPI"
    engine = "mpi"
    needs = "mpi4py"


class FanfoldOnEngines(OnEngine):
    name = "fanfold on IPython engines"
    engine = "ipyparallel"
    needs = "ipyparallel"


class FanfoldOnInterpreters(OnEngine):
    name = "fanfold on interpreters"
    engine = "interpreters"
    needs = "concurrent.interpreters"
    survives = False

    @classmethod
    def installed(cls) -> bool:
        return sys.version_info >= (3, 14) and super().installed()


class MPIPool(FuturesContender):
    """mpi4py's own pool: its program is started by mpiexec, so that this one begins anew there."""

    name = "mpi4py.futures"
    module = "mpi4py.futures"

    def __init__(self, workers: int) -> None:
        if "PMI_RANK" not in os.environ:
            mpiexec = os.path.join(os.path.dirname(sys.executable), "mpiexec")
            ranks = [mpiexec, "-n", str(workers + 1), sys.executable, "-m", "mpi4py.futures"]
            os.execv(mpiexec, [*ranks, *sys.orig_argv[1:]])
        super().__init__(workers)

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec("mpi4py") is not None

    def start(self) -> None:
        self.pool = self.library.MPIPoolExecutor(self.workers)


class Engines(Contender):
    """A cluster of ipyparallel with engines of this machine."""

    module = "ipyparallel"

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="engines-")
        self.cluster = self.library.Cluster(
            n=self.workers,
            profile_dir=self.folder.name,
            log_level=logging.ERROR,
        )
        without = "--IPEngine.enable_nanny=False"  # nannies outlive their engines
        self.cluster.config.EngineLauncher.engine_args = [without]
        self.client = self.cluster.start_and_connect_sync(activate=False)
        self.view = self.make_view()

    def make_view(self) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()
        self.folder.cleanup()

    def map(
        self, func: Callable[[Any], Any], items: Sequence[Any], chunk: int | None = None
    ) -> list[Any]:
        return list(self.view.map_sync(func, items))


class DirectView(Engines):
    """Each engine gets its share of a map at once; one task goes to the first of them."""

    name = "ipyparallel, direct view"

    def make_view(self) -> Any:
        return self.client[:]

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        return self.client[0].apply_sync(func, item)


class BalancedView(Engines):
    """Each task goes to an engine that is free."""

    name = "ipyparallel, load-balanced view"

    def make_view(self) -> Any:
        return self.client.load_balanced_view()

    def round_trip(self, func: Callable[[Any], Any], item: Any) -> Any:
        return self.view.apply_sync(func, item)


ENGINES: tuple[type[OnEngine], ...] = (
    FanfoldOnMPI, FanfoldOnDask, FanfoldOnEngines, FanfoldOnInterpreters,
)  # fmt: skip
BARE: tuple[type[Contender], ...] = (MPIPool, DirectView, BalancedView)
CONTENDERS.update({kind.name: kind for kind in (*ENGINES, *BARE)})
