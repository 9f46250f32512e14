"""What the tests of the adapters share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fanfold.testing import Cluster


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A pretend Slurm, its commands on PATH; the test is in an empty folder."""
    with Cluster(tmp_path / "cluster", "slurm", nodes=2, cores=2) as cluster:
        monkeypatch.setenv("PATH", cluster.environment["PATH"])
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield cluster
