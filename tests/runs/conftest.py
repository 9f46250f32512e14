"""Drivers of runs in processes of their own, and what the folder of a run tells of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fanfold.runs.state import DONE, journals, read_state
from fanfold.store.directory import RunDirectory
from fanfold.testing.functions import until


@dataclass
class Drive:
    """A process that drives a run, or tries to; its output goes to files."""

    process: subprocess.Popen[bytes]
    out_file: Path
    err_file: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        return self.err_file.read_text()

    def wait_for(self, line: str) -> None:
        """Wait until it has said ``line``, or has ended."""
        until(
            lambda: line in self.out.splitlines() or self.process.poll() is not None,
            f"the driver to say {line!r}",
        )

    def end(self, limit: float = 60.0) -> int:
        """Its exit code, when it has ended."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the driver still runs after {limit:g} s: {self.out}\n{self.err}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_everything(self) -> None:
        """The driver, and what came of it, at once."""
        for pid in (self.pid, *(child.pid for child in self.children())):
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        self.process.wait()

    def children(self) -> list[psutil.Process]:
        """The launcher of the workers, and the workers."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


Start = Callable[..., Drive]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program in a folder: ``start(*arguments, folder=..., prefix=(), **environment)``;
    ``arguments`` are those of the interpreter."""
    drives: list[Drive] = []

    def start(
        *arguments: str,
        folder: Path = tmp_path,
        prefix: Sequence[str] = (),
        preexec_fn: Callable[[], object] | None = None,
        **environment: str,
    ) -> Drive:
        number = len(drives)
        out, err = tmp_path / f"out-{number}", tmp_path / f"err-{number}"
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [*prefix, sys.executable, *arguments],
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
                preexec_fn=preexec_fn,
            )
        drives.append(Drive(process, out, err))
        return drives[-1]

    yield start
    for drive in drives:
        if drive.process.poll() is None:
            drive.kill_everything()


class Told:
    """What a run's folder tells, and the file ``calls`` beside it, that its tasks append to."""

    def __init__(self, folder: Path, name: str = "r") -> None:
        self._calls = folder / "calls"
        self._path = folder / "fanfold-runs" / name

    def calls(self) -> Counter[int]:
        """How often each task was begun."""
        text = self._calls.read_text() if self._calls.exists() else ""
        return Counter(map(int, text.split()))

    def exists(self) -> bool:
        return (self._path / "run.json").exists()

    def recorded(self) -> set[int]:
        """The tasks that are recorded as done."""
        if not self.exists():
            return set()
        state = read_state(RunDirectory.open(self._path))
        return {index for index, status in enumerate(state.status) if status == DONE}

    def records(self) -> Counter[int]:
        """How many records that count say that a task is done."""
        found: Counter[int] = Counter()
        for _, journal in journals(RunDirectory.open(self._path), []):
            for record in journal.records():
                if record["is"] == "done":
                    found.update(range(record["first"], record["first"] + record["count"]))
        return found


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Told]:
    """What the run in a folder tells: ``told(folder, name)``."""

    def told(folder: Path = tmp_path, name: str = "r") -> Told:
        return Told(folder, name)

    return told
