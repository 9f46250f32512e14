"""The mean of a file that is larger than the memory for it: bytes of the file a second."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from benchmarks.cases.base import Case, Clock, Entrant, Goal, Metric, Sample, WrongAnswerError
from benchmarks.memory import TreePeak, tree_memory
from benchmarks.readers import READERS, Reader


@contextmanager
def table(megabytes: int) -> Iterator[Path]:
    """A file of float64 in rows of a megabyte, on the disk; the mean is that of each row."""
    import numpy as np

    row = np.random.default_rng(0).random(2**17)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.npy")
        with open(path, "wb") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": (megabytes, row.size)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(megabytes):
                file.write(row.data)
            file.flush()
            os.fsync(file.fileno())
        yield path


def forget(path: Path) -> None:
    """Have the kernel drop what it keeps of the file in memory."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(entrant: Entrant, workers: int, megabytes: int) -> Sample:
    """Three times warm, as the file was written, of which the best counts; once for the memory;
    and once cold. What a cold pass leaves in the cache of the system is not the same for all."""
    import numpy as np

    with table(megabytes) as path, cast(Reader, entrant.pool(workers)) as reader:
        size = path.stat().st_size
        expected = float(np.random.default_rng(0).random(2**17).mean())
        np.save(path.with_name("small.npy"), np.ones(1000))
        reader.mean(path.with_name("small.npy"))  # what has to be imported is
        warm = []
        for _ in range(3):
            with Clock() as clock:
                found = reader.mean(path)
            warm.append(clock.seconds)
        if not entrant.contender.startswith("plain read") and abs(found - expected) > 1e-12:
            raise WrongAnswerError(f"the mean is {expected}, and not {found}")
        before = tree_memory()
        with TreePeak() as peak:
            reader.mean(path)
        forget(path)
        with Clock() as cold:
            reader.mean(path)
    return {
        "warm": size / min(warm),
        "cold": size / cold.seconds,
        "memory": max(0.0, float(peak.peak - before)),
    }


CASE = Case(
    name="large-mean",
    title="the mean of a file of float64, with 256 MB of memory for it",
    measure=measure,
    entrants=tuple(Entrant(reader.name) for reader in READERS),
    metrics=(
        Metric("warm", "B/s", more=True),
        Metric("cold", "B/s", more=True),
        Metric("memory", "B"),
    ),
    goals=(
        Goal("warm, ≥ 0.9 of only reading it", "warm", at_least=0.9, against="plain read"),
        Goal("cold, ≥ 0.9 of only reading it", "cold", at_least=0.9, against="plain read"),
        Goal("warm, ≥ dask.array", "warm", at_least=1.0, against="dask.array"),
        Goal("cold, ≥ dask.array", "cold", at_least=1.0, against="dask.array"),
        Goal("warm, ≥ cubed", "warm", at_least=1.0, against="cubed"),
        Goal("warm, ≥ the loop over rows", "warm", at_least=1.0, against="NumPy rows"),
        Goal("≤ 256 MB beyond the interpreter", "memory", at_most=256 * 2**20),
    ),
    sizes={"full": {"megabytes": 12_207}, "quick": {"megabytes": 1024}, "tiny": {"megabytes": 4}},
    subject="ff.Blocks",
    note="12.8 GB in rows of a megabyte. Bytes of the file a second; warm: it is in the cache of "
    "the system, as it was written; cold: it is not. Memory: what the process tree grows by (PSS), "
    "pages that are mapped included. Plain read: `readinto` of 1 MB, and nothing computed.",
)
