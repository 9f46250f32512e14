"""A function, and a pool of two workers that calls it with three numbers at the same time.

python examples/learn/e01_addit.py
"""

import multiprocessing

import fanfold as ff


def addit(x: int) -> int:
    return x + 1


def main() -> None:
    print("one call:       ", addit(4))
    with multiprocessing.Pool(2) as pool:
        print("multiprocessing:", pool.map(addit, [1, 2, 3]))
    print("fanfold:        ", ff.map(addit, [1, 2, 3], workers=2))


if __name__ == "__main__":
    main()
