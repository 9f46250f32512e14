"""Laws fitted to simulated times: what was put in is found, within the interval that is told."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.cases.scaling_fit import NOISE, WORKERS, advises, cost
from benchmarks.cases.scaling_fit import noisy_times as simulate

from fanfold.errors import UsageError
from fanfold.studies.measure import Measured
from fanfold.studies.model import fit_laws, noise_of
from fanfold.studies.study import ScalingStudy

STUDIES = 500


@pytest.mark.parametrize(
    ("serial", "crosstalk"), [(0.0, 0.0), (0.05, 0.0), (0.05, 0.002), (0.2, 0.01)]
)
def test_truth_is_inside_the_intervals(serial, crosstalk):
    """Of 500 studies with 5 % noise, 93 in 100 and more have both true numbers in their intervals,
    which are no wider than is of use."""
    random = np.random.default_rng(17)
    inside, widths = 0, []
    for seed in range(STUDIES):
        law = fit_laws(simulate(random, serial, crosstalk), seed=seed)["universal"]
        inside += (
            law.serial.low <= serial <= law.serial.high
            and law.crosstalk.low <= crosstalk <= law.crosstalk.high
        )
        widths.append(law.serial.high - law.serial.low)
    assert inside >= 0.93 * STUDIES
    assert np.median(widths) < 0.25


def test_truth_is_inside_the_band():
    """At any number of workers, tried or between, the true speed-up is in the law's band in 93 of
    100 studies."""
    random = np.random.default_rng(18)
    places = (1, 3, 8, 16)
    inside = dict.fromkeys(places, 0)
    for seed in range(200):
        law = fit_laws(simulate(random, 0.05, 0.002), seed=seed)["universal"]
        for n in places:
            low, high = law.band(n)
            inside[n] += low <= n / cost(0.05, 0.002, n) <= high
    assert min(inside.values()) >= 0.93 * 200


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_gustafson(share):
    """Where the work grows with the workers, the serial part of Gustafson's law is found."""
    random = np.random.default_rng(19)
    inside = 0
    for seed in range(100):
        times = {
            n: list(60 * n / (n - share * (n - 1)) * (1 + NOISE * random.standard_normal(5)))
            for n in WORKERS
        }
        serial = fit_laws(times, "weak", seed)["Gustafson"].serial
        inside += serial.low <= share <= serial.high
    assert inside >= 93


@pytest.mark.parametrize(
    "workers", [(1, 2, 4, 8), (1, 2, 4, 8, 16), (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)]
)
@pytest.mark.parametrize(
    ("serial", "crosstalk"),
    [(0.0, 0.0), (0.05, 0.002), (0.2, 0.01), (0.5, 0.0), (0.02, 0.02), (0.9, 0.0)],
)
def test_recommended_workers(serial, crosstalk, workers):
    """The recommended workers are within 5 % of the best time, in 93 of 100 noisy studies."""
    random = np.random.default_rng(20)
    drawn = [simulate(random, serial, crosstalk, workers=workers) for _ in range(100)]
    assert sum(advises(times, serial, crosstalk) for times in drawn) >= 93


def test_fewest_workers_are_recommended():
    """Of equally good numbers of workers the fewest: the others would only cost."""
    times = {1: [10.0] * 3, 2: [5.0] * 3, 4: [4.95] * 3, 8: [4.94] * 3}
    assert ScalingStudy(Measured("strong", "processes", 8, times, {}, 8, 0.0, 1.0)).best == 2


def test_noise_is_found():
    """The noise that was put in is told."""
    times = simulate(np.random.default_rng(21), 0.05, 0.0, repeats=200)
    assert noise_of(times) == pytest.approx(NOISE, rel=0.1)


def test_few_measurements_know_nothing():
    """As many measurements as parameters leave the intervals open, and there is no band."""
    law = fit_laws({1: [10.0], 2: [6.0]})["Amdahl"]
    assert law.serial.high == float("inf")
    assert law.band(2) is None


def test_one_number_of_workers_has_no_law():
    """One number of workers is no law, and the error says what is."""
    with pytest.raises(UsageError, match=r"workers=\[1, 2\]"):
        fit_laws({4: [1.0, 1.1]})
