"""How many tasks travel together: a calculation, from what was measured."""

import time

import pytest

import fanfold as ff
from fanfold.dispatch import _ChunkSizes
from fanfold.executors.remote.executor import RemoteExecutor
from fanfold.tasks import Report


def learned(place, pace, sending, left=None):
    """The size of a chunk when tasks have taken ``pace`` seconds, and ``sending`` to be sent."""
    sizes = _ChunkSizes(place, None)
    for _ in range(30):
        tasks = sizes.next(None)
        sizes.learn_sending(sending * tasks, tasks)
        sizes.learn(Report(0, [None] * tasks, pace * tasks))
    return sizes.next(left)


@pytest.fixture
def place():
    with ff.ThreadExecutor(2) as pool:
        yield pool


def test_the_first_chunk_is_one_task(place):
    """Nothing is known yet: a task may take hours."""
    assert _ChunkSizes(place, None).next(1000) == 1


@pytest.mark.parametrize(
    ("sending", "tasks"),
    [(1e-6, 40), (4e-5, 40), (1e-4, 10), (5e-4, 10), (2e-3, 5)],
)
def test_a_chunk_is_as_long_as_makes_it_worth_its_way(place, sending, tasks):
    """Of tasks of a millisecond: 40 ms where they are quickly sent, and so small; else 10 ms of
    work or of sending."""
    assert learned(place, 1e-3, sending) == pytest.approx(tasks, abs=1)


@pytest.mark.parametrize(("pace", "tasks"), [(0.0039, 10), (0.0045, 2), (0.011, 1), (1.0, 1)])
def test_long_tasks_travel_alone(place, pace, tasks):
    """Nobody waits behind what takes a second; and when a worker dies, the finished tasks of its
    chunk run again: of 10 ms and more there are none."""
    assert learned(place, pace, 1e-6) == tasks


@pytest.mark.parametrize(("left", "tasks"), [(1000, 40), (100, 25), (8, 2), (2, 1)])
def test_a_chunk_leaves_something_for_the_others(place, left, tasks):
    """Half of what is left would go to all workers at once, and no more."""
    assert learned(place, 1e-3, 1e-6, left) == pytest.approx(tasks, abs=1)


def test_a_few_short_tasks_among_longer_ones_change_nothing(place):
    """Four of 2 ms after one of 20 ms: the next may take as long again."""
    sizes = _ChunkSizes(place, None)
    for pace in (0.02, *[0.002] * 4):
        sizes.learn_sending(1e-6, 1)
        sizes.learn(Report(0, [None], pace))
    assert sizes.next(None) <= 3


def test_a_longer_way_makes_longer_chunks(place, monkeypatch):
    """To an engine elsewhere tasks of 50 ms travel together."""
    monkeypatch.setattr(ff.ThreadExecutor, "stride", RemoteExecutor.stride)
    assert learned(place, 1e-3, 1e-4) == pytest.approx(50, abs=1)


@pytest.mark.parametrize(("seconds", "most"), [(0.001, 2), (0.008, 1)])
def test_a_busy_worker_has_one_more_chunk_of_short_tasks(seconds, most):
    """So it goes on while the driver is busy. Of longer tasks somebody else may be sooner."""

    def spin(_, seconds=seconds):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    given = []  # chunks of more than 7 ms that a worker has
    with ff.ProcessExecutor(2) as pool:
        for _ in ff.imap(spin, range(int(1 / seconds)), on=pool):
            with pool._pool._lock:
                workers = [list(one.outstanding.values()) for one in pool._pool._workers.values()]
            given += [sum(one.expected() > 7e-3 for one in chunks) for chunks in workers]
    assert max(given) == most
