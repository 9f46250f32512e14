"""Jobs of this machine, for tests."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanfold.schedulers.local import LocalJob, LocalQueue

PATH = "/usr/local/bin:/usr/bin:/bin"


class Bench:
    """A queue, and jobs whose scripts run in a folder of their own, which is their home, too."""

    def __init__(self, folder: Path, queue: LocalQueue) -> None:
        self.folder = folder
        self.queue = queue

    def job(self, body: str, dialect: str = "slurm", **fields) -> LocalJob:
        folder = str(self.folder)
        given = {"environment": {"HOME": folder, "PATH": PATH}, **fields}
        return LocalJob(f"#!/bin/sh\n{body}\n", "demo", dialect, folder, folder, **given)

    def submit(self, body: str, dialect: str = "slurm", **fields) -> int:
        return self.queue.submit(self.job(body, dialect, **fields))

    def run(self, body: str, dialect: str = "slurm", **fields):
        """Run a job to its end; its elements, or the one of a plain job."""
        return self.finish(self.submit(body, dialect, **fields))

    def finish(self, number: int):
        self.until(lambda: self.queue.ended(number), f"the end of job {number}")
        elements = list(self.queue.jobs[number].elements.values())
        return elements if elements[0].index is not None else elements[0]

    def until(self, condition, what: str, seconds: float = 60.0) -> None:
        """Let the queue go on until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what}")
            self.queue.step(0.02)

    def until_there(self, *names: str) -> None:
        """Let the queue go on until scripts have made files."""
        for name in names:
            self.until((self.folder / name).exists, f"the file {name}")

    def hurry(self, seconds: float) -> None:
        """Let so much of the time of what runs be over at once, however long it took to begin."""
        for running in self.queue._running.values():
            running.over -= seconds
            running.warn_at -= seconds
        self.queue.step()

    def states(self, number: int) -> list[str]:
        return [element.state for element in self.queue.jobs[number].elements.values()]

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def files(self) -> list[str]:
        """What scripts wrote, by its path."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.folder)) for path in found)


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    folder = tmp_path / "here"
    folder.mkdir()
    with LocalQueue(workers=4, grace=2.0) as queue:
        yield Bench(folder, queue)
