"""WRONG: a pool without the guard. Where workers import this file, each begins a pool again.

python examples/learn/wrong_no_guard.py
"""

import multiprocessing


def addit(x: int) -> int:
    return x + 1


context = multiprocessing.get_context("spawn")  # as on macOS and Windows
process = context.Process(target=addit, args=(1,))
process.start()
process.join()
