"""Threads on a free-threaded Python: what is said when its lock has come back."""

from __future__ import annotations

import sys
import warnings

import pytest

import fanfold as ff

FREE = "t" in getattr(sys, "abiflags", "")


@pytest.mark.parametrize("locked", [True, False])
def test_the_lock_has_come_back(locked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map on several threads warns when an extension has brought the lock back, and only then.

    What the interpreter tells of itself is stood in for: there is hardly a free-threaded build to
    test with, and no module that is sure to bring its lock back.
    """
    monkeypatch.setattr(sys, "abiflags", "t", raising=False)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: locked, raising=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert ff.map(abs, [-1, -2], on="threads", workers=2) == [1, 2]
    words = [str(one.message) for one in said]
    assert [text.startswith("threads take turns again") for text in words] == [True] * locked


@pytest.mark.skipif(FREE, reason="this Python is free-threaded")
def test_any_other_python_says_nothing() -> None:
    """Where there always was a lock, nothing is said of it: here warnings are errors."""
    assert ff.map(abs, [-1, -2], on="threads", workers=2) == [1, 2]
