"""Drivers in processes of their own, for faults that hang, kill or starve the driver.

What holds for every test here besides (nothing left behind, no hang) is in `tests/conftest.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from fanfold.testing.functions import until

_MARKER = "FANFOLD_TEST_DRIVER"
_WATCH = "import faulthandler; faulthandler.dump_traceback_later({limit}, exit=True)\n"
_PREAMBLE = """\
import os, signal, sys, threading, time
import fanfold as ff
from fanfold.testing import faults

def say(*words):
    print(*words, flush=True)

"""


@dataclass
class Driver:
    """A Python process that runs a script of the test's; it knows every process that comes of it.

    Its output goes to files: a pipe would stay open as long as any orphan holds it.
    """

    folder: Path
    process: subprocess.Popen[bytes]
    marker: str
    began: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def wait_for(self, line: str) -> None:
        """Wait until it has said ``line``; fails when it ends without."""
        until(
            lambda: line in self.out.splitlines() or self.process.poll() is not None,
            f"the driver to say {line!r}",
            60,
        )
        assert line in self.out.splitlines(), self.report()

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def send_group(self, signum: int) -> None:
        """As a terminal does: to the whole foreground process group."""
        os.killpg(self.pid, signum)

    def end(self, limit: float = 60.0) -> int:
        """Wait for the end of it; its exit code. What it said is shown where it takes too long."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the driver still runs after {limit:g} s\n{self.report()}")

    def report(self) -> str:
        return f"exit code {self.process.poll()}\n--- out\n{self.out}\n--- err\n{self.err}"

    def family(self) -> list[psutil.Process]:
        """Every living process that it started, orphans included, and itself."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARKER) == self.marker:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def names(self) -> list[Path]:
        """What it left in shared memory and in the temporary folder."""
        folders = {Path("/dev/shm"), Path(tempfile.gettempdir())}
        return [name for folder in folders for name in folder.glob(f"fanfold-*-{self.pid}-*-*")]

    def nothing_is_left(self, seconds: float = 20.0, *, names: bool = True) -> None:
        """Wait for its last process, and its last name, to go; fails after ``seconds``."""
        deadline = time.monotonic() + seconds
        while left := [*self.family(), *(self.names() if names else [])]:
            assert time.monotonic() < deadline, f"left after {seconds:g} s: {left}\n{self.report()}"
            time.sleep(0.01)

    def kill_everything(self) -> None:
        while family := self.family():
            for process in family:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.01)
        self.process.wait()


Start = Callable[..., Driver]


@pytest.fixture
def launch() -> Iterator[Start]:
    """Run any command in a folder, as a driver: ``launch(command, folder, environment={}, **how)``.

    It leads a process group of its own; ``how`` goes to `subprocess.Popen`.
    """
    drivers: list[Driver] = []

    def launch(
        command: list[str], folder: Path, *, environment: dict[str, str] | None = None, **how: Any
    ) -> Driver:
        marker = uuid.uuid4().hex
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, "cwd": folder}
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {}), _MARKER: marker},
                start_new_session=True,
                **{**options, **how},
            )
        drivers.append(Driver(folder, process, marker))
        return drivers[-1]

    yield launch
    for driver in drivers:
        driver.kill_everything()


@pytest.fixture
def start(tmp_path: Path, launch: Start) -> Start:
    """Start a Python script: ``start(script, *arguments, prefix=(), limit=60, **how)``.

    ``prefix`` goes before the interpreter in the command, ``how`` to `launch`. After ``limit``
    seconds the script shows every stack and ends; None is for scripts that fork, for the watch
    does not survive that.
    """
    numbers = count()

    def start(
        script: str,
        *arguments: object,
        prefix: Sequence[str] = (),
        limit: float | None = 60,
        **how: Any,
    ) -> Driver:
        folder = tmp_path / f"driver-{next(numbers)}"
        folder.mkdir()
        path = folder / "script.py"
        watch = _WATCH.format(limit=limit) if limit is not None else ""
        path.write_text(watch + _PREAMBLE + textwrap.dedent(script))
        command = [*prefix, sys.executable, str(path), *map(str, arguments)]
        return launch(command, folder, **how)

    return start


@pytest.fixture
def run(start: Start) -> Start:
    """As ``start``, and wait for the end: it must be a good one, and leave nothing behind."""

    def run(script: str, *arguments: object, code: int = 0, **how: object) -> Driver:
        driver = start(script, *arguments, **how)
        assert driver.end() == code, driver.report()
        driver.nothing_is_left()
        return driver

    return run


@pytest.fixture(params=["forkserver", "spawn", "fork"])
def method(request: pytest.FixtureRequest) -> str:
    """How workers are started: what happens to them afterwards is the same."""
    name: str = request.param
    return name


class Log:
    """What tasks did, in the order they did it: lines of a file that all of them append to.

    Tasks get `path`, and write as they like: ``with path.open("a") as out: print(..., file=out)``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[tuple[str, ...]]:
        """Each whole line as words."""
        text = self.path.read_text()
        return [tuple(line.split()) for line in text[: text.rfind("\n") + 1].splitlines()]

    def numbers(self) -> list[int]:
        """All of the words, each a whole number."""
        return [int(word) for line in self.lines() for word in line]

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.lines()) >= count, f"{count} lines in the log")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")
