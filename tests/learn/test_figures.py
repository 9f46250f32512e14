"""What the pages say that things cost was measured, and the results are in the repository."""

import re
from pathlib import Path

import pytest
from tests.learn.exercises import LEARN, ROOT


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import learn_figures

    return learn_figures


def test_the_tables_are_what_was_measured(tool):
    """Each table of figures is made from benchmarks/results: python tools/learn_figures.py."""
    pages = tool.pages()
    assert {re.sub(r"^\d+-", "", page.stem) for page in pages} == set(tool.ROWS)
    for page in pages:
        assert page.read_text(encoding="utf-8") == tool.with_figures(page), page.name


def test_each_row_names_what_is_measured(tool):
    """A row is of a case, an entrant and a metric that the benchmark has."""
    for name, rows in tool.ROWS.items():
        for row in (tool.Row(*one) for one in rows):
            case = tool.CASES[row.case]
            assert row.entrant in {str(entrant) for entrant in case.entrants}, (name, row)
            assert row.metric in {metric.name for metric in case.metrics}, (name, row)


def test_a_figure_has_its_unit(tool, tmp_path, monkeypatch):
    """The median of the rounds of the latest measurement, in a unit that people read."""
    rounds = [{"mpiexec": {"start": 1.0, "message": seconds, "object": 2e-5}} for seconds in
              (9e-7, 7e-7, 8e-7)]  # fmt: skip
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    record = '{"date": "%s", "cases": {"ranks": {"rounds": %s}}}'
    old, new = str(rounds[:1]).replace("'", '"'), str(rounds).replace("'", '"')
    (results / "a.json").write_text(record % ("2026-01-02", new))
    (results / "b.json").write_text(record % ("2026-01-01", old))
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    assert tool.shown(tool.Row("", "ranks", "mpiexec", "message")) == "0.8 µs"
    assert tool.shown(tool.Row("", "ranks", "mpiexec", "start")) == "1 s"
    assert tool.shown(tool.Row("", "ranks", "fanfold mpi", "start")) is None
    assert tool.shown(tool.Row("", "look", "fanfold", "look")) is None


@pytest.mark.parametrize("page", sorted(LEARN.glob("[0-9]*.md")), ids=lambda page: page.stem)
def test_a_page_has_its_parts(page: Path):
    """What it is for, the plain way, fanfold's way, what it costs, what goes wrong, to try; and no
    more than a reader has patience for."""
    text = page.read_text(encoding="utf-8")
    parts = ["**What it is for.**", "## The plain way", "## fanfold's way", "## What it costs",
             "## What goes wrong in practice", "## Try it"]  # fmt: skip
    assert [part for part in parts if text.count(part) < 1] == []
    assert len(text.splitlines()) <= 165
