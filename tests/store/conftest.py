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

_LIMITED = pytest.StashKey[bool]()


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """The folder of a new run."""
    return RunDirectory.create(tmp_path, "run-1")


@pytest.fixture(params=["limit", "disk"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder in which a file has 64 KiB: because of a limit, and of a disk that is small."""
    folder = tmp_path / "full"
    folder.mkdir()
    if request.param == "limit":
        request.node.stash[_LIMITED] = True
        yield folder
        return
    with tiny_disk(folder):
        yield folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """The limit is there during the test only: it is that of the whole process, and pytest tells
    how the test ended in a file that may be longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if item.stash.get(_LIMITED, False):
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        return (yield)
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
