"""A real Slurm for the tests: started when the first test asks for it, ended with the last.

``slurm`` keeps no records of ended jobs, ``slurm_with_records`` has accounting, ``any_slurm`` is
both, one after the other. Each test finds it idle, with its commands leading there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.slurm.cluster import PrivateSlurm, missing_packages


def private(factory: pytest.TempPathFactory, accounting: bool) -> Iterator[PrivateSlurm]:
    """A Slurm for the whole session; the tests that need it are skipped where there is none."""
    if missing := missing_packages(accounting):
        pytest.skip(f"Debian's packages {', '.join(missing)} are not installed here")
    with PrivateSlurm(factory.mktemp("slurm"), accounting=accounting) as slurm:
        yield slurm


@pytest.fixture(scope="session")
def session_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSlurm]:
    yield from private(tmp_path_factory, accounting=False)


@pytest.fixture(scope="session")
def session_slurm_with_records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSlurm]:
    yield from private(tmp_path_factory, accounting=True)


def lent(slurm: PrivateSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateSlurm]:
    """The Slurm for one test, which may break what it likes."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm
    slurm.clear()


@pytest.fixture
def slurm(session_slurm: PrivateSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateSlurm]:
    """A Slurm that keeps no records of ended jobs."""
    yield from lent(session_slurm, monkeypatch)


@pytest.fixture
def slurm_with_records(
    session_slurm_with_records: PrivateSlurm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PrivateSlurm]:
    """A Slurm with accounting."""
    yield from lent(session_slurm_with_records, monkeypatch)


@pytest.fixture(
    scope="session",
    params=["session_slurm", "session_slurm_with_records"],
    ids=["without records", "with records"],
)
def session_any_slurm(request: pytest.FixtureRequest) -> PrivateSlurm:
    found: PrivateSlurm = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def any_slurm(
    session_any_slurm: PrivateSlurm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PrivateSlurm]:
    """Each of them."""
    yield from lent(session_any_slurm, monkeypatch)
