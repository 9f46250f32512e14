"""The lock of shared arrays and values: it excludes, and nobody can die with it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.arrays.conftest import line, output

import fanfold as ff
from fanfold.arrays import lock as locks
from fanfold.testing import Gate
from fanfold.testing.functions import until

Shared = ff.SharedArray | ff.SharedValue
PLACES = ["threads", "processes"]


@pytest.fixture(params=["memory", "path"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """The locks of memory and of files are the same."""
    return tmp_path / "value" if request.param == "path" else None


def in_thread(work: Callable[[], Any]) -> Any:
    """What another thread gets: it has to end by itself."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(30)
    assert found, "the thread waits"
    return found[0]


def error_of(work: Callable[[], Any]) -> str:
    try:
        return f"no error, but {work()}"
    except RuntimeError as error:
        return str(error)


# What it excludes


def increase(value: ff.SharedValue, times: int) -> None:
    for _ in range(times):
        with value.lock:
            value.value += 1


@pytest.mark.parametrize("on", PLACES)
def test_nothing_is_lost_under_the_lock(path: Path | None, on: str) -> None:
    """E18: 10 workers add 1 to a number 50 times, each reading it first: 500 with the lock."""
    with ff.SharedValue(0, path=path) as value:
        ff.starmap(increase, [(value, 50)] * 10, on=on, workers=3)
        assert value.value == 500


def move(array: ff.SharedArray, times: int) -> None:
    for _ in range(times):
        with array.lock:
            array[0] -= 1
            array[1] += 1


@pytest.mark.parametrize("on", PLACES)
def test_the_lock_of_an_array(on: str) -> None:
    """Changes of several elements are one under the lock of the array, that of its slices too."""
    with ff.share(np.array([0, 0, 7]), writable=True) as shared:
        assert shared[:2].lock is shared.lock
        ff.starmap(move, [(shared[:2], 200)] * 4, on=on, workers=2)
        assert shared.tolist() == [-800, 800, 7]


def test_one_holds_it(path: Path | None) -> None:
    """While one thread holds it another does not get it, and is told so in time."""
    with ff.SharedValue(0, path=path) as value:
        with value.lock:
            assert value.lock.held
            assert not in_thread(lambda: value.lock.held)
            assert not in_thread(lambda: value.lock.acquire(blocking=False))
            assert not in_thread(lambda: value.lock.acquire(timeout=0.01))
        assert not value.lock.held


def grab(value: ff.SharedValue) -> tuple[bool, bool]:
    """Can another process take the lock, at once or in a moment?"""
    found = value.lock.acquire(blocking=False), value.lock.acquire(timeout=0.01)
    for _ in range(sum(found)):
        value.lock.release()
    return found


def test_one_process_holds_it(path: Path | None) -> None:
    """While one process holds it another does not get it; afterwards it does."""
    with ff.SharedValue(0, path=path) as value, ff.ProcessExecutor(1) as pool:
        with value.lock:
            assert pool.submit(grab, value).result() == (False, False)
        assert pool.submit(grab, value).result() == (True, True)


def test_its_holder_may_take_it_again(path: Path | None) -> None:
    """As an RLock: it is free when it has been released as often as taken, and not before."""
    with ff.SharedValue(0, path=path) as value:
        lock = value.lock
        with lock, lock:
            assert lock.acquire(timeout=1)
            lock.release()
            assert lock.held
        assert in_thread(lambda: lock.acquire(blocking=False) and lock.release() is None)


def test_one_object_in_a_process(path: Path | None) -> None:
    """What is loaded twice has the same lock: a thread cannot shut itself out."""
    with ff.SharedValue(0, path=path) as value:
        again = pickle.loads(pickle.dumps(value))
        with value.lock, again.lock:
            again.value += 1
        assert value.value == 1


def test_release_without_acquire(path: Path | None) -> None:
    """Only its holder can release it."""
    with ff.SharedValue(0, path=path) as value:
        with pytest.raises(RuntimeError, match="does not hold the lock"):
            value.lock.release()
        with value.lock:
            assert "does not hold" in in_thread(lambda: error_of(value.lock.release))


def test_an_error_releases_it(path: Path | None) -> None:
    """A task that fails with it gives it back."""
    with ff.SharedValue(0, path=path) as value:
        with pytest.raises(ZeroDivisionError), value.lock:
            1 / 0  # noqa: B018
        assert in_thread(
            lambda: value.lock.acquire(blocking=False) and value.lock.release() is None
        )


# Deaths


def die_holding(shared: Shared) -> None:
    shared.lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def holder_dies(shared: Shared) -> None:
    """Kill a worker that holds the lock."""
    [error] = ff.map(die_holding, [shared], on="processes", errors="return")
    assert isinstance(error, ff.WorkerDied)


def test_a_worker_killed_with_it(path: Path | None) -> None:
    """A worker that is killed while it holds the lock gives it back: the next one gets it, is
    warned once that what it guards may be half changed, and finds who that was."""
    with ff.SharedValue(0, path=path) as value:
        holder_dies(value)
        with pytest.warns(
            RuntimeWarning, match="died while it held the lock of .*half changed"
        ) as told:
            assert value.lock.acquire(timeout=30)
        assert f"process {value.lock.abandoned_by} died" in str(told[0].message)
        value.lock.release()
        with value.lock:
            assert value.lock.abandoned_by is None


@pytest.mark.parametrize("path", [None, "a.npy"])
def test_a_worker_killed_with_the_lock_of_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """The same for arrays, in memory and in a file."""
    monkeypatch.chdir(tmp_path)
    with ff.share(np.zeros(3), writable=True, path=path) as shared:
        holder_dies(shared)
        with pytest.warns(RuntimeWarning, match="half changed"), shared.lock:
            assert shared.lock.abandoned_by is not None


def test_a_warning_that_is_an_error(path: Path | None) -> None:
    """Where warnings are errors, the one about a dead holder leaves the lock free."""
    with ff.SharedValue(0, path=path) as value:
        holder_dies(value)
        with pytest.raises(RuntimeWarning, match="half changed"):
            value.lock.acquire()
        assert not value.lock.held
        assert in_thread(lambda: value.lock.acquire(timeout=30) and value.lock.release() is None)


def hold(value: ff.SharedValue, gate: Gate) -> None:
    with value.lock:
        gate.wait(os.getpid())


def wait_for(value: ff.SharedValue, gate: Gate) -> int | None:
    (gate.folder / "second").touch()
    with pytest.warns(RuntimeWarning), value.lock:
        return value.lock.abandoned_by


def test_who_waits_gets_it(path: Path | None, gate: Gate) -> None:
    """The death of the holder ends the wait of another process: it never waits for the dead."""
    with ff.SharedValue(0, path=path) as value, ff.ProcessExecutor(2) as pool:
        first = pool.submit(hold, value, gate)
        gate.wait_for(1)
        second = pool.submit(wait_for, value, gate)
        until((gate.folder / "second").exists, "the second worker")
        [holder] = map(int, gate.came())
        os.kill(holder, signal.SIGKILL)
        assert second.result(timeout=30) == holder
        assert isinstance(first.exception(timeout=30), ff.WorkerDied)


FORKS = """
value = pickle.loads(bytes.fromhex(sys.argv[1]))
value.lock.acquire()
if os.fork() == 0:
    say(value.lock.held, value.lock.acquire(blocking=False))
    sys.stdin.readline()
    os._exit(0)
os.wait()
"""


def test_a_forked_child_does_not_keep_it(path: Path | None, script: Any) -> None:
    """A child that was forked under the lock neither holds it, nor keeps it when its parent dies:
    it would have inherited it for as long as it lives."""
    with ff.SharedValue(0, path=path) as value:
        parent = script(FORKS, pickle.dumps(value).hex())
        assert line(parent) == "False False"
        parent.kill()
        with pytest.warns(RuntimeWarning, match=f"process {parent.pid} died"):
            assert value.lock.acquire(timeout=30)
        value.lock.release()
        parent.communicate("\n")


WAITS = """
value = pickle.loads(bytes.fromhex(sys.argv[1]))
try:
    say("waiting")
    value.lock.acquire()
except KeyboardInterrupt:
    say("interrupted", value.lock.held)
"""


def test_a_wait_can_be_interrupted(path: Path | None, script: Any) -> None:
    """Ctrl-C ends the wait for a lock that another process holds, and leaves nothing half held."""
    with ff.SharedValue(0, path=path) as value, value.lock:
        waiter = script(WAITS, pickle.dumps(value).hex())
        assert line(waiter) == "waiting"
        waiter.send_signal(signal.SIGINT)
        assert output(waiter) == ["interrupted False"]


def test_a_file_system_without_locks(path: Path | None, monkeypatch: Any) -> None:
    """Where files cannot be locked that is told, with the path, instead of a race."""
    with ff.SharedValue(0, path=path) as value:

        def no_locks(*_: object) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr(locks.fcntl, "flock", no_locks)
        with pytest.raises(
            ff.UsageError, match=r"No locks available\. Its file system has no locks"
        ):
            value.lock.acquire()
        assert not value.lock.held
