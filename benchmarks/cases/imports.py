"""What `import` costs."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, entrants
from benchmarks.contenders import CONTENDERS


def measure(entrant: Entrant, workers: int, repeats: int) -> Sample:
    module = CONTENDERS[entrant.contender].module
    bare, whole = [], []
    for _ in range(repeats):
        bare.append(_seconds("pass"))
        whole.append(_seconds(f"import {module}"))
    return {
        "over_bare": statistics.median(whole) - statistics.median(bare),
        "least_over_bare": min(whole) - min(bare),
        "numpy_imported": _imports_numpy(module),
    }


def _seconds(code: str) -> float:
    with Clock() as clock:
        subprocess.run([sys.executable, "-c", code], check=True)
    return clock.seconds


def _imports_numpy(module: str) -> int:
    code = f"import sys, {module}; sys.exit('numpy' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


CASE = Case(
    name="import",
    title="`import fanfold`",
    measure=measure,
    entrants=entrants(),
    metrics=(
        Metric("over_bare", "s"),
        Metric("least_over_bare", "s"),
        Metric("numpy_imported", ""),
    ),
    goals=(
        Goal("≤ 50 ms over a bare interpreter", "over_bare", at_most=0.05),
        Goal("NumPy not imported", "numpy_imported", at_most=0),
    ),
    sizes={"full": {"repeats": 20}, "quick": {"repeats": 5}, "tiny": {"repeats": 1}},
    note="Fresh interpreters, the bare one and the importing one in turn; the medians are "
    "subtracted, and the minima.",
)
