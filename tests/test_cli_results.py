"""Results of a command: as cells, JSON, a table, a file, and the words told about them."""

import dataclasses
import io
import json
import os
import stat
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from fanfold.cli.inputs import Inputs
from fanfold.cli.results import JsonLines, check_out, print_table, tabulate, write_out
from fanfold.cli.summary import failure_lines, summary_lines
from fanfold.errors import RemoteTraceback, UsageError, WorkerDied
from fanfold.runs.values import as_cell, as_columns, as_json, to_json
from fanfold.tasks import Outcome


@dataclasses.dataclass
class Fit:
    slope: float
    points: int


Pair = namedtuple("Pair", "low high")


class Raising:
    """Its repr raises, as a half-built object's may, or as Ctrl-C makes any."""

    def __init__(self, error):
        self.error = error

    def __repr__(self):
        raise self.error


def outcome(index, value=None, error=None, seconds=1.0, worker="w1", attempt=1, memory=0):
    return Outcome(index, value, error, seconds, attempt, worker, memory)


NUMBERS = Inputs(range(10, 20), "one", ("input",))


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.int8(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array([1.0, np.nan]), [1.0, "nan"]),
        (np.array(5), 5),
        (np.longdouble(1), "1.0"),
        (np.complex128(1j), "1j"),
        ((1, {"a": np.float32(0.5)}), [1, {"a": 0.5}]),
        (float("-inf"), "-inf"),
        (True, True),
        ({1: 2}, {"1": 2}),
        ({3}, "{3}"),
        (b"x", "b'x'"),
        (Path("a/b"), "a/b"),
        (Fit(0.5, 3), {"slope": 0.5, "points": 3}),
        (Pair(1, 2), {"low": 1, "high": 2}),
        ("\ud800", "\ud800"),
    ],
)
def test_values_as_json(value, plain):
    """NumPy's numbers and arrays are numbers and lists; what JSON cannot hold is its repr."""
    assert as_json(value) == plain
    assert json.loads(to_json(as_json(value))) == plain


def test_a_repr_that_raises():
    """A value whose repr raises is still shown, by its type."""
    assert as_json(Raising(RuntimeError("half built"))).startswith("<Raising")


def test_values_too_deep_or_too_long_for_json():
    """Lists in lists without end, and integers that Python will not write, do no harm."""
    endless: list = []
    endless.append(endless)
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep, 10**5000):
        assert json.loads(to_json(as_json(value)))


def test_named_parts_are_columns():
    """A dictionary, a named tuple and a dataclass give a column a part; anything else gives one."""
    assert as_columns({"a": 1}) == {"a": 1}
    assert as_columns(Pair(1, 2)) == {"low": 1, "high": 2}
    assert as_columns(Fit(0.5, 3)) == {"slope": 0.5, "points": 3}
    assert as_columns({1: 2}) == {"result": {1: 2}}
    assert as_columns({}) == {"result": {}}
    assert as_columns("text") == {"result": "text"}


def test_text_is_its_own_cell():
    """A result that is text is shown as it is, without quotes."""
    assert as_cell("2013 01 1301.0 ['JFK']") == "2013 01 1301.0 ['JFK']"


# The table ----------------------------------------------------------------------------------------


def test_the_table_holds_what_is_done():
    """The table has index, input and result of the tasks that are done, failed ones not."""
    table = tabulate(NUMBERS, [outcome(0, "a"), outcome(1, error=ValueError())], errors=False)
    assert table.header == ["index", "input", "result"]
    assert table.rows == [[0, 10, "a"]]


def test_columns_of_different_results():
    """Results with different parts have all of them as columns, empty where a part is missing."""
    table = tabulate(NUMBERS, [outcome(0, {"a": 1}), outcome(1, {"b": 2})], errors=False)
    assert table.header == ["index", "input", "a", "b"]
    assert table.rows == [[0, 10, 1, None], [1, 11, None, 2]]


def test_no_two_columns_have_one_name():
    """A part named like an input, or like fanfold's own columns, gets a longer name."""
    inputs = Inputs([{"x": 1, "index": 2}], "keywords", ("x", "index"))
    table = tabulate(inputs, [outcome(0, {"x": 3, "error": 4})], errors=True)
    assert table.header == ["index", "x", "input.index", "result.x", "result.error", "error"]
    assert table.rows == [[0, 1, 2, 3, 4, ""]]


def test_a_piped_table_is_one_line_a_task():
    """Elsewhere than in a terminal cells are joined by tabs, and hold no tab or line end."""
    file = io.StringIO()
    print_table(tabulate(NUMBERS, [outcome(0, "a\tb\nc\r")], errors=False), file)
    assert file.getvalue() == "index\tinput\tresult\n0\t10\ta\\tb\\nc\\r\n"


def test_no_result_no_table():
    """When no task is done there is no table, not even its header."""
    file = io.StringIO()
    print_table(tabulate(NUMBERS, [outcome(1, error=ValueError())], errors=False), file)
    assert file.getvalue() == ""


def test_json_lines_come_in_order():
    """Records are written in the order of the inputs, each as soon as it is its turn."""
    file = io.StringIO()
    lines = JsonLines(NUMBERS, file)
    lines.add(outcome(1, "b"))
    assert file.getvalue() == ""
    lines.add(outcome(0, error=ValueError("no")))
    lines.add(outcome(3, "d"))
    lines.finish()
    assert [json.loads(line) for line in file.getvalue().splitlines()] == [
        {"index": 0, "input": 10, "error": "ValueError: no"},
        {"index": 1, "input": 11, "result": "b"},
        {"index": 3, "input": 13, "result": "d"},
    ]


# The file -----------------------------------------------------------------------------------------

OUTCOMES = [outcome(0, 'say "a", b'), outcome(1, error=ZeroDivisionError("x/0"))]
RECORDS = [
    {"index": 0, "input": 10, "result": 'say "a", b'},
    {"index": 1, "input": 11, "error": "ZeroDivisionError: x/0"},
]


def test_out_csv(tmp_path):
    """A .csv has the table with a last column for errors."""
    path = tmp_path / "out.csv"
    write_out(str(path), NUMBERS, OUTCOMES)
    assert path.read_text() == (
        'index,input,result,error\n0,10,"say ""a"", b",\n1,11,,ZeroDivisionError: x/0\n'
    )


def test_out_json(tmp_path):
    """A .json is one array, a .jsonl one record a line."""
    path = tmp_path / "out.json"
    write_out(str(path), NUMBERS, OUTCOMES)
    assert json.loads(path.read_text()) == RECORDS
    path = tmp_path / "out.jsonl"
    write_out(str(path), NUMBERS, OUTCOMES)
    assert [json.loads(line) for line in path.read_text().splitlines()] == RECORDS


def test_out_takes_any_text(tmp_path):
    """Text that no encoding holds (a file name that is not UTF-8) does not spoil the file."""
    path = tmp_path / "out.json"
    write_out(str(path), NUMBERS, [outcome(0, os.fsdecode(b"\xff") + "é")])
    assert json.loads(path.read_text(encoding="utf-8"))[0]["result"] == "\udcffé"


@pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out.csv"])
def test_out_is_whole_or_not_at_all(tmp_path, name):
    """When writing is broken off the file of before is untouched, and nothing is left beside it."""
    path = tmp_path / name
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        write_out(str(path), NUMBERS, [*OUTCOMES, outcome(2, Raising(KeyboardInterrupt()))])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_out_follows_a_link_and_the_umask(tmp_path):
    """A link stays a link to the file written, which has the usual permissions."""
    (tmp_path / "folder").mkdir()
    link = tmp_path / "out.json"
    link.symlink_to("folder/real.json")
    mask = os.umask(0o027)
    try:
        write_out(str(link), NUMBERS, OUTCOMES)
    finally:
        os.umask(mask)
    assert link.is_symlink()
    assert stat.S_IMODE((tmp_path / "folder/real.json").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("out.xls", "must end in .csv, .jsonl, .json"),
        ("out", "must end in"),
        ("missing/out.csv", "there is no folder"),
        ("folder.csv", "this is a folder"),
    ],
)
def test_out_is_checked_before_work(tmp_path, name, sentence):
    """A file that could not be written is refused before any task runs."""
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=sentence):
        check_out(str(tmp_path / name))


# Words --------------------------------------------------------------------------------------------


def remote(kind, line, message):
    error = kind(message)
    error.__cause__ = RemoteTraceback(
        "Traceback (most recent call last):\n"
        f'  File "model.py", line {line}, in fit\n'
        f"{kind.__name__}: {message}\n"
    )
    return error


def test_failures_are_told_by_task_and_input():
    """Each failure is a line: task, input, exception; alike tracebacks are shown once."""
    outcomes = [
        outcome(0, error=remote(ValueError, 3, "bad 10")),
        outcome(1, error=remote(ValueError, 3, "bad 11"), attempt=2),
        outcome(2, error=remote(KeyError, 9, "k")),
        outcome(3, error=WorkerDied("killed by SIGKILL")),
    ]
    lines = list(failure_lines(NUMBERS, outcomes))
    assert lines[:4] == [
        "failed: task 0, input 10: ValueError: bad 10",
        "failed: task 1, input 11 (attempt 2): ValueError: bad 11",
        "failed: task 2, input 12: KeyError: 'k'",
        "failed: task 3, input 13: WorkerDied: killed by SIGKILL",
    ]
    assert [line for line in lines if line.startswith("task ")] == [
        "task 0, and 1 more like it:",
        "task 2:",
    ]
    assert sum("File" in line for line in lines) == 2


def test_many_failures_are_cut_short():
    """Of many failures the first are told and the rest counted; long tracebacks lose the middle."""
    error = ValueError()
    frames = "".join(f'  File "m.py", line {n}, in f\n' for n in range(500))
    error.__cause__ = RemoteTraceback(f"Traceback\n{frames}ValueError\n")
    inputs = Inputs(range(100), "one", ("input",))
    lines = list(failure_lines(inputs, [outcome(i, error=error) for i in range(100)]))
    assert "... and 90 more; --json and --out list them all" in lines
    assert any("lines left out" in line for line in lines)
    assert len(lines) < 50


def test_the_summary_adds_up():
    """Done, failed and not finished are counted; speed-up is work time over wall time."""
    outcomes = [
        outcome(0, 1, seconds=3.0, memory=2**20),
        outcome(1, 1, seconds=2.0, worker="w2", memory=3 * 2**20),
        outcome(2, error=ValueError(), seconds=1.0),
    ]
    text = "\n".join(summary_lines(NUMBERS, outcomes, outcomes, 4.0, interrupted=True))
    assert "interrupted: 10 tasks: 2 done, 1 failed, 7 not finished" in text
    assert "wall time 4.00s, work time 6.00s, speed-up 1.50 on 2 workers" in text
    assert "slowest: task 0 (10) 3.00s, task 1 (11) 2.00s, task 2 (12) 1.00s" in text
    assert "peak memory of a worker: 3.0 MB" in text


def test_the_summary_of_what_goes_on():
    """What was done before counts as done, and not in the times of this command."""
    before, fresh = outcome(0, 1, seconds=3.0), outcome(1, 1, seconds=2.0)
    text = "\n".join(summary_lines(NUMBERS, [before, fresh], [fresh], 4.0, interrupted=False))
    assert "10 tasks: 2 done" in text
    assert "work time 2.00s, speed-up 0.50 on 1 worker" in text


def test_the_summary_of_nothing():
    """When no task ended there is no speed-up and no slowest task to tell."""
    lines = list(summary_lines(NUMBERS, [], [], 4.0, interrupted=True))
    assert lines == ["interrupted: 10 tasks: 0 done, 0 failed, 10 not finished", "wall time 4.00s"]
