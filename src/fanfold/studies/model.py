"""Laws of scaling, fitted to measured times.

With ``n`` workers a piece of work costs ``n`` times as many worker-seconds as seconds pass. What
that costs more than on one worker is told by two numbers, the universal scalability law:

    cost(n) = cost(1) * (1 + serial * (n - 1) + crosstalk * n * (n - 1))

``serial`` is the share of the work that only one worker does at a time, while the others wait, and
``crosstalk`` what each pair of workers costs the other (N. J. Gunther, "Guerrilla Capacity
Planning", Springer 2007, chapter 4). Without crosstalk it is Amdahl's law (G. M. Amdahl, AFIPS
Conference Proceedings 30, 1967). Where the work grows with the workers, Gustafson's law says that
the speed-up is ``n - serial * (n - 1)`` (J. L. Gustafson, Communications of the ACM 31, 1988).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fanfold.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

__all__ = ["Estimate", "Law", "Mode", "fit_laws", "noise_of"]

Mode = Literal["strong", "weak"]

_RESAMPLES = 2000
_NORMAL = 1.959964  # of the normal distribution 95 % lie within so many standard deviations


class Estimate(NamedTuple):
    """A number, and its interval: those of a law hold both true numbers in 95 of 100 studies."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """
        >>> str(Estimate(0.0512, 0.031, 0.0702))
        '0.051 (0.031 to 0.070)'
        """
        if self.high == float("inf"):
            return f"{self.value:.3f} (too few runs for an interval)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Law(NamedTuple):
    """A law with the numbers that fit best. ``seconds`` is the time with one worker, ``misfit``
    the relative error of the times it tells, as a root mean square. ``spread`` is the covariance of
    serial part and crosstalk, None where there are too few measurements to know.

    >>> law = Law("universal", "strong", 60.0, Estimate(0.1, 0, 0), Estimate(0.01, 0, 0), 0.0)
    >>> [round(law.time(n), 1) for n in (1, 2, 4, 8, 16)]
    [60.0, 33.6, 21.3, 17.0, 18.4]
    >>> law.peak
    9.48...
    """

    name: Literal["universal", "Amdahl", "Gustafson"]
    mode: Mode
    seconds: float
    serial: Estimate
    crosstalk: Estimate
    misfit: float
    spread: tuple[tuple[float, ...], ...] | None = None

    def time(self, workers: float) -> float:
        """Seconds with so many workers."""
        return self.seconds * self._cost(workers) / (workers if self.mode == "strong" else 1)

    def speedup(self, workers: float) -> float:
        """How many times as much work is done in a second as with one worker."""
        return workers / self._cost(workers)

    def band(self, workers: float) -> tuple[float, float] | None:
        """Between what the speed-up lies in 95 of 100 studies; None where that is not known.

        >>> law = fit_laws({1: [58, 60, 62], 2: [31, 33, 32], 4: [19, 20, 21]})["Amdahl"]
        >>> [round(speedup, 1) for speedup in (law.band(8)[0], law.speedup(8), law.band(8)[1])]
        [3.9, 4.5, 5.2]
        """
        if self.spread is None:
            return None
        others = workers - 1
        terms = (others, workers * others)[: len(self.spread)]
        variance = sum(
            one * other * self.spread[row][column]
            for row, one in enumerate(terms)
            for column, other in enumerate(terms)
        )
        off = _NORMAL * max(0.0, variance) ** 0.5
        if self.name == "Gustafson":
            return max(0.0, self.speedup(workers) - off), min(workers, self.speedup(workers) + off)
        cost = self._cost(workers)
        return workers / (cost + off), workers / max(1.0, cost - off)

    def _cost(self, workers: float) -> float:
        if self.name == "Gustafson":
            return workers / (workers - self.serial.value * (workers - 1))
        others = workers - 1
        return 1 + self.serial.value * others + self.crosstalk.value * workers * others

    @property
    def peak(self) -> float | None:
        """The number of workers beyond which it gets slower; None where it never does."""
        if self.crosstalk.value <= 0 or self.serial.value >= 1:
            return None
        return float(((1 - self.serial.value) / self.crosstalk.value) ** 0.5)


def fit_laws(
    times: Mapping[int, Sequence[float]], mode: Mode = "strong", seed: int = 0
) -> dict[str, Law]:
    """The laws that can be fitted to repeated times, in seconds, by the number of workers.

    "universal" needs three numbers of workers, "Amdahl" (for work that stays) and "Gustafson" (for
    work that grows with the workers) two. Fitted by least squares of relative errors; intervals
    by resampling these (B. Efron, Annals of Statistics 7, 1979), widened by Student's factor for
    few measurements. Raises `UsageError` for less than two numbers of workers.

    >>> exact = {n: [60 * (1 + 0.05 * (n - 1)) / n] * 3 for n in (1, 2, 4, 8)}
    >>> print(fit_laws(exact)["Amdahl"].serial)
    0.050 (0.050 to 0.050)
    """
    import numpy as np

    if len(times) < 2:
        raise UsageError("a law needs times for two numbers of workers, as workers=[1, 2]")
    workers = np.array([n for n, measured in times.items() for _ in measured], dtype=float)
    seconds = np.array([one for measured in times.values() for one in measured])
    cost = seconds * workers if mode == "strong" else seconds
    others = np.stack([workers - 1, workers * (workers - 1)], axis=1)
    fit = _Fit(mode, seed)
    laws = {}
    if len(times) > 2:
        laws["universal"] = fit.law("universal", cost, others)
    if mode == "strong":
        laws["Amdahl"] = fit.law("Amdahl", cost, others[:, :1])
    else:
        laws["Gustafson"] = fit.law("Gustafson", 1 / cost, -(others[:, :1] / workers[:, None]))
    return laws


class _Fit(NamedTuple):
    mode: Mode
    seed: int

    def law(self, name: Any, measured: Array, terms: Array) -> Law:
        """Fit ``measured = scale * (1 + terms @ shares)`` with shares of 0 and more."""
        import numpy as np

        design = np.column_stack([np.ones(len(measured)), terms])
        found = _least(design, measured)
        told = design @ found
        errors = measured / told - 1
        scale = found[0] if name != "Gustafson" else 1 / found[0]
        shares = found[1:] / found[0]
        drawn = self._drawn(design, measured)
        tail = 2.5 / len(shares)  # so that all of them hold at once (Bonferroni)
        bounds = [(0.0, np.inf)] * len(shares)
        if drawn is not None:
            bounds = [tuple(np.percentile(row, [tail, 100 - tail])) for row in drawn]
        estimates = [
            Estimate(float(value), float(min(value, max(0.0, low))), float(max(value, high)))
            for value, (low, high) in zip(shares, bounds, strict=True)
        ]
        serial, crosstalk = [*estimates, Estimate(0.0, 0.0, 0.0)][:2]
        spread = None if drawn is None else tuple(map(tuple, np.atleast_2d(np.cov(drawn)).tolist()))
        misfit = float(np.sqrt(np.mean(errors**2)))
        return Law(name, self.mode, float(scale), serial, crosstalk, misfit, spread)

    def _drawn(self, design: Array, measured: Array) -> Array | None:
        """Shares, a row each, from fits to measurements drawn again; None where there are too few.

        They may be below 0, as noise makes them: only so is the interval as wide as it should be
        at the border."""
        import numpy as np

        free = _unbounded(design, measured)
        told = np.maximum(design @ free, 1e-3 * measured)
        errors = measured / told - 1
        left = len(measured) - design.shape[1]
        if left < 1:
            return None
        wider = (len(measured) / left) ** 0.5 * _student(left) / _NORMAL
        random = np.random.default_rng(self.seed)
        drawn = random.choice(errors - errors.mean(), size=(_RESAMPLES, len(errors))) * wider
        weighted = design / told[:, None]
        solved = np.linalg.pinv(weighted) @ (1 + drawn.T)
        return np.asarray(solved[1:] / solved[0])


def _unbounded(design: Array, measured: Array) -> Array:
    """Least squares of relative errors: errors relative to what the last round has told."""
    import numpy as np

    weights = 1 / measured
    for _ in range(3):
        found = np.linalg.lstsq(design * weights[:, None], measured * weights, rcond=None)[0]
        weights = 1 / np.maximum(design @ found, 1e-3 * measured)
    return np.asarray(found)


def _least(design: Array, measured: Array) -> Array:
    """The best fit that has no share below 0: one of those without some of the terms."""
    import numpy as np

    best, least = np.zeros(design.shape[1]), np.inf
    best[0] = np.exp(np.mean(np.log(measured)))
    terms = range(1, design.shape[1])
    for used in [tuple(terms), *((one,) for one in terms if len(terms) > 1), ()]:
        columns = [0, *used]
        found = np.zeros(design.shape[1])
        found[columns] = _unbounded(design[:, columns], measured)
        told = design @ found
        error = np.sum((measured / told - 1) ** 2) if (told > 0).all() else np.inf
        if (found[1:] >= 0).all() and error < least:
            best, least = found, error
    return best


def _student(freedom: int) -> float:
    """How many standard deviations hold 95 % for so many degrees of freedom (Abramowitz and
    Stegun, "Handbook of Mathematical Functions", 26.7.5).

    >>> [round(_student(n), 2) for n in (4, 10, 100)]
    [2.77, 2.23, 1.98]
    """
    z = _NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def noise_of(times: Mapping[int, Sequence[float]]) -> float:
    """How much repeated times differ: their standard deviation, relative to the median of those
    with as many workers.

    >>> noise_of({1: [9.0, 10.0, 11.0], 2: [5.0, 5.0, 5.0]})
    0.07071...
    """
    errors = [t / median(measured) - 1 for measured in times.values() for t in measured]
    freedom = len(errors) - len(times)
    square: Callable[[float], float] = lambda error: error * error  # noqa: E731
    return float((sum(map(square, errors)) / freedom) ** 0.5) if freedom else 0.0
