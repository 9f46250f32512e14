"""Public test kits: what fanfold's own tests are built from, for those who extend fanfold.

`ExecutorTests` holds an executor to its contract, and `SchedulerTests` a scheduler; `leaks` says
what a block of code left behind, `faults` misbehave on command. They need pytest:
``pip install pytest``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanfold.testing.cluster import Cluster as Cluster
    from fanfold.testing.executors import ExecutorTests as ExecutorTests
    from fanfold.testing.faults import Script as Script
    from fanfold.testing.faults import exit_now as exit_now
    from fanfold.testing.faults import kill_self as kill_self
    from fanfold.testing.functions import Gate as Gate
    from fanfold.testing.leaks import descendants as descendants
    from fanfold.testing.leaks import leaks as leaks
    from fanfold.testing.schedulers import SchedulerTests as SchedulerTests

# Loaded when first used: a worker that gets a scripted fault by name must not import pytest.
_HOME_OF = {
    "Cluster": "fanfold.testing.cluster",
    "ExecutorTests": "fanfold.testing.executors",
    "Gate": "fanfold.testing.functions",
    "SchedulerTests": "fanfold.testing.schedulers",
    "Script": "fanfold.testing.faults",
    "descendants": "fanfold.testing.leaks",
    "exit_now": "fanfold.testing.faults",
    "kill_self": "fanfold.testing.faults",
    "leaks": "fanfold.testing.leaks",
}

__all__ = [*sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'fanfold.testing' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value
