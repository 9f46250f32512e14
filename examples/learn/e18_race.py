"""Ten processes count to 50 in one shared number: the lost updates, and how to lose none.

    python examples/learn/e18_race.py

``number += 1`` reads, adds, and writes. Who reads before another has written overwrites it.
"""

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import fanfold as ff

WORKERS, TIMES = 10, 50


def count(number: Any) -> None:
    for _ in range(TIMES):
        seen = number.value
        time.sleep(0.0002)  # some work between reading and writing
        number.value = seen + 1


def count_locked(number: Any, lock: Any) -> None:
    for _ in range(TIMES):
        with lock:
            number.value += 1


def plain(target: Callable[..., None], *more: Any) -> int:
    """Ten processes of multiprocessing, and what they counted together."""
    number = multiprocessing.Value("i", 0, lock=False)
    processes = [
        multiprocessing.Process(target=target, args=(number, *more)) for _ in range(WORKERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return number.value


def count_shared(number: ff.SharedValue) -> None:
    for _ in range(TIMES):
        with number.lock:
            number.value += 1


def add_shared(number: ff.SharedValue) -> None:
    for _ in range(TIMES):
        number.add(1)


def ours(func: Callable[[ff.SharedValue], None]) -> int:
    """Ten tasks on ten workers, and what they counted together."""
    with ff.SharedValue(0) as number:
        ff.map(func, [number] * WORKERS, on="processes", workers=WORKERS)
        return int(number.value)


def main() -> None:
    expected = WORKERS * TIMES
    counted = plain(count)
    print(f"without a lock: {counted} of {expected}; less than {expected}: {counted < expected}")
    print("with a lock:", plain(count_locked, multiprocessing.Lock()))
    counted = ours(count)
    print(f"fanfold, without a lock: {counted} of {expected}; less: {counted < expected}")
    print("fanfold, with its lock: ", ours(count_shared))
    print("fanfold, with add:      ", ours(add_shared))


if __name__ == "__main__":
    main()
