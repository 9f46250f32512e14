"""SharedValue: a number that workers add to, exactly."""

from __future__ import annotations

import gc
import math
import os
import pickle
import signal
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.arrays.conftest import output

import fanfold as ff
from fanfold.arrays import lock as locks
from fanfold.arrays import value as values

PLACES = ["serial", "threads", "processes"]
LARGEST = 2**63 - 1


def count(value: ff.SharedValue, times: int) -> None:
    for _ in range(times):
        value.add(1)


# Sums


@pytest.mark.parametrize("start", [0, 0.0], ids=["integer", "float"])
@pytest.mark.parametrize("path", [None, "count"], ids=["memory", "path"])
@pytest.mark.parametrize("on", PLACES)
def test_adding_is_exact(
    on: str, path: str | None, start: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight tasks that add at the same time lose nothing, whatever holds the number."""
    monkeypatch.chdir(tmp_path)
    with ff.SharedValue(start, path=path) as value:
        ff.starmap(count, [(value, 2000)] * 8, on=on, workers=4)
        assert value.value == 16_000
        assert type(value.value) is type(start)


def test_numbers_in_and_out() -> None:
    """It keeps the type that it began with, holds every 64-bit integer, and adds negative
    amounts."""
    for number in (True, np.int32(-5), LARGEST, -LARGEST - 1, 2.5, math.inf, np.float32(0.5)):
        with ff.SharedValue(number) as value:
            assert value.value == number
    with ff.SharedValue(np.uint8(250)) as value:
        value.add(10)
        value.add(-300)
        value.add(np.int64(1))
        value.add()
        assert (value.value, type(value.value), repr(value)) == (-38, int, "SharedValue(-38)")
    with ff.SharedValue(Fraction(1, 2)) as value:
        value.add(1)
        assert value.value == 1.5


@pytest.mark.parametrize("number", ["1", 1j, None, np.zeros(2), LARGEST + 1])
def test_what_is_no_number(number: object) -> None:
    """Other things are refused, with the array that could hold them, or the limit."""
    with pytest.raises(ff.UsageError, match=r"ff\.share\(np\.array|64 bits"):
        ff.SharedValue(number)  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", ["1", 1.5, None, LARGEST + 1])
@pytest.mark.parametrize("path", [None, "count"], ids=["memory", "path"])
def test_what_does_not_fit(
    amount: Any, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an integer cannot take is refused, and changes nothing."""
    monkeypatch.chdir(tmp_path)
    with ff.SharedValue(7, path=path) as value:
        value.add(0)
        with pytest.raises(ff.UsageError, match="holds an integer of 64 bits"):
            value.add(amount)
        with pytest.raises(ff.UsageError, match="holds an integer of 64 bits"):
            value.value = amount
        assert value.value == 7


# Reading and changing


def careless(value: ff.SharedValue, arrived: ff.SharedValue) -> None:
    seen = value.value
    arrived.add(1)
    while arrived.value < 2:
        time.sleep(0.001)
    value.value = seen + 1


@pytest.mark.parametrize("on", ["threads", "processes"])
def test_the_lost_update(on: str) -> None:
    """E18: without the lock, two that read before either writes lose one of their two updates."""
    with ff.SharedValue(0) as value, ff.SharedValue(0) as arrived:
        ff.starmap(careless, [(value, arrived)] * 2, on=on, workers=2)
        assert value.value == 1


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the thread waits"


def test_adding_takes_no_lock() -> None:
    """An integer in memory can be added to while somebody holds its lock; what was added then is
    not lost when the holder writes what it made of what it had read."""
    with ff.SharedValue(10) as value:
        value.add(1)
        with value.lock:
            seen = value.value
            in_thread(lambda: value.add(5))
            value.add(100)
            value.value = seen * 2
        assert value.value == 22 + 5


def test_setting_takes_what_was_read_under_the_same_lock() -> None:
    """What was read in an earlier turn of the lock does not count."""
    with ff.SharedValue(0) as value:
        with value.lock:
            assert value.value == 0
        in_thread(lambda: value.add(5))
        value.value = 3
        assert value.value == 3


# Cells


def test_threads_that_end_give_back_their_cells() -> None:
    """Any number of threads may come and go: there are as many cells as live at a time."""
    with ff.SharedValue(0) as value:
        for _ in range(2000):
            in_thread(lambda: value.add(1))
        assert value.value == 2000
        assert value._next <= 2


def test_more_threads_than_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds no cell takes the lock instead, and nothing is lost."""
    monkeypatch.setattr(values, "_GROUPS", 1)
    barrier = threading.Barrier(100)
    with ff.SharedValue(0) as value:

        def add() -> None:
            barrier.wait()
            value.add(1)
            barrier.wait()
            value.add(2)

        threads = [threading.Thread(target=add) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert value._next == 64
        assert value.value == 300


def test_processes_that_end_give_back_their_cells() -> None:
    """A number outlives those who added to it, and their cells serve those who come later."""
    with ff.SharedValue(0) as value, ff.ProcessExecutor(1, max_tasks_per_child=1) as pool:
        for _ in range(10):
            pool.submit(count, value, 10).result()
        assert value.value == 100
        used = [index for index, cell in enumerate(value._cells.tolist()) if cell]
        assert len(used) <= 5  # a worker may begin before the last ones have ended


def count_and_die(value: ff.SharedValue, times: int) -> None:
    count(value, times)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_the_dead_have_added() -> None:
    """A worker that is killed takes nothing with it, and holds nobody up."""
    with ff.SharedValue(0) as value:
        ff.starmap(count_and_die, [(value, 100)] * 3, on="processes", errors="return")
        assert value.value == 300
        value.value = 0
        ff.starmap(count, [(value, 100)] * 3, on="processes")
        assert value.value == 300


def test_a_system_without_locks_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cells cannot be claimed, adding takes the lock, and is exact."""
    monkeypatch.setattr(locks, "_SETLK", None)
    with ff.SharedValue(0) as value:
        threads = [threading.Thread(target=count, args=(value, 500)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert value.value == 2000
        assert value._sum() == 0


FORKS = """
value = ff.SharedValue(0)
value.add(1)
for _ in range(3):
    child = os.fork()
    if child == 0:
        value.add(10)
        value.add(100)
        os._exit(0)
    os.waitpid(child, 0)
say(value.value, sorted(cell for cell in value._cells.tolist() if cell))
"""


def test_forked_children_have_cells_of_their_own(script: Any) -> None:
    """A forked child does not add to the cell of its parent, where both would lose: it takes one
    that nobody living has."""
    assert output(script(FORKS)) == ["331 [1, 330]"]


# Life


def test_a_handle() -> None:
    """It pickles as a handle of a few hundred bytes, and is one object in a process, as long as
    it lives."""
    value = ff.SharedValue(5)
    handle = pickle.dumps({"nested": [value]})
    assert len(handle) < 400
    assert pickle.loads(handle)["nested"][0] is value
    path = Path(value.path)
    assert path.exists()
    del value
    gc.collect()
    assert not path.exists()
    with pytest.raises(ff.errors.SharedGone, match="dropped its last reference"):
        pickle.loads(handle)


def test_close() -> None:
    """After close nobody can attach; who has it goes on."""
    with ff.SharedValue(5) as value:
        pass
    value.add(1)
    assert value.value == 6
    assert not Path(value.path).exists()
    with pytest.raises(ff.errors.SharedGone, match="close it after the work"):
        pickle.dumps(value)


def test_a_path_stays(tmp_path: Path) -> None:
    """A value with a path survives everybody: open finds it again, of the same type."""
    for start in (3, 0.25):
        path = tmp_path / f"value-{start}"
        with ff.SharedValue(start, path=path) as value:
            value.add(1)
        del value
        found = ff.SharedValue.open(path)
        assert found.value == start + 1
        assert type(found.value) is type(start)
