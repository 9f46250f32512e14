"""What holds for every test: it leaves nothing behind, and it does not hang."""

import faulthandler
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import hypothesis
import pytest

from fanfold.testing import Gate, leaks

TIME_LIMIT = 300.0  # much, for a busy machine; what hangs takes for ever
_stderr: TextIO

# On a busy machine any example may take long: that says nothing of what it tests.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_configure() -> None:
    """Keep the real stderr, for during a test file descriptor 2 is captured, and obey signals,
    whoever started us: a shell's background job ignores Ctrl-C, and nohup the end of the session.
    """
    global _stderr
    _stderr = os.fdopen(os.dup(2), "w")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_unconfigure() -> None:
    _stderr.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test that takes too long shows every stack and ends the run: it does not only print."""
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True, file=_stderr)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """A test leaves no process, thread, file descriptor or named memory behind."""
    with leaks() as left:
        yield
    assert not left, f"left behind: {', '.join(left)}"


@pytest.fixture(params=[1, 2, 5], ids=lambda count: f"{count} workers")
def workers(request: pytest.FixtureRequest) -> int:
    """Results must not depend on it: one, as many as cores, more than cores."""
    count: int = request.param
    return count


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A closed gate; it opens at the end of the test at the latest."""
    gate = Gate(tmp_path / "gate")
    gate.folder.mkdir()
    yield gate
    gate.open()
