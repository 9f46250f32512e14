"""Who computes expressions of arrays: contenders of the cases about them."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.contenders import CONTENDERS, Contender

__all__ = ["EVALUATORS", "Evaluator"]


class Evaluator(Contender):
    """``compute`` gives the value of an expression, on ``workers`` threads where it can."""

    def start(self) -> None:
        """Nothing is started before there is work."""

    def close(self) -> None:
        """Nothing is left."""

    @abstractmethod
    def compute(self, text: str, variables: dict[str, Any], out: Any = None) -> Any:
        """The value; with ``out``, it is written there."""


class Evaluate(Evaluator):
    name = "ff.evaluate"
    module = "fanfold"

    def compute(self, text: str, variables: dict[str, Any], out: Any = None) -> Any:
        return self.library.evaluate(text, variables, out=out, workers=self.workers)


class Numexpr(Evaluator):
    name = "numexpr"
    module = "numexpr"

    def start(self) -> None:
        self.library.set_num_threads(self.workers)

    def compute(self, text: str, variables: dict[str, Any], out: Any = None) -> Any:
        options = {} if out is None else {"out": out}
        return self.library.evaluate(text, variables, **options)


class Numpy(Evaluator):
    """NumPy as one writes it: one thread, and temporary arrays."""

    name = "NumPy"
    module = "numpy"

    def compute(self, text: str, variables: dict[str, Any], out: Any = None) -> Any:
        value = eval(text, {"sum": self.library.sum}, variables)
        if out is None:
            return value
        out[...] = value
        return out


class Copy(Evaluator):
    """No expression: an operand is copied, by `numpy.copyto` in each thread. The limit."""

    name = "copyto"
    module = "numpy"

    def start(self) -> None:
        self.helpers = ThreadPoolExecutor(self.workers)

    def compute(self, text: str, variables: dict[str, Any], out: Any = None) -> Any:
        source = next(iter(variables.values()))
        bounds = [len(source) * part // self.workers for part in range(self.workers + 1)]
        parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
        if self.workers == 1:
            self.library.copyto(out, source)
        else:
            list(self.helpers.map(lambda part: self.library.copyto(out[part], source[part]), parts))
        return out

    def close(self) -> None:
        self.helpers.shutdown()


class Dot(Evaluator):
    """Only the products of rows, by `numpy.vecdot` in each thread, which reads every operand once
    and writes next to nothing: the limit of a sum."""

    name = "vecdot"
    module = "numpy"

    def start(self) -> None:
        self.helpers = ThreadPoolExecutor(self.workers)

    def compute(self, text: str, variables: dict[str, Any], out: Any = None) -> Any:
        first, second = variables.values()
        bounds = [len(first) * part // self.workers for part in range(self.workers + 1)]
        parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
        return list(
            self.helpers.map(lambda part: self.library.vecdot(first[part], second[part]), parts)
        )

    def close(self) -> None:
        self.helpers.shutdown()


EVALUATORS: tuple[type[Evaluator], ...] = (Evaluate, Numexpr, Numpy, Copy, Dot)
CONTENDERS.update({kind.name: kind for kind in EVALUATORS})
