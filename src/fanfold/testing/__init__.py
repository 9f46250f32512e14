"""Public test kits: what fanfold's own tests are built from, for those who extend fanfold.

`ExecutorTests` holds an executor to its contract, `leaks` says what a block of code left behind,
`faults` misbehave on command. They need pytest: ``pip install pytest``.
"""

from __future__ import annotations

from fanfold.testing.executors import ExecutorTests
from fanfold.testing.faults import Script, exit_now, kill_self
from fanfold.testing.functions import Gate
from fanfold.testing.leaks import descendants, leaks

__all__ = ["ExecutorTests", "Gate", "Script", "descendants", "exit_now", "kill_self", "leaks"]
