"""A job array without a script: ten tasks, each with a folder and a log of its own.

    fanfold run examples/learn/e05_array.py:demo --range 1-10 --on pbs --elements 2
    python examples/learn/e05_array.py pbs

The scheduler is told in one word: pbs, slurm, or local for this machine.
"""

import sys
from pathlib import Path

import fanfold as ff


def demo(number: int) -> str:
    """What one task does."""
    text = f"This is job number {number} in the array"
    folder = Path(f"Demo{number}")
    folder.mkdir(exist_ok=True)
    (folder / f"job{number}.log").write_text(f"{text}\n")
    return text


def main(place: str) -> None:
    run = ff.run(demo, range(4, 26, 3), on=place, name="stepped")
    print(*run.wait().results(), sep="\n")
    print(run.status().state)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "local")
