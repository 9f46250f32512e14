"""The benchmark itself: every case gives right answers and the page says what was measured.

Nothing here looks at a time: how fast a contender is, is for `python -m benchmarks.run` to say.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the benchmark is a part of the checkout, not of the package

from benchmarks import report, run  # noqa: E402
from benchmarks.cases import CASES  # noqa: E402
from benchmarks.cases.base import Case, Entrant, WrongAnswerError, check  # noqa: E402
from benchmarks.cases.makespan import greedy, lengths, lower_bound  # noqa: E402
from benchmarks.contenders import CONTENDERS  # noqa: E402
from benchmarks.evaluators import EVALUATORS  # noqa: E402
from benchmarks.keepers import KEEPERS  # noqa: E402
from benchmarks.queues import QUEUES  # noqa: E402
from benchmarks.readers import READERS  # noqa: E402
from benchmarks.summary import verdicts  # noqa: E402
from benchmarks.ways import WAYS  # noqa: E402

from fanfold.testing.functions import until  # noqa: E402

MEASURED = {name: case for name, case in CASES.items() if name != "regret-long"}  # as "regret"
PLAN = run.Plan(repeats=2, size="tiny", workers=2, limit=280, seed=0)


def sample_of(case: Case, contender: str) -> dict[str, float]:
    return run.measure_apart(case, Entrant(contender), PLAN.size, PLAN.workers, PLAN.limit)


def installed(contender: str) -> str:
    if not CONTENDERS[contender].installed():
        pytest.skip(f"{contender} is not installed: `python -m benchmarks.run` skips it too")
    return contender


@pytest.mark.parametrize("case", MEASURED.values(), ids=list(MEASURED))
def test_every_case_runs_with_fanfold(case: Case) -> None:
    """A case, in its tiny size, gets right results from fanfold and a number for each metric."""
    assert set(sample_of(case, installed(case.subject))) == {metric.name for metric in case.metrics}


@pytest.mark.parametrize("contender", CONTENDERS)
def test_every_contender_gives_the_right_answers(contender: str) -> None:
    """Every contender that is installed answers each case that it takes part in by its verbs."""
    name = installed(contender)
    usual = {"threads": ["large-results"], "bare processes": ["scaling"]}
    usual |= {keeper.name: ["runs"] for keeper in KEEPERS} | {"fanfold map": ["run-overhead"]}
    usual |= {queue.name: ["job-arrays"] for queue in QUEUES}
    usual |= {way.name: [way.case] for way in WAYS}
    usual |= {reader.name: ["large-mean"] for reader in READERS}
    usual |= {evaluator.name: ["expression-small"] for evaluator in EVALUATORS}
    usual |= {"vecdot": ["expression-sums"]}
    for case in usual.get(name, ["round-trip"]):
        if CASES[case].subject == name:
            continue  # that is tested above
        assert all(number >= 0 for number in sample_of(CASES[case], name).values())


def test_goals_name_what_is_there() -> None:
    """A goal speaks of a metric and a contender of its case, and has exactly one limit."""
    for case in CASES.values():
        for goal in case.goals:
            assert goal.metric in {metric.name for metric in case.metrics}
            assert goal.against in {None, *(entrant.contender for entrant in case.entrants)}
            assert (goal.at_least is None) != (goal.at_most is None)


def test_a_wrong_result_is_refused() -> None:
    """A contender that is quick and wrong gets no figure."""
    with pytest.raises(WrongAnswerError, match="result 1 should be 1, and is 7"):
        check([0, 7, 2], range(3))


def test_rounds_hold_every_entrant_and_failures_say_why() -> None:
    """A round has a sample of each entrant; who cannot take part is named, with the reason."""
    entrants = [Entrant("threads"), Entrant("ProcessPoolExecutor"), Entrant("bare processes")]
    found = run.run_case(CASES["round-trip"], entrants, PLAN)
    assert [set(samples) for samples in found["rounds"]] == [{"threads", "ProcessPoolExecutor"}] * 2
    assert found["failures"] == {"bare processes": "bare processes has no submit"}


def marked(mark: str) -> set[int]:
    """The processes, other than this one, that inherited this variable of the environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in process.environ():
                found.add(process.pid)
    return found - {os.getpid()}


def test_a_measurement_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit the measurement is ended with all its processes, and says so."""
    mark = f"FANFOLD_BENCHMARK_{os.getpid()}"
    monkeypatch.setenv(mark, "1")
    with pytest.raises(run.FailedError, match="stopped after 2 s"):
        run.measure_apart(CASES["makespan"], Entrant("ProcessPoolExecutor"), "full", 2, 2)
    until(lambda: not marked(mark), "all its processes to end")


def test_the_bounds_of_the_makespan() -> None:
    """No order beats the lower bound, and greedy in ascending order is a little above it."""
    work = lengths(64, 8)
    assert sum(work) == pytest.approx(8)
    assert work == sorted(work)
    assert lower_bound(work, 2) == pytest.approx(4)
    assert lower_bound([1, 1, 5], 2) == 5
    assert greedy([1, 2, 3], 2) == 4
    assert 4 < greedy(work, 2) < 1.05 * 4


def record(cases: dict[str, list[dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """A run as it is stored, with these rounds in its cases."""
    return {
        "date": "2026-01-01",
        "machine": {
            "cores": 2,
            "cpu": "A CPU",
            "memory_bytes": 16_000_000_000,
            "kernel": "Linux 6",
            "python": "CPython 3.11.7",
            "fanfold": "0.1.0",
            "packages": {"loky": "3.7.0", "ray": None},
        },
        "plan": {"repeats": 3, "size": "full", "workers": 2, "limit": 60, "seed": 0},
        "not_installed": ["ray"],
        "load": 0.05,
        "cases": {
            name: {"size": {}, "rounds": rounds, "failures": {"mpire": "stopped after 60 s"}}
            for name, rounds in cases.items()
        },
    }


def submits(fanfold: float, standard: float) -> dict[str, dict[str, float]]:
    return {"fanfold": {"rate": fanfold}, "ProcessPoolExecutor": {"rate": standard}}


def test_the_page_tells_every_goal() -> None:
    """Reached, not reached and not measured: all three are in the table, with the ratio."""
    rounds = [submits(100_000, 10_000), submits(144_000, 12_000), submits(99_000, 9_000)]
    text = report.section("example", record({"submits": rounds}))
    assert "| 11x (10 to 12) ProcessPoolExecutor | reached |" in text
    assert "| ≥ 10 times the rate of loky | — | not measured |" in text
    slow = report.section("example", record({"submits": [submits(90_000, 10_000)]}))
    assert "| 9x (9 to 9) ProcessPoolExecutor | **not reached** |" in slow


def test_the_page_names_machine_and_absentees() -> None:
    """What it ran on, who was not there and who failed stand beside the figures."""
    text = report.section("example", record({"submits": [submits(1.0, 1.0)]}))
    assert "A CPU, 2 cores" in text
    assert "loky 3.7.0" in text
    assert "Not installed, so not measured: ray" in text
    assert "- mpire: stopped after 60 s" in text


def test_a_ratio_is_taken_within_a_round() -> None:
    """A machine that is slow for one whole round does not change the ratio."""
    rounds = [submits(100.0, 10.0), submits(10.0, 1.0), submits(1000.0, 100.0)]
    first = next(verdicts(CASES["submits"], rounds))
    assert first.figure is not None
    assert (first.figure.low, first.figure.high) == (10.0, 10.0)


def test_the_best_chunk_size_is_the_one_to_beat() -> None:
    """Where a goal is against a tuned peer, its best entrant counts, not its default."""
    samples = {
        "fanfold": {"rate": 100.0},
        "multiprocessing.Pool": {"rate": 10.0},
        "multiprocessing.Pool, chunk 1000": {"rate": 200.0},
        "multiprocessing.Pool, chunk 5000": {"rate": 50.0},
    }
    first = next(verdicts(CASES["million"], [samples]))
    assert first.against == "multiprocessing.Pool, chunk 1000"
    assert first.word == "**not reached**"


def test_the_page_in_docs_is_the_one_of_the_results() -> None:
    """docs/benchmarks.md is what `python -m benchmarks.report` writes."""
    assert (ROOT / "docs" / "benchmarks.md").read_text() == report.page()
