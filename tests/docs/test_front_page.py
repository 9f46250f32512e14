"""The README and the comparison: every figure was measured, and every claim can be looked up."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # the benchmark is a part of the checkout, not of the package

from benchmarks import report  # noqa: E402
from benchmarks.summary import figure, ratio  # noqa: E402

README = (ROOT / "README.md").read_text()
COMPARISON = (ROOT / "docs/comparison.md").read_text()


# Figures ------------------------------------------------------------------------------------------


def rounds_of(case):
    """The rounds of the latest measurement of a case."""
    records = [json.loads(path.read_text()) for path in ROOT.glob("benchmarks/results/*.json")]
    dated = [(record["date"], record["cases"][case]["rounds"]) for record in records
             if case in record["cases"]]  # fmt: skip
    return max(dated, key=lambda one: one[0])[1]


def says(text, value):
    """Whether the number in a text is the value, rounded to the digits that it shows."""
    shown = re.match(r"[\d ]*\d(\.\d+)?", text)[0].replace(" ", "")
    if "." in shown:
        return round(value, len(shown.partition(".")[2])) == float(shown)
    zeros = len(shown) - len(shown.rstrip("0"))
    return any(round(value, -digits) == int(shown) for digits in range(zeros + 1))


def test_rounding_is_recognized():
    """A figure may be rounded, and not be another one."""
    assert says("0.19", 0.194)
    assert says("14 000 times", 14_296)
    assert says("1 194 times", 1193.7)
    assert not says("0.20", 0.194)
    assert not says("14 000", 14_600)
    assert not says("12", 12.6)


def table(text, title):
    """The rows of the table whose first cell of the header is this, its header first."""
    found = re.search(
        rf"^\| ?{re.escape(title)} ?\|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE
    )
    lines = [found[0].splitlines()[0], *found[1].splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# What a row of README's table is in the results: its case, and the metric that is compared.
ROWS = {
    "20 000 no-op submits, rate": ("submits", "rate"),
    "one `submit(...).result()` after another, time": ("round-trip", "time"),
    "`map` over 1 000 000 ints, untuned, rate": ("million", "rate"),
    "60 results of 20 MB, time": ("large-results", "time"),
    "200 tasks over a `partial` of 100 MB, time": ("partial-100", "time"),
    "first result of a fresh pool, time": ("startup", "time"),
}


def test_the_table_of_speeds_is_what_was_measured():
    """Each ratio in README's table is the median of the rounds in benchmarks/results."""
    header, *rows = table(README, "fanfold against")
    speeds = {row[0]: row[1:] for row in rows if not row[0].startswith("faults of 19")}
    assert set(speeds) == set(ROWS)
    for name, cells in speeds.items():
        case, metric = ROWS[name]
        for peer, cell in zip(header[1:], cells, strict=True):
            measured = ratio(rounds_of(case), "fanfold", peer, metric)
            if measured is None:
                assert not re.match(r"\d", cell), (name, peer)
            else:
                assert says(cell, measured.median), (name, peer, cell, measured.median)


def test_the_row_of_faults_is_the_last_of_the_grid():
    """How many faults README says each survives stands under the grid."""
    faults = (ROOT / "docs/reference/faults.md").read_text()
    header, *rows = table(faults, "fault in task 7")
    sums = dict(zip(header, (cell.strip("*") for cell in rows[-1]), strict=True))
    grid = {
        "multiprocessing.Pool": "mp.Pool",
        "ProcessPoolExecutor": "PPE",
        "fanfold": "fanfold map",
    }
    header, *rows = table(README, "fanfold against")
    [row] = [row for row in rows if row[0].startswith("faults of 19")]
    assert f"(fanfold: {sums[grid['fanfold']]})" in row[0]
    for peer, cell in zip(header[1:], row[1:], strict=True):
        assert cell == sums[grid.get(peer, peer)], peer


# A sentence of the README, with its figure, and what it is the ratio of.
RUN, ARRAY = ("runs", "fanfold run", "rate"), ("job-arrays", "fanfold on Slurm", "rate")
SENTENCES = [
    (r"([\d ]+) times as fast as with\s+`joblib.Memory`", *RUN, "joblib.Memory"),
    (r"([\d ]+) times as fast as with\s+GNU parallel", *RUN, "GNU parallel --joblog"),
    (r"([\d ]+) times as fast as with\s+submitit", *RUN, "submitit (local)"),
    (r"take\s+([\d.]+)\s+times as long, and submitit", *ARRAY, "dask-jobqueue"),
    (r"every task is an element, ([\d ]+) times", *ARRAY, "submitit map_array"),
    (r"tasks of 10 ms take ([\d.]+) times", "job-arrays", "fanfold on Slurm", "over_work", None),
]


@pytest.mark.parametrize(("pattern", "case", "ours", "metric", "theirs"), SENTENCES)
def test_a_sentence_tells_what_was_measured(pattern, case, ours, metric, theirs):
    """Each figure in README's sentences is the median of the rounds in benchmarks/results."""
    found = re.search(pattern, README)
    assert found, f"README does not say {pattern}; change it here too"
    rounds = rounds_of(case)
    measured = ratio(rounds, ours, theirs, metric) if theirs else figure(rounds, ours, metric)
    assert says(found[1].strip(), measured.median), (found[1], measured.median)


def test_the_page_of_benchmarks_is_up_to_date():
    """docs/benchmarks.md is what `python -m benchmarks.report` makes of the results."""
    assert (ROOT / "docs/benchmarks.md").read_text() == report.page()


# The comparison -----------------------------------------------------------------------------------


def shown(cell):
    """A cell as it is read: without its links."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell)


def test_every_cell_of_the_comparison_can_be_looked_up():
    """A cell of the comparison has a link, or nobody found anything to link, and it is empty.

    What is said of fanfold itself is shown by a file of this repository, and nothing is empty.
    """
    tables = re.findall(r"^\| \| fanfold .*\n\|[-|]+\n((?:\|.*\n)+)", COMPARISON, re.MULTILINE)
    assert len(tables) == 2
    for rows in tables:
        for row in rows.splitlines():
            name, ours, *theirs = (cell.strip() for cell in row.strip("|").split("|"))
            assert re.search(r"\]\((?!https?:)", ours), name
            for cell in theirs:
                assert not cell or "](" in cell or cell == "all of them", (name, cell)


def test_the_short_form_says_the_same():
    """A row of the comparison in the README is a row of the page, cell by cell."""
    page = {row[0]: [shown(cell) for cell in row] for row in table(COMPARISON, "")}
    header, *rows = table(README, "")
    assert len(rows) >= 5
    assert header == page[""]
    for row in rows:
        assert row == page[row[0]]


def test_the_chart_is_that_of_the_guide():
    """The study that README shows is the one of docs/guides/scaling-study.md, line by line."""
    guide = (ROOT / "docs/guides/scaling-study.md").read_text().splitlines()
    [shown] = re.findall(r"```\n(\$ fanfold scale .*?)```", README, re.DOTALL)
    for line in shown.splitlines():
        assert line in guide
