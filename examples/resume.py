"""A run that you can kill: whatever dies, the same command goes on where it stands.

    python examples/resume.py            # end it with Ctrl-C, or with kill -9 from another terminal
    python examples/resume.py            # it goes on, and does nothing twice
    fanfold status long-sum              # from anywhere, meanwhile or afterwards
    fanfold report long-sum --html report.html

Task 13 crashes its worker the first time: only that task fails, and the next start tries it again.
"""

import argparse
import os
import signal
import time
from pathlib import Path

import fanfold as ff


def add_up(n: int, seconds: float, crashed: str) -> int:
    """A task that takes its time, and says so."""
    print(f"adding up to {n}")
    time.sleep(seconds)
    if n == 13 and not os.path.exists(crashed):
        Path(crashed).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return n * (n + 1) // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.5, help="that a task takes")
    options = parser.parse_args()
    crashed = os.path.abspath("long-sum.crashed")
    inputs = [(n, options.seconds, crashed) for n in range(options.tasks)]

    run = ff.run(lambda task: add_up(*task), inputs, name="long-sum", retries=0)
    before = run.status()
    if before.done:
        print(f"{before.done} of {before.total} were done before")
    run.wait()

    status = run.status()
    print(f"{status.state}: {status.done} of {status.total} done, {status.failed} failed")
    for failure in run.failures():
        print(f"task {failure.index}: {failure.kind}: {failure.message}")
        print(f"  it printed last: {failure.log[-1:]}")
    print("sum of what is done:", sum(out.value for out in run.outcomes() if out.ok))


if __name__ == "__main__":
    main()
