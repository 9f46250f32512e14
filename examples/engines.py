"""IPython engines: the same map by a direct view, by a load-balanced view, and by fanfold.

    python examples/engines.py --engines 4 --tasks 2000
    python examples/engines.py --profile default --tasks 2000

Without ``--profile`` the engines are started here, and end with the program.
"""

import argparse
import time
from collections.abc import Callable

import fanfold as ff


def minus(a: int, b: int) -> int:
    return a - b


def timed(name: str, work: Callable[[], list[int]], expected: list[int]) -> None:
    """Print how long ``work`` takes, when its results are the right ones."""
    began = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - began
    if list(found) != expected:
        raise SystemExit(f"{name} gave wrong results")
    print(f"{name:20} {seconds:8.3f} s  {1e6 * seconds / len(expected):8.1f} us a task")


def main() -> None:
    parser = argparse.ArgumentParser(description="One map on IPython engines, three ways.")
    parser.add_argument("--engines", type=int, default=4, help="how many to start or to use")
    parser.add_argument("--profile", help="join the cluster of this IPython profile")
    parser.add_argument("--tasks", type=int, default=2000)
    options = parser.parse_args()
    a, b = range(options.tasks), range(0, 2 * options.tasks, 2)
    expected = [minus(*pair) for pair in zip(a, b, strict=True)]
    with ff.EngineExecutor(options.engines, profile=options.profile) as engines:
        rc = engines.client
        print(f"{options.tasks} tasks on engines {rc.ids}")
        for way in ("direct view", "load-balanced view"):
            view = rc[:] if way == "direct view" else rc.load_balanced_view()
            timed(way, lambda view=view: view.map_sync(minus, a, b), expected)
        timed("fanfold", lambda: ff.map(minus, a, b, on=engines), expected)


if __name__ == "__main__":
    main()
