"""Expressions of arrays, in bytes moved a second: what has to be read and written, no more."""

from __future__ import annotations

import statistics
from typing import Any, cast

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, WrongAnswerError
from benchmarks.contenders import CONTENDERS
from benchmarks.evaluators import EVALUATORS, Evaluator

POLYNOMIAL = "a**2 + b**2 + 2*a*b"
SUMS = {"whole": "sum(a*b)", "columns": "sum(a*b, axis=0)", "rows": "sum(a*b, axis=1)"}


def operands(elements: int) -> dict[str, Any]:
    import numpy as np

    generator = np.random.default_rng(0)
    return {name: generator.random(elements) for name in "ab"}


def agree(found: Any, expected: Any) -> None:
    import numpy as np

    if not np.allclose(found, expected, rtol=1e-9):
        raise WrongAnswerError("the value is not NumPy's")


def seconds(
    evaluator: Evaluator, text: str, variables: dict[str, Any], out: Any, repeats: int
) -> float:
    """The median of some evaluations, after two that warm up."""
    times = []
    for _ in range(2 + repeats):
        with Clock() as clock:
            evaluator.compute(text, variables, out)
        times.append(clock.seconds)
    return statistics.median(times[2:])


def measure(entrant: Entrant, workers: int, elements: int, repeats: int) -> Sample:
    """Bytes moved a second, by one thread and by two: 24 an element, of a copy 16."""
    import numpy as np

    variables = operands(elements)
    out = np.zeros(elements)
    sample = {}
    for metric, threads in (("one_thread", 1), ("two_threads", 2)):
        with cast(Evaluator, entrant.pool(threads)) as evaluator:
            elapsed = seconds(evaluator, POLYNOMIAL, variables, out, repeats)
        sample[metric] = (16 if entrant.contender == "copyto" else 24) * elements / elapsed
        part = {name: array[-1000:] for name, array in variables.items()}
        agree(out[-1000:], part["a"] if entrant.contender == "copyto" else eval(POLYNOMIAL, part))
    return sample


def measure_sums(entrant: Entrant, workers: int, elements: int, repeats: int) -> Sample:
    """Bytes read a second, 16 an element, by as many threads as there are workers."""
    variables = {name: array.reshape(-1, 1000) for name, array in operands(elements).items()}
    expected = cast(Evaluator, CONTENDERS["NumPy"](1))
    sample = {}
    with cast(Evaluator, entrant.pool(workers)) as evaluator:
        for metric, text in SUMS.items():
            elapsed = seconds(evaluator, text, variables, None, repeats)
            sample[metric] = 16 * elements / elapsed
            if entrant.contender != "vecdot":
                agree(evaluator.compute(text, variables), expected.compute(text, variables))
    return sample


RATES = (Metric("one_thread", "B/s", more=True), Metric("two_threads", "B/s", more=True))
GOALS = tuple(
    Goal(f"{says}, {metric.name.replace('_', ' ')}", metric.name, at_least=least, against=other)
    for says, least, other in (
        ("≥ 1.2 times numexpr", 1.2, "numexpr"),
        ("≥ 4 times NumPy", 4.0, "NumPy"),
        ("≥ 0.75 of the bandwidth of copyto", 0.75, "copyto"),
    )
    for metric in RATES
)
ENTRANTS = tuple(Entrant(kind.name) for kind in EVALUATORS if kind.name != "vecdot")
NOTE = (
    "Bytes that have to be moved, 24 an element (16 for the copy), over the median time; `out` is "
    "given, and has been written before. NumPy has one thread."
)

LARGE = Case(
    name="expression",
    title="`a**2 + b**2 + 2*a*b` of 10⁸ doubles",
    measure=measure,
    entrants=ENTRANTS,
    metrics=RATES,
    goals=GOALS,
    sizes={
        "full": {"elements": 100_000_000, "repeats": 7},
        "quick": {"elements": 20_000_000, "repeats": 5},
        "tiny": {"elements": 20_000, "repeats": 1},
    },
    note=NOTE,
    subject="ff.evaluate",
)

SMALL = Case(
    name="expression-small",
    title="`a**2 + b**2 + 2*a*b` of 10⁶ doubles",
    measure=measure,
    entrants=ENTRANTS,
    metrics=RATES,
    goals=GOALS,
    sizes={
        "full": {"elements": 1_000_000, "repeats": 300},
        "quick": {"elements": 1_000_000, "repeats": 50},
        "tiny": {"elements": 20_000, "repeats": 1},
    },
    note=NOTE,
    subject="ff.evaluate",
)

SUM = Case(
    name="expression-sums",
    title="`sum(a*b)`, whole and by axis, of 10⁸ doubles in rows of 1000",
    measure=measure_sums,
    entrants=tuple(Entrant(kind.name) for kind in EVALUATORS if kind.name != "copyto"),
    metrics=tuple(Metric(name, "B/s", more=True) for name in SUMS),
    goals=tuple(
        Goal(f"≥ {least:g} times {other}, {metric}", metric, at_least=least, against=other)
        for metric in SUMS
        for other, least in (("numexpr", 3.0), ("NumPy", 3.0), ("vecdot", 0.9))
    ),
    sizes={
        "full": {"elements": 100_000_000, "repeats": 5},
        "quick": {"elements": 20_000_000, "repeats": 5},
        "tiny": {"elements": 20_000, "repeats": 1},
    },
    note="Bytes that have to be read, 16 an element, over the median time. Columns: axis=0; rows: "
    "axis=1. `vecdot` in each thread is the limit: it reads both operands, and adds up each row.",
    subject="ff.evaluate",
)
