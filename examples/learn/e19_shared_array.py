"""Ten workers and one array: worker i negates element i.

python examples/learn/e19_shared_array.py
"""

import multiprocessing
from typing import Any

import numpy as np

import fanfold as ff


def negate(array: Any, i: int) -> None:
    array[i] = -array[i]


def plain(array: Any) -> list[float]:
    """A process for each element."""
    processes = [multiprocessing.Process(target=negate, args=(array, i)) for i in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return list(array)


def main() -> None:
    print("not shared:     ", plain([float(i) for i in range(10)]))
    print("multiprocessing:", plain(multiprocessing.Array("d", range(10))))
    with ff.share(np.arange(10.0), writable=True) as array:
        ff.starmap(negate, [(array, i) for i in range(10)], on="processes", workers=2)
        print("fanfold:        ", array.tolist())


if __name__ == "__main__":
    main()
