"""Studies made by hand, so that what they must say is known, and the browser of the reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.reports.conftest import browser  # noqa: F401 - a fixture

from fanfold.studies.measure import Measured, Profile
from fanfold.studies.study import ScalingStudy


def profile_of(workers: int, seconds: float, tasks: int, **given: Any) -> Profile:
    """A run in which nothing was lost but what is ``given``."""
    told = {
        "start": 0.1, "first": seconds, "work": 10.0, "cpu": 10.0, "longest": 10.0 / tasks,
        "idle": 0.0, "peak_memory": 64 << 20,
    }  # fmt: skip
    return Profile(workers=workers, tasks=tasks, **{**told, **given})


def study_of(
    times: dict[int, list[float]], *, tasks: int = 100, profiles: Any = None, **given: Any
) -> ScalingStudy:
    """A study of ten seconds of work on a quiet machine with many cores."""
    mode = given.get("mode", "strong")
    each = {n: tasks * (n if mode == "weak" else 1) for n in times}
    made = {
        n: profile_of(n, measured[0], each[n], **(profiles or {}).get(n, {}))
        for n, measured in times.items()
    }
    told = {
        "mode": mode, "place": "processes", "tasks": tasks, "times": times, "profiles": made,
        "cores": 64, "load": 0.0, "seconds": 60.0, "target": "work.f",
    }  # fmt: skip
    return ScalingStudy(Measured(**{**told, **given}))


@pytest.fixture(scope="session", name="study_of")
def study_of_fixture() -> Callable[..., ScalingStudy]:
    return study_of
