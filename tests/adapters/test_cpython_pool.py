"""CPython's own tests of `multiprocessing.Pool`, run on `ff.Pool`.

The tests are those of the interpreter that runs this: they are imported from its ``test`` package,
and nothing of them is copied. A test that fails and is not listed in `DIFFERENCES` is an error, and
so is a listed one that passes.
"""

from __future__ import annotations

import multiprocessing.pool
import unittest
from types import ModuleType

import pytest

import fanfold as ff
from fanfold.errors import RemoteTraceback

tests: ModuleType = pytest.importorskip(
    "test._test_multiprocessing",
    reason="this interpreter comes without CPython's tests (test._test_multiprocessing)",
)

# Test -> why it does not apply.
DIFFERENCES = {
    "test_imap_handle_iterable_exception": (
        "when inputs raise, the results of all inputs before that are given, also those that were "
        "to be sent together with the one that did not come"
    ),
    "test_make_pool": "it counts the processes in a private list",
    "test_map_unplicklable": "the error that an input cannot be sent is NotSerializable",
    "test_resource_warning": "it sets a private state; a pool that is forgotten ends by itself",
    "test_unpickleable_result": "a result that is a lambda can be sent",
    "test_pool_worker_lifetime": "it looks into a private list of processes",
}


class Processes:
    TYPE = "processes"
    Pool = staticmethod(ff.Pool)


class TestPool(Processes, tests._TestPool, unittest.TestCase):
    """Every way to call a pool; here each test has a pool of its own."""

    @classmethod
    def setUpClass(cls) -> None:
        pass

    tearDownClass = setUpClass

    def setUp(self) -> None:
        self.pool = ff.Pool(2)
        self.addCleanup(self.pool.join)
        self.addCleanup(self.pool.terminate)


class TestWorkerErrors(Processes, tests._TestPoolWorkerErrors, unittest.TestCase):
    """What tasks may do wrong."""


class TestWorkerLifetime(Processes, tests._TestPoolWorkerLifetime, unittest.TestCase):
    """How long workers live."""

    # It is about a script that imports the standard pool.
    test_worker_finalization_via_atexit_handler_of_multiprocessing = None


@pytest.fixture(autouse=True)
def in_place_of_the_standard_one(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a test, `multiprocessing.Pool` is ours; a listed difference must show."""
    monkeypatch.setattr(multiprocessing, "Pool", ff.Pool)
    monkeypatch.setattr(tests, "DELTA", 1.0)  # what threads may take that nothing waits for
    monkeypatch.setattr(multiprocessing.pool, "RemoteTraceback", RemoteTraceback)
    monkeypatch.setattr(RemoteTraceback, "tb", property(str), raising=False)
    if request.node.name == "test_map_chunksize":
        monkeypatch.setattr(tests, "TIMEOUT1", 60.0)  # so long it waits for what comes at once
    reason = DIFFERENCES.get(request.node.name)
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
