"""scikit-learn's own grid search, on joblib's backend and on ours."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.backends import BACKENDS
from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, check

# The parameters that scikit-learn's manual searches for handwritten digits.
GRID: list[dict[str, list[Any]]] = [
    {"kernel": ["rbf"], "gamma": [1e-3, 1e-4], "C": [1, 10, 100, 1000]},
    {"kernel": ["linear"], "C": [1, 10, 100, 1000]},
]
AGAIN = 3  # searches with workers that are warm


def measure(entrant: Entrant, workers: int, digits: int, folds: int) -> Sample:
    """The first search starts the workers, which import scikit-learn; the others find them."""
    selection, svm = import_module("sklearn.model_selection"), import_module("sklearn.svm")
    data, target = import_module("sklearn.datasets").load_digits(return_X_y=True)
    search = selection.GridSearchCV(svm.SVC(), GRID, cv=folds)
    data, target = data[:digits] / 16, target[:digits]
    with entrant.pool(workers):
        with Clock() as first:
            search.fit(data, target)
        best = search.best_params_, search.best_score_
        with Clock() as again:
            for _ in range(AGAIN):
                search.fit(data, target)
    check([(search.best_params_, search.best_score_)], [best])
    return {"again": again.seconds / AGAIN, "first": first.seconds}


CASE = Case(
    name="grid-search",
    title="scikit-learn: a grid search over digits",
    measure=measure,
    entrants=tuple(Entrant(backend.name) for backend in BACKENDS),
    metrics=(Metric("again", "s"), Metric("first", "s")),
    goals=(
        Goal(
            "not slower than loky, its workers warm", "again", at_most=1, against="joblib on loky"
        ),
        Goal("not slower than loky, from nothing", "first", at_most=1, against="joblib on loky"),
    ),
    sizes={
        "full": {"digits": 1797, "folds": 5},
        "quick": {"digits": 600, "folds": 5},
        "tiny": {"digits": 200, "folds": 2},
    },
    note="12 candidates and 5 folds: 60 fits of some 10 to 100 ms. first: workers are started, "
    "and import scikit-learn.",
    subject="joblib on fanfold",
)
