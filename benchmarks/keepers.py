"""Those who keep what they have done: contenders of the cases about durable runs."""

from __future__ import annotations

import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.contenders import CONTENDERS, Contender

__all__ = ["KEEPERS", "Keeper"]


class Keeper(Contender):
    """``keep`` runs a function over inputs and leaves in ``folder`` what the next time needs.

    ``share`` is the part of the tasks that it is given: one whose every task is a job of its own
    would take minutes for what takes the others a second; its rate is the same.
    """

    share: ClassVar[float] = 1.0

    def start(self) -> None:
        """Load what is loaded late; nothing else is started before there is work."""

    def close(self) -> None:
        """Nothing is left."""

    @abstractmethod
    def keep(
        self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path
    ) -> Callable[[], list[Any]]:
        """Do and keep everything; what comes back gives the results."""


class FanfoldRun(Keeper):
    name = "fanfold run"
    module = "fanfold"

    def start(self) -> None:
        _ = self.library.run, self.library.ProcessExecutor

    def keep(
        self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path
    ) -> Callable[[], list[Any]]:
        run = self.library.run(
            func, items, name="r", folder=folder, workers=self.workers, progress=False
        )
        run.wait()
        results: Callable[[], list[Any]] = run.results
        return results


class JoblibMemory(Keeper):
    """`joblib.Memory` around the function, in `joblib.Parallel`: a folder for every call."""

    name = "joblib.Memory"
    module = "joblib"

    def keep(
        self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path
    ) -> Callable[[], list[Any]]:
        kept = self.library.Memory(folder, verbose=0).cache(func)
        delayed = self.library.delayed
        parallel = self.library.Parallel(n_jobs=self.workers)
        found: list[Any] = parallel(delayed(kept)(item) for item in items)
        return lambda: found


class Submitit(Keeper):
    """submitit's local executor: every task is a job, with a process, a pickle and logs."""

    name = "submitit (local)"
    module = "submitit"
    share = 0.02

    def keep(
        self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path
    ) -> Callable[[], list[Any]]:
        executor = self.library.LocalExecutor(folder=folder)
        executor.update_parameters(timeout_min=5)
        results: list[Any] = []
        for first in range(0, len(items), self.workers):  # it has no limit of its own
            jobs = [executor.submit(func, item) for item in items[first : first + self.workers]]
            results += [job.result() for job in jobs]
        return lambda: results


class GnuParallel(Keeper):
    """GNU parallel with a job log; a task is a process, here the lightest: ``echo``."""

    name = "GNU parallel --joblog"
    module = "subprocess"

    @classmethod
    def installed(cls) -> bool:
        return shutil.which("parallel") is not None

    def keep(
        self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path
    ) -> Callable[[], list[Any]]:
        folder.mkdir(exist_ok=True)
        command = ["parallel", "--will-cite", "-k", f"-j{self.workers}", "--joblog", "log"]
        command += ["--resume", "--results", "out", "echo", "{}"]
        subprocess.run(
            command,
            input="\n".join(map(str, items)),
            stdout=subprocess.DEVNULL,
            text=True,
            check=True,
            cwd=folder,
        )
        kept = [folder / "out" / "1" / str(item) / "stdout" for item in items]
        return lambda: [int(path.read_text()) for path in kept]


class FanfoldMap(Keeper):
    """A plain map, which keeps nothing: what a run is measured against."""

    name = "fanfold map"
    module = "fanfold"

    def start(self) -> None:
        _ = self.library.map, self.library.ProcessExecutor

    def keep(
        self, func: Callable[[Any], Any], items: Sequence[Any], folder: Path
    ) -> Callable[[], list[Any]]:
        found: list[Any] = self.library.map(
            func, items, on="processes", workers=self.workers, progress=False
        )
        return lambda: found


KEEPERS: tuple[type[Keeper], ...] = (
    FanfoldRun,
    JoblibMemory,
    Submitit,
    GnuParallel,
    FanfoldMap,
)
CONTENDERS.update({kind.name: kind for kind in KEEPERS})
