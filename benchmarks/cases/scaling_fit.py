"""Laws of scaling with known numbers, and noise: does a study find them, and advise well?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.cases.base import Case, Entrant, Goal, Metric, Sample

if TYPE_CHECKING:
    import numpy as np

NOISE = 0.05
WORKERS = (1, 2, 4, 8, 16)
LAWS = ((0.0, 0.0), (0.05, 0.0), (0.05, 0.002), (0.2, 0.01), (0.5, 0.0), (0.02, 0.02))
"""Serial part and crosstalk of each pair of workers."""

SLOWER = 1.05  # times the best time: so much may the recommended workers take


def cost(serial: float, crosstalk: float, workers: int) -> float:
    """Worker-seconds, relative to those of one worker."""
    return 1 + serial * (workers - 1) + crosstalk * workers * (workers - 1)


def noisy_times(
    random: np.random.Generator,
    serial: float,
    crosstalk: float,
    *,
    workers: Sequence[int] = WORKERS,
    repeats: int = 5,
    mode: str = "strong",
    noise: float = NOISE,
) -> dict[int, list[float]]:
    """Times of a minute's work that follow a law, but for noise."""
    times = {}
    for n in workers:
        right = 60 * cost(serial, crosstalk, n) / (n if mode == "strong" else 1)
        times[n] = list(right * (1 + noise * random.standard_normal(repeats)))
    return times


def finds(times: dict[int, list[float]], serial: float, crosstalk: float, seed: int) -> bool:
    """Are both true numbers inside the intervals?"""
    from fanfold.studies.model import fit_laws

    law = fit_laws(times, seed=seed)["universal"]
    inside: bool = (
        law.serial.low <= serial <= law.serial.high
        and law.crosstalk.low <= crosstalk <= law.crosstalk.high
    )
    return inside


def advises(times: dict[int, list[float]], serial: float, crosstalk: float) -> bool:
    """Are the recommended workers nearly as fast as the best of those that were tried?"""
    from fanfold.studies.measure import Measured
    from fanfold.studies.study import ScalingStudy

    given: Any = times
    study = ScalingStudy(Measured("strong", "processes", 8, given, {}, 32, 0.0, 1.0))
    right = {n: cost(serial, crosstalk, n) / n for n in times}
    return right[study.best] <= SLOWER * min(right.values())


def measure(entrant: Entrant, workers: int, studies: int) -> Sample:
    """The shares are those of the law that comes off worst."""
    import numpy as np

    random = np.random.default_rng(17)
    inside, good = [], []
    for law in LAWS:
        drawn = [noisy_times(random, *law) for _ in range(studies)]
        inside.append(sum(finds(times, *law, seed) for seed, times in enumerate(drawn)) / studies)
        good.append(sum(advises(times, *law) for times in drawn) / studies)
    return {"inside": 100 * min(inside), "advised": 100 * min(good)}


CASE = Case(
    name="scaling-fit",
    title="500 simulated scaling studies of each of 6 laws, 5 % noise",
    measure=measure,
    entrants=(Entrant("fanfold"),),
    metrics=(Metric("inside", " %", more=True), Metric("advised", " %", more=True)),
    goals=(
        Goal("both true numbers inside the 95 % intervals in ≥ 93 %", "inside", at_least=93),
        Goal("the recommended workers within 5 % of the best time, in ≥ 93 %", "advised",
             at_least=93),
    ),
    sizes={"full": {"studies": 500}, "quick": {"studies": 100}, "tiny": {"studies": 2}},
    note="Each study has 5 runs with each of 1, 2, 4, 8 and 16 workers, whose times follow the "
    "universal law of scaling, times normal noise of 5 %. Told is the law that comes off worst. "
    "Nothing of it is a time of this machine; the seed is fixed.",
)  # fmt: skip
