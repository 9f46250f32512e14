"""What the tests of the store share."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from fanfold.store.directory import RunDirectory


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """The folder of a new run."""
    return RunDirectory.create(tmp_path, "run-1")


@pytest.fixture(params=["limit", "disk"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder in which a file has 64 KiB: because of a limit, and of a disk that is small."""
    folder = tmp_path / "full"
    folder.mkdir()
    within = file_size_limit() if request.param == "limit" else tiny_disk(folder)
    with within:
        yield folder


@contextmanager
def file_size_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def tiny_disk(folder: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a disk cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def forbidden() -> Callable[[Path, int], AbstractContextManager[None]]:
    """``with forbidden(folder, mode)``: this user may do in it only what the mode allows."""
    return _forbidden


@contextmanager
def _forbidden(folder: Path, mode: int) -> Iterator[None]:
    """Root may do everything, so it becomes nobody, who must be able to come so far."""
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents)}
    folder.chmod(mode)
    root = os.geteuid() == 0
    enter = stat.S_IXOTH | stat.S_IXGRP  # it stays in root's group
    closed = [path for path in folder.parents if root and before[path] & enter != enter]
    for path in closed:
        path.chmod(before[path] | enter)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *closed):
            path.chmod(before[path])
