"""What a run tells of memory: peaks of tasks and workers, what was shared, what was spilled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.arrays.conftest import output
from tests.arrays.conftest import script as script  # a fixture
from tests.faults.test_resources import mounts, with_mounts

import fanfold as ff
from fanfold.history import Piece
from fanfold.reports.memory import memory
from fanfold.reports.pieces import Pieces

MB = 1 << 20


def make(megabytes: int) -> float:
    return float(np.ones(megabytes * MB // 8).sum())


def test_peaks_fall(tmp_path: Path) -> None:
    """The peak of each task is its own (E22): where tasks need less and less, and free what they
    had, it falls, and the report tells so of the worker."""
    run = ff.run(make, [150, 120, 90, 60, 30], folder=tmp_path, workers=1, chunk=1).wait()
    peaks = [piece.peak_memory for piece in run.history().pieces]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] - peaks[-1] > 100 * MB
    [line] = [line for line in of_workers(run.report()) if line.startswith("worker 0")]
    assert line.split()[2] == "5"
    assert float(line.split()[3]) > float(line.split()[5]) + 100


def of_workers(report: str) -> list[str]:
    """The lines of the table of workers."""
    return report[report.index("Peak memory of each worker") :].split("\n\n")[0].splitlines()


def test_many_workers() -> None:
    """The largest twelve of many workers are told of, and that these are not all."""
    told = (("e0-a1", f"worker {task % 20}", task) for task in range(1, 101))
    section = memory(
        Pieces([Piece(n, 1, *who, 1, float(n), 1.0, 1.0, n * MB, True) for *who, n in told])
    )
    assert section is not None
    table = next(item for item in section.items if getattr(item, "title", "").endswith("workers"))
    assert table.title == "Peak memory of the largest 12 of 20 workers"
    assert table.rows[0] == ("worker 0", "5", "20.0 MB", "100.0 MB", "100.0 MB")
    assert [row[0] for row in table.rows[1:3]] == ["worker 19", "worker 18"]


def test_what_was_shared_is_told(tmp_path: Path) -> None:
    """Large inputs lie in shared memory, once for all workers: the report tells how much that was;
    a run without any says nothing."""
    with ff.share(np.ones(4 * MB)) as shared:
        run = ff.run(np.sum, np.array_split(shared, 4), folder=tmp_path, workers=2).wait()
    history = run.history()
    assert history.shared >= 32 * MB
    assert history.spilled == 0
    assert f"{history.shared / MB:.1f} MB lay in shared memory, once for all" in run.report()
    small = ff.run(abs, [1, 2], folder=tmp_path).wait()
    assert "lay in shared memory" not in small.report()


SPILLED = """
shared = ff.share(np.ones(10**6))
run = ff.run(np.sum, np.array_split(shared, 4), folder="/dev/shm/runs", workers=2).wait()
say(run.history().shared < run.history().spilled)
say(" ".join(run.report().split()))
"""


@mounts
def test_what_was_spilled_is_told(script: Any) -> None:
    """Where shared memory is too small, the report warns of what lay in files instead."""
    told = output(script(SPILLED, prefix=with_mounts(("/dev/shm", "4m"))))
    assert told[0] == "True"
    assert "7.6 MB in files in TMPDIR, because shared memory was full." in told[1]
