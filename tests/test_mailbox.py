"""Queues between threads."""

import queue
import threading

import pytest

from fanfold.mailbox import Mailbox


def test_nobody_waits_longer_than_he_was_told():
    """What is put comes out; where nothing comes the time is over, however short it is. (The queue
    of the standard library waits for ever in one of some thousand times.)"""
    box = Mailbox()
    for _ in range(20_000):
        box.put(1)
        assert box.get() == 1
        with pytest.raises(queue.Empty):
            box.get(timeout=1e-6)


def test_everything_comes_out_once():
    """Many threads put and many take: nothing is lost, nothing twice, and nobody sleeps beside a
    full box."""
    box, taken = Mailbox(), []

    def put(begin):
        for number in range(begin, begin + 2000):
            box.put(number)

    def take():
        while (item := box.get()) is not None:
            taken.append(item)

    takers = [threading.Thread(target=take) for _ in range(4)]
    putters = [threading.Thread(target=put, args=(2000 * n,)) for n in range(4)]
    for thread in [*takers, *putters]:
        thread.start()
    for thread in putters:
        thread.join()
    for _ in takers:
        box.put(None)
    for thread in takers:
        thread.join()
    assert sorted(taken) == list(range(8000))
    assert box.empty()


def test_in_order():
    """First in, first out."""
    box = Mailbox()
    for number in range(5):
        box.put(number)
    assert [box.get(timeout=1) for _ in range(5)] == list(range(5))
