"""Work for minutes while workers are killed at random, and count: ``python tools/soak.py``.

Three parts, each with its checks; the exit code is 1 when one of them fails.

1. Tasks of 1 to 5 ms, undisturbed: their rate is the measure for the next part.
2. The same while somebody kills workers with SIGKILL at random times. Every result must be right,
   and arrive exactly once; a task may run again only if the worker that ran it was killed.
3. Many tasks that do nothing: the driver's memory must not grow.

After all of it nothing may be left: processes, threads, descriptors, names in shared memory.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

import fanfold as ff
from fanfold.api import reports
from fanfold.testing import leaks

MEBIBYTE = 1 << 20


def work(n: int, log: Path) -> int:
    """A task of 1 to 5 ms that leaves a line in the log when it begins."""
    with log.open("ab", buffering=0) as out:
        out.write(b"%d %d\n" % (n, os.getpid()))
    time.sleep(0.001 + n * 7919 % 4001 * 1e-6)
    return n * n


def nothing(n: int) -> int:
    return n


@contextmanager
def killer(pool: ff.ProcessExecutor, kills: int, seconds: float, seed: int) -> Iterator[list[int]]:
    """Kill ``kills`` workers at random times within about ``seconds``; the list of their ids."""
    chance = random.Random(seed)
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < kills and not over.wait(chance.expovariate(kills / seconds)):
            for pid in chance.sample(pool.process_ids() or [0], 1):
                with suppress(ProcessLookupError):
                    if pid:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

    thread = threading.Thread(target=kill, name="killer")
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


class Soak:
    """A pool under test, and what was found wrong."""

    def __init__(self, workers: int, seed: int, folder: Path) -> None:
        self.wrong: list[str] = []
        self._pool = ff.ProcessExecutor(workers)
        self._seed = seed
        self._folder = folder
        self._memory = 0

    def check(self, right: bool, what: str) -> None:
        if not right:
            self.wrong.append(what)

    def undisturbed(self, tasks: int) -> float:
        """Seconds a task takes; the driver's memory from here on is compared with that now."""
        seconds, _ = self._run(tasks, [])
        self._memory = psutil.Process().memory_info().rss
        print(f"undisturbed: {tasks:,} tasks in {seconds:.1f} s", flush=True)
        return seconds / tasks

    def disturbed(self, tasks: int, kills: int, pace: float) -> None:
        with killer(self._pool, kills, 0.8 * tasks * pace, self._seed) as killed:
            seconds, runs = self._run(tasks, killed)
        share = pace * tasks / seconds
        print(
            f"disturbed: {tasks:,} tasks in {seconds:.1f} s ({share:.0%} of the undisturbed rate), "
            f"{len(killed)} workers killed, {runs - tasks} tasks run again",
            flush=True,
        )
        self.check(len(killed) >= kills / 4, f"only {len(killed)} of {kills} kills took place")

    def _run(self, tasks: int, killed: list[int]) -> tuple[float, int]:
        log = self._folder / f"log-{time.monotonic_ns()}"
        log.touch()
        began = time.monotonic()
        arrived: Counter[int] = Counter()
        inputs = [(n, log) for n in range(tasks)]
        options = {"style": "star", "retries": 50, "progress": False}  # strangers kill at any rate
        for report in reports(work, inputs, on=self._pool, **options):
            for outcome in report.outcomes():
                arrived[outcome.index] += 1
                n = outcome.index
                self.check(outcome.ok and outcome.value == n * n, f"task {n}: {outcome}")
        seconds = time.monotonic() - began
        self.check(arrived == Counter(range(tasks)), "results did not arrive once each")
        runs = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
        self._check_runs(tasks, runs, set(killed))
        return seconds, len(runs)

    def _check_runs(self, tasks: int, runs: list[tuple[int, ...]], killed: set[int]) -> None:
        whole = Counter(n for n, pid in runs if pid not in killed)
        self.check(max(whole.values()) == 1, "a task ran again although its worker lived")
        self.check({n for n, _ in runs} == set(range(tasks)), "a task never ran")
        twice = [run for run, count in Counter(runs).items() if count > 1]
        self.check(not twice, f"a worker ran the same task twice: {twice[:5]}")

    def idle_tasks(self, tasks: int) -> None:
        began = time.monotonic()
        results = ff.imap_unordered(nothing, range(tasks), on=self._pool)
        self.check(sum(results) == sum(range(tasks)), "the sum of the idle tasks is wrong")
        seconds = time.monotonic() - began
        growth = psutil.Process().memory_info().rss - self._memory
        print(
            f"idle: {tasks:,} tasks in {seconds:.1f} s; "
            f"the driver grew by {growth / MEBIBYTE:.1f} MiB since part 1",
            flush=True,
        )
        self.check(growth < 20 * MEBIBYTE, f"the driver grew by {growth:,} bytes")

    def end(self) -> None:
        zombies = [
            child
            for child in psutil.Process().children(recursive=True)
            if child.status() == psutil.STATUS_ZOMBIE
        ]
        self.check(not zombies, f"zombies: {zombies}")
        self._pool.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--tasks", type=int, default=20_000, help="tasks of parts 1 (a fifth) and 2"
    )
    parser.add_argument("--kills", type=int, default=400, help="workers to kill in part 2")
    parser.add_argument("--idle", type=int, default=1_000_000, help="tasks of part 3")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.workers} workers", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, leaks() as left:
        soak = Soak(options.workers, options.seed, Path(folder))
        pace = soak.undisturbed(options.tasks // 5)
        soak.disturbed(options.tasks, options.kills, pace)
        soak.idle_tasks(options.idle)
        soak.end()
    wrong = [*soak.wrong, *(f"left behind: {thing}" for thing in left)]
    for what in wrong[:20]:
        print(f"WRONG: {what}")
    print("all is well" if not wrong else f"{len(wrong)} things are wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
