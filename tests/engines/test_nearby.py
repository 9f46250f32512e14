"""Large arguments for workers of the same machine: copied once, into a segment, and never left."""

import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from tests.engines.test_mpi import rank_ids

import fanfold as ff
from fanfold.executors.remote.nearby import Nearby, fetched
from fanfold.testing.functions import until
from fanfold.transport.segments import process_folder, release

LARGE = np.arange(200_000)


def kept() -> list[str]:
    """The segments of this process."""
    gc.collect()
    return [str(one) for root in process_folder().roots for one in Path(root).iterdir()]


@pytest.fixture(autouse=True)
def nothing_kept():
    before = set(kept())
    yield
    until(lambda: set(kept()) <= before, "segments are removed")  # by the engine's thread


@pytest.fixture(scope="module", params=["mpi", "ipyparallel"])
def engine(request):
    with ff.executor(request.param, workers=1) as executor:
        executor.submit(abs, -1).result(timeout=60)  # now it is known to be near
        yield executor


def place_and_total(array: np.ndarray) -> tuple[bool, int]:
    """Is it in shared memory, and what is its sum?"""
    start = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as file:
        [line] = [line for line in file if _holds(line, start)]
    return "/dev/shm/" in line, int(array.sum())


def _holds(line: str, address: int) -> bool:
    first, last = (int(one, 16) for one in line.split()[0].split("-"))
    return first <= address < last


def test_one_copy(engine):
    """A worker reads the very segment that the copy was made in."""
    assert engine.submit(place_and_total, LARGE).result(timeout=60) == (True, LARGE.sum())


def test_changes_come_too_late(engine, gate):
    """What is changed after submit arrives as it was, while it waits, too."""
    engine.submit(gate.wait)
    array = np.zeros(200_000)
    futures = [engine.submit(np.sum, array) for _ in range(3)]
    array[:] = 1
    gate.open()
    assert [future.result(timeout=60) for future in futures] == [0.0] * 3


def total_when_open(array: np.ndarray, wait) -> float:
    wait()
    return float(array.sum())


def test_a_rank_that_is_killed(gate):
    """What was lost with a rank is sent again, and as it was at submit."""
    others = set(rank_ids())
    with ff.MPIExecutor(1) as pool:
        pool.submit(abs, -1).result(timeout=60)
        array = np.zeros(200_000)
        future = pool.submit(total_when_open, array, gate.wait)
        array[:] = 1
        gate.wait_for(1)
        os.kill(max(set(rank_ids()) - others), signal.SIGKILL)
        gate.open()
        assert future.result(timeout=60) == 0.0


def test_a_map_needs_no_copy_before(engine):
    """Arrays of a map go from where they are into segments, a chunk at a time."""
    arrays = [np.full(200_000, number) for number in range(6)]
    assert ff.map(np.max, arrays, on=engine) == list(range(6))


def test_no_room(monkeypatch):
    """Without room for a segment a copy is made in memory, and a parcel travels."""
    monkeypatch.setattr(process_folder(), "roots", [])
    nearby = Nearby()
    copy = nearby.copy(memoryview(LARGE).cast("B"))
    assert bytes(copy) == LARGE.tobytes()
    assert nearby.store([b"message", copy]) == ({}, [b"message", copy], [])


def test_parcels_come_whole():
    """What is stored is what is fetched; small parts travel. Copies go with their last user."""
    nearby = Nearby()
    data = LARGE.tobytes()
    copy = nearby.copy(memoryview(data))
    stored = nearby.store([b"message", copy, data])
    assert sorted(stored.near) == [1, 2]
    assert stored.parcel == [b"message", b"", b""]
    assert [stored.near[2]] == stored.made
    assert [bytes(part) for part in fetched(*stored[:2])] == [b"message", data, data]
    assert len(kept()) == 2
    release(*stored.made)
    del copy
    assert kept() == []


def test_a_child_takes_nothing_away():
    """A forked process that ends in good order removes no segment of its parent."""
    nearby = Nearby()
    copies = [nearby.copy(memoryview(LARGE).cast("B"))]
    if (child := os.fork()) == 0:
        copies.clear()
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(kept()) == 1
