"""What tasks print is kept task by task, wherever they run.

fanfold run examples/learn/e06_logs.py:demo --range 1-10 --on pbs --elements 2 --name logs
fanfold logs logs 6
"""

import sys
import time

import fanfold as ff


def demo(number: int) -> int:
    time.sleep(0.1)  # stands for the work
    print(f"This is job number {number} in the array")
    if number % 5 == 0:
        print(f"{number} is a multiple of five", file=sys.stderr)
    return number


def main() -> None:
    run = ff.run(demo, range(1, 11), name="logs")
    print(run.wait().status().done, "done; read them with: fanfold logs logs")


if __name__ == "__main__":
    main()
