"""IPython engines, line by line: processes that keep their variables, one by one or all at once.

python examples/learn/e20_engines.py
"""

import numpy as np

import fanfold as ff


def minus(a: int, b: int) -> int:
    return a - b


def main() -> None:
    with ff.EngineExecutor(4) as engines:
        rc = engines.client  # ipyparallel's own
        print("ids", rc.ids)

        # a direct view: engines that are named
        everyone = rc[:]
        print("one", rc[0].apply_sync(minus, 5, 6))
        print("all", everyone.apply_sync(minus, 5, 6))
        print("map", everyone.map_sync(minus, [11, 10, 9, 8], [5, 6, 7, 8]))
        later = everyone.map_async(minus, [11, 10, 9, 8], [5, 6, 7, 8])
        print("map, not blocking", later.get())

        # a load-balanced view: the engine that is free
        balanced = rc.load_balanced_view()
        print("balanced", balanced.map_sync(minus, [11, 10, 9, 8], [5, 6, 7, 8]))
        later = balanced.map_async(minus, [11, 10, 9, 8], [5, 6, 7, 8])
        print("balanced, not blocking", later.get())

        # fanfold: the same map as everywhere
        print("fanfold", ff.map(minus, [11, 10, 9, 8], [5, 6, 7, 8], on=engines))
        print("fanfold, not blocking", engines.submit(minus, 5, 6).result())

        # variables that stay
        everyone.push({"base": 10}, block=True)
        everyone.execute("power = base ** 2", block=True)
        print("pull", everyone.pull("power", block=True))
        rc[1]["base"] = 2  # push by dictionary
        print("base", everyone["base"])

        # a sequence dealt out, and put together again
        everyone.scatter("a", np.arange(16), block=True)
        print("scatter", *everyone.pull("a", block=True))
        print("gather", everyone.gather("a", block=True))


if __name__ == "__main__":
    main()
