"""joblib with one backend or another: contenders of the case about scikit-learn."""

from __future__ import annotations

import contextlib
import importlib.util
from importlib import import_module
from typing import ClassVar

from benchmarks.contenders import CONTENDERS, Joblib

__all__ = ["BACKENDS", "Backend"]


class Backend(Joblib):
    """All calls of joblib within ``with`` are on this backend; its workers start with the first."""

    backend: ClassVar[str]

    @classmethod
    def installed(cls) -> bool:
        return super().installed() and importlib.util.find_spec("sklearn") is not None

    def start(self) -> None:
        self.stack = contextlib.ExitStack()
        config = self.library.parallel_config(self.backend, n_jobs=self.workers)
        self.stack.enter_context(config)
        self.pool = self.library.Parallel()


class OnLoky(Backend):
    name = "joblib on loky"
    backend = "loky"

    def start(self) -> None:
        super().start()
        self.stack.callback(self._end_workers)


class OnFanfold(Backend):
    name = "joblib on fanfold"
    backend = "fanfold"

    def start(self) -> None:
        import_module("fanfold").register_joblib()
        super().start()


BACKENDS: tuple[type[Backend], ...] = (OnFanfold, OnLoky)
CONTENDERS.update({kind.name: kind for kind in BACKENDS})
