"""A run that you can kill: whatever dies, the same command goes on where it stands.

    python examples/resume.py       # end it with Ctrl-C, or with kill -9 from another terminal
    python examples/resume.py       # it goes on, and does nothing twice

and from anywhere, meanwhile or afterwards:

    fanfold status squares
    fanfold logs squares 7
    fanfold report squares --html report.html
"""

import argparse
import time

import fanfold as ff


def square(n: int) -> int:
    """A task that takes its time, and says what it does."""
    print(f"squaring {n}")
    time.sleep(0.5)
    return n * n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=40)
    options = parser.parse_args()

    run = ff.run(square, range(options.tasks), name="squares", workers=2)
    done = run.status().done
    print(f"{done} of {options.tasks} were done before" if done else "a new run", flush=True)
    results = run.results()
    print(f"all {len(results)} are done; their sum is {sum(results)}")


if __name__ == "__main__":
    main()
