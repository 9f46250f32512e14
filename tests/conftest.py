"""What holds for every test: it leaves nothing behind, and it does not hang."""

import faulthandler
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from fanfold.testing import Gate, leaks

TIME_LIMIT = 120.0
_stderr: TextIO


def pytest_configure() -> None:
    """Keep the real stderr: during a test, file descriptor 2 is captured."""
    global _stderr
    _stderr = os.fdopen(os.dup(2), "w")


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
