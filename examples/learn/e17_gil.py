"""The sum of 0 to 5 million, ten times: one after the other, on threads, on processes.

    python examples/learn/e17_gil.py

Threads take turns: the interpreter has one lock, the GIL. A free-threaded Python has none; where
one is found (`python3.14t` or `python3.13t` on the PATH), it runs the threads once more.
"""

import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable

TIMES, COUNT = 10, 5_000_000


def add_up(_: int = 0) -> int:
    return sum(range(COUNT))


def together(kind: type) -> None:
    """Ten threads or ten processes, started at once."""
    all_of_them = [kind(target=add_up) for _ in range(TIMES)]
    for one in all_of_them:
        one.start()
    for one in all_of_them:
        one.join()


def timed(name: str, work: Callable[[], object]) -> None:
    began = time.perf_counter()
    work()
    print(f"{name:22} {time.perf_counter() - began:.2f} s", flush=True)


def with_pool() -> None:
    with multiprocessing.Pool() as pool:
        pool.map(add_up, range(TIMES))


def with_fanfold() -> None:
    import fanfold as ff

    timed("fanfold, threads", lambda: ff.map(add_up, range(TIMES), on="threads"))
    timed("fanfold, processes", lambda: ff.map(add_up, range(TIMES), on="processes"))


def free_threaded() -> None:
    """The threads alone, in a Python without the lock."""
    found = shutil.which("python3.14t") or shutil.which("python3.13t")
    if found is None:
        print("no free-threaded Python is installed here")
        return
    subprocess.run([found, __file__, "threads"], check=True)


def main() -> None:
    if sys.argv[1:] == ["threads"]:
        timed("free-threaded Python", lambda: together(threading.Thread))
        return
    timed("serial", lambda: [add_up() for _ in range(TIMES)])
    timed(f"{TIMES} threads", lambda: together(threading.Thread))
    timed(f"{TIMES} processes", lambda: together(multiprocessing.Process))
    timed("a pool", with_pool)
    with_fanfold()
    free_threaded()


if __name__ == "__main__":
    main()
