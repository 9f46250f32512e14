"""What the tests run in interpreters: each of them imports this, so it imports next to nothing."""

from __future__ import annotations

import os
import threading


def where(_: object) -> tuple[int, int]:
    from concurrent import interpreters

    return os.getpid(), interpreters.get_current().id


def add_up(numbers: memoryview) -> tuple[int, bool]:
    return sum(numbers[::1_000_000]), numbers.readonly


def with_numpy(number: int) -> float:
    import numpy

    return float(numpy.sqrt(number))


def a_lock(_: object) -> object:
    return threading.Lock()


def gives_work(task: tuple[int, str]) -> list[int]:
    import fanfold as ff

    count, on = task
    return ff.map(_square, range(count), on=on)


def _square(number: int) -> int:
    return number * number


def fatal(number: int) -> int:
    if number == 3:
        os._exit(7)
    return number
