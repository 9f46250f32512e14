"""Fork a child, wait for it, let it become another program; and programs as tasks.

    python examples/learn/e16_fork.py

`os.fork` is there on Linux and macOS, and not on Windows.
"""

import os
import sys
import time
from collections.abc import Callable

import fanfold as ff

TIMES = 10


def hello() -> None:
    """Parent and child go on at the same line, each with memory of its own."""
    answer = 42
    child = os.fork()
    if child == 0:  # this is the child
        answer += 1
        print(f"Hello from {os.getpid()}: answer is {answer}", flush=True)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    print(f"Hello from parent {os.getpid()} {child}: answer is still {answer}")
    print("the child ended with exit status", os.waitstatus_to_exitcode(status), flush=True)


def become(*program: str) -> None:
    """The child becomes another program; only its number, its folder and its open files stay."""
    child = os.fork()
    if child == 0:
        try:
            os.execvp(program[0], program)
        finally:  # there is no such program: without this line the child would go on as a parent
            os._exit(127)
    _, status = os.waitpid(child, 0)
    print(program[0], "ended with", os.waitstatus_to_exitcode(status), flush=True)


def programs_as_tasks() -> None:
    """No fork, no exec, no wait: a program is a function, and its output is the result."""
    print(ff.map(ff.command("expr {} + 1"), [1, 2, 3]))
    script = 'case $1 in 2) exit 4;; 3) kill -9 $$;; esac; echo "well done, $1"'
    tried = ff.command(["sh", "-c", script, "sh", "{}"])
    for result in ff.map(tried, [1, 2, 3], errors="return"):
        if isinstance(result, ff.CommandFailed):
            print(
                "failed: exit status",
                result.exitcode,
                "signal",
                result.signal and result.signal.name,
            )
        else:
            print(result)


def timed(name: str, start: Callable[[], int]) -> None:
    """The mean time to start so many, one after the other, and to wait for each."""
    began = time.perf_counter()
    for _ in range(TIMES):
        start()
    print(f"{name}: {1000 * (time.perf_counter() - began) / TIMES:.1f} ms")


def fork_alone() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    return os.waitpid(child, 0)[1]


def costs() -> None:
    timed("a fork", fork_alone)
    timed("a program", lambda: os.spawnlp(os.P_WAIT, "true", "true"))
    timed("a Python", lambda: os.spawnl(os.P_WAIT, sys.executable, "python", "-c", ""))


def main() -> None:
    hello()
    become("echo", "Hello from another program")
    become("no-such-program")
    programs_as_tasks()
    costs()


if __name__ == "__main__":
    sys.stdout.flush()  # what waits in the buffer would be printed by parent and child
    main()
