"""The places that exercises run in, and the count of those that ran.

An exercise whose table row needs ``pbs`` runs in the fixture of that name: it gives the environment
for the commands, or skips with the reason why there is no such place here.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.learn.exercises import ROOT, exercises
from tests.slurm.cluster import PrivateSlurm
from tests.slurm.conftest import private

from fanfold.testing.cluster import Cluster

_RAN: dict[str, str] = {}  # by exercise: "executed", or why not


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-pages", action="store_true", help="write what the sessions print into docs/learn"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "exercise" in metafunc.fixturenames:
        metafunc.parametrize("exercise", exercises(), ids=str)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The Slurm of the session is there before the first test that needs it, which leaves it."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        exercise = callspec and callspec.params.get("exercise")
        if exercise and exercise.needs in ("slurm", "dask") and "place" in item.fixturenames:
            item.fixturenames.insert(0, "session_slurm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where commands run: a folder of their own, with the examples in it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.fixture
def laptop(tmp_path: Path) -> dict[str, str]:
    """This machine: the environment of its commands, with `fanfold` and `python` on the path."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "fanfold").write_text(f'#!/bin/sh\nexec {sys.executable} -m fanfold "$@"\n')
    (bin_ / "fanfold").chmod(0o755)
    path = f"{bin_}:{Path(sys.executable).parent}:/usr/bin:/bin"
    return os.environ | {"PATH": path, "TERM": "dumb", "PYTHONUNBUFFERED": "1"}


# The places of the cluster part: pbs, slurm, dask, mpi, ipython -----------------------------------


@pytest.fixture
def pbs(tmp_path: Path, laptop: dict[str, str]) -> Iterator[dict[str, str]]:
    """A pretend cluster with the commands of PBS; its login shells read no profile of ours."""
    home = tmp_path / "home"
    home.mkdir()
    with Cluster(tmp_path / "pbs", "pbs", nodes=["n1"], cores=16) as cluster:
        yield laptop | {"PATH": f"{cluster.bin}:{laptop['PATH']}", "HOME": str(home)}


@pytest.fixture(scope="session")
def session_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSlurm]:
    """A real Slurm, where its packages are installed."""
    yield from private(tmp_path_factory, accounting=False)


@pytest.fixture
def slurm(session_slurm: PrivateSlurm, laptop: dict[str, str]) -> Iterator[dict[str, str]]:
    """That Slurm, for one test."""
    yield laptop | session_slurm.environment
    session_slurm.clear()


@pytest.fixture
def dask(request: pytest.FixtureRequest) -> dict[str, str]:
    """The same, with Dask, which says no word of connections that end with it."""
    need("dask_jobqueue", "dask.array")
    place: dict[str, str] = request.getfixturevalue("slurm")
    return {**place, "DASK_LOGGING__DISTRIBUTED": "error"}


@pytest.fixture
def mpi(laptop: dict[str, str]) -> dict[str, str]:
    """This machine, with an MPI whose launcher needs no flags."""
    need("mpi4py")
    if shutil.which("mpiexec", path=laptop["PATH"]) is None:
        pytest.skip("there is no mpiexec here")
    return laptop


@pytest.fixture
def ipython(laptop: dict[str, str]) -> dict[str, str]:
    """This machine, with ipyparallel."""
    need("ipyparallel")
    return laptop


def need(*modules: str) -> None:
    """Skip the test where one of them is not installed."""
    for name in modules:
        if find_spec(name.partition(".")[0]) is None or find_spec(name) is None:
            pytest.skip(f"{name} is not installed here")


# The count ----------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    exercise = getattr(item, "callspec", None) and item.callspec.params.get("exercise")
    if exercise and item.originalname == "test_an_exercise_prints_what_its_page_shows":
        if report.skipped:
            _RAN[exercise.name] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.when == "call" and report.passed:
            _RAN[exercise.name] = "executed"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _RAN:
        return
    executed = sum(how == "executed" for how in _RAN.values())
    terminalreporter.write_sep("-", f"{executed} of {len(exercises())} exercises executed")
    for name, how in _RAN.items():
        if how != "executed":
            terminalreporter.write_line(f"{name} was skipped: {how}")
