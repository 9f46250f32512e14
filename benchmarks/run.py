"""Run the benchmark: rounds over the contenders, each measurement in a fresh process.

A first round in the tiny size warms the disk and finds who cannot take part; it is not counted.
Then every round goes through all entrants of a case in a new random order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil

from benchmarks import report
from benchmarks.cases import CASES
from benchmarks.cases.base import Case, Entrant, Sample
from benchmarks.contenders import CONTENDERS
from benchmarks.machine import ROOT, load, machine

RESULTS = ROOT / "benchmarks" / "results"


class FailedError(Exception):
    """A measurement gave no sample; the message says why."""


@dataclass(frozen=True)
class Plan:
    """How to measure: how often, how large, with how many workers, at most how many seconds."""

    repeats: int
    size: str
    workers: int
    limit: float
    seed: int


def measure_apart(case: Case, entrant: Entrant, size: str, workers: int, limit: float) -> Sample:
    """One sample, measured by a driver process of its own; `FailedError` when there is none."""
    with tempfile.TemporaryDirectory() as folder:
        into, log = Path(folder, "sample.json"), Path(folder, "log")
        order = {
            "case": case.name,
            "contender": entrant.contender,
            "chunk": entrant.chunk,
            "size": size,
            "workers": workers,
            "into": str(into),
        }
        command = [sys.executable, "-m", "benchmarks.measure", json.dumps(order)]
        with log.open("wb") as output:
            driver = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, env=_environment()
            )
            in_time = _ended_in_time(driver, limit)
        if not in_time:
            raise FailedError(f"stopped after {limit:.0f} s")
        if not into.exists():
            raise FailedError(_last_line(log))
        said: dict[str, Any] = json.loads(into.read_text())
    if "failed" in said:
        raise FailedError(said["failed"])
    return cast(Sample, said["sample"])


def _environment() -> dict[str, str]:
    """Ours; but Python may keep the bytecode that it has compiled in the first round: packages that
    were installed come with theirs, and in a checkout it would be compiled in every process."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _ended_in_time(driver: subprocess.Popen[bytes], limit: float) -> bool:
    try:
        driver.wait(limit)
    except subprocess.TimeoutExpired:
        _end_tree(driver)
        return False
    except BaseException:
        _end_tree(driver)
        raise
    return True


def _end_tree(driver: subprocess.Popen[bytes]) -> None:
    """End the driver and all it has started; first it is held, so that it starts nothing more."""
    top = psutil.Process(driver.pid)
    top.suspend()
    family = [*top.children(recursive=True), top]
    for process in family:
        process.kill()
    driver.wait()
    psutil.wait_procs(family, timeout=10)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "ended without a sample and without a word"


def run_case(case: Case, entrants: list[Entrant], plan: Plan) -> dict[str, Any]:
    """All rounds of a case: ``{"rounds": [{entrant: sample}], "failures": {entrant: reason}}``."""
    rounds: list[dict[str, Sample]] = []
    failures: dict[str, str] = {}
    order = random.Random(plan.seed)
    for number in range(plan.repeats + 1):
        size = plan.size if number else "tiny"
        samples = {}
        for entrant in order.sample(entrants, len(entrants)):
            if str(entrant) in failures:
                continue
            try:
                sample = measure_apart(case, entrant, size, plan.workers, plan.limit)
            except FailedError as error:
                failures[str(entrant)] = str(error)
                say(f"  {entrant}: {error}")
                continue
            samples[str(entrant)] = sample
        if number:
            rounds.append(samples)
            say(f"  round {number} of {plan.repeats}")
    return {"size": case.sizes[plan.size], "rounds": rounds, "failures": failures}


def run(cases: list[Case], contenders: list[str], plan: Plan, into: Path | None) -> dict[str, Any]:
    """All cases; what is known is kept after each of them."""
    missing = [name for name in contenders if not CONTENDERS[name].installed()]
    present = set(contenders) - set(missing)
    for name in missing:
        say(f"{name} is not installed, and does not take part")
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "plan": vars(plan),
        "not_installed": missing,
        "load": load(),
        "cases": {},
    }
    for case in cases:
        say(f"{case.name}: {case.title}")
        entrants = [entrant for entrant in case.entrants if entrant.contender in present]
        record["cases"][case.name] = run_case(case, entrants, plan)
        if into is not None:
            into.parent.mkdir(exist_ok=True)
            into.write_text(json.dumps(record, indent=1) + "\n")
    return record


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def names(known: dict[str, Any], what: str) -> Any:
    """A converter of ``a,b`` for argparse that knows which names there are."""

    def convert(text: str) -> list[str]:
        asked = text.split(",")
        for name in asked:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is not a {what}; there are: {', '.join(known)}"
                )
        return asked

    return convert


def parser() -> argparse.ArgumentParser:
    default = [name for name, case in CASES.items() if case.by_default]
    options = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    option = options.add_argument
    option("--list", action="store_true", help="show the cases and their entrants")
    option("--cases", type=names(CASES, "case"), default=default, metavar="A,B")
    option("--contenders", type=names(CONTENDERS, "contender"), default=list(CONTENDERS))
    option("--repeats", type=int, default=5, help="counted rounds (default 5)")
    option("--workers", type=int, default=2, help="workers of a pool (default 2)")
    option("--limit", type=float, default=600, help="seconds for one measurement (default 600)")
    option("--seed", type=int, default=0, help="of the random order (default 0)")
    option("--size", choices=["full", "quick", "tiny"], default="full")
    option("--quick", dest="size", action="store_const", const="quick", help="--size quick")
    option("--name", help="keep benchmarks/results/NAME.json; without it, only print")
    return options


def main() -> None:
    asked = parser().parse_args()
    cases = [CASES[name] for name in asked.cases]
    if asked.list:
        for case in cases:
            print(f"{case.name}: {case.title}\n    {'; '.join(map(str, case.entrants))}")
        return
    plan = Plan(asked.repeats, asked.size, asked.workers, asked.limit, asked.seed)
    into = RESULTS / f"{asked.name}.json" if asked.name else None
    record = run(cases, asked.contenders, plan, into)
    print(report.section(asked.name or "not kept", record))


if __name__ == "__main__":
    main()
