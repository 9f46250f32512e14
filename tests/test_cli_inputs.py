"""Inputs of a command line: their sources, and the types of what comes as text."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.cli.inputs import Inputs, collect_inputs, infer, read_csv
from fanfold.cli.results import write_out
from fanfold.errors import UsageError
from fanfold.tasks import Outcome


def collect(*plain, range_text=None, over=None, params=(), as_text=()):
    return collect_inputs(plain, range_text, over, params, as_text)


# Plain inputs, ranges and products ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "2", "-3"], [1, 2, -3]),
        (["1", "2.5", "1e-3"], [1.0, 2.5, 0.001]),
        (["a.csv", "b.csv"], ["a.csv", "b.csv"]),
        (["007", "008"], ["007", "008"]),
        (["08", "09", "10"], ["08", "09", "10"]),
        (["1", "x"], ["1", "x"]),
        (["true", "false"], ["true", "false"]),
        (["nan", "inf"], ["nan", "inf"]),
        (["1_000"], ["1_000"]),
        (["+49"], ["+49"]),
        (["٣"], ["٣"]),
        (["9" * 5000], [float("9" * 5000)]),
        ([""], [""]),
    ],
)
def test_inputs_are_one_column(texts, values):
    """INPUTs become numbers only when every one of them is a plain number; 007 is a name."""
    inputs = collect(*texts)
    assert inputs == Inputs(values, "one", ("input",))
    assert list(map(type, inputs.items)) == list(map(type, values))


def test_str_keeps_inputs_as_text():
    """``--str input`` keeps INPUTs as they were written."""
    assert collect("1", "2", as_text=["input"]).items == ["1", "2"]


def test_range_gives_whole_numbers():
    """``--range`` gives whole numbers, one argument each."""
    assert collect(range_text="1-10:3") == Inputs(range(1, 11, 3), "one", ("input",))


def test_params_give_every_combination():
    """``--param`` gives every combination as keyword arguments; the last name varies fastest."""
    inputs = collect(params=["x=0.1,1", "flag=true,false", "name=a,1"])
    assert inputs.columns == ("x", "flag", "name")
    assert inputs.items[:3] == [
        {"x": 0.1, "flag": True, "name": "a"},
        {"x": 0.1, "flag": True, "name": "1"},
        {"x": 0.1, "flag": False, "name": "a"},
    ]
    assert len(inputs.items) == 8


def test_str_keeps_a_param_as_text():
    """``--str NAME`` keeps the values of one parameter as text."""
    inputs = collect(params=["x=1,2", "y=1,2"], as_text=["x"])
    assert inputs.items[0] == {"x": "1", "y": 1}


# Tables -------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_a_row_becomes_keyword_arguments(table):
    """Each row is a task; whole numbers, numbers, true/false and text are told by column."""
    path = table("n,x,flag,name\n1,2,true,007\n3,0.5,False,8\n")
    assert collect(over=path).items == [
        {"n": 1, "x": 2.0, "flag": True, "name": "007"},
        {"n": 3, "x": 0.5, "flag": False, "name": "8"},
    ]


def test_empty_cells(table):
    """An empty cell is None among numbers and booleans, and empty text in a column of text."""
    path = table('n,x,flag,name,nothing\n1,,true,a,\n,nan,,"",""\n')
    first, second = collect(over=path).items
    assert first == {"n": 1, "x": None, "flag": True, "name": "a", "nothing": ""} | {"x": ""}
    assert second["n"] is None
    assert second["flag"] is None
    assert second["name"] == ""


def test_nan_and_infinity_need_a_number_beside_them(table):
    """nan and inf are numbers in a column that holds a plain number; alone they are text."""
    path = table("x,y\n1,nan\nNaN,nan\n-inf,inf\n")
    items = collect(over=path).items
    assert [items[0]["x"], items[2]["x"]] == [1.0, -math.inf]
    assert math.isnan(items[1]["x"])
    assert [item["y"] for item in items] == ["nan", "nan", "inf"]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n",
        "\ufeffa,b\n1,x\n",
        "a,b\r\n1,x\r\n",
        " a , b\n 1 ,x\n",
        "\na,b\n\n1,x\n\n",
        "a,b\n1,x",
    ],
)
def test_csv_as_programs_write_it(table, text):
    """A byte order mark, CRLF, blank lines, spaces around names and numbers do no harm."""
    assert collect(over=table(text)).items == [{"a": 1, "b": "x"}]


def test_json_lines_keep_their_types(table):
    """A JSON object a line; keys may differ, and the columns are all of them."""
    path = table('{"x": 1, "y": "007"}\n\n{"x": [1, 2], "z": null}\n', "t.jsonl")
    inputs = collect(over=path)
    assert inputs.items == [{"x": 1, "y": "007"}, {"x": [1, 2], "z": None}]
    assert inputs.columns == ("x", "y", "z")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1: no header"),
        (",,\n1,2,3\n", "line 1: no header"),
        ("a,,c\n1,2,3\n", "line 1: column 2 has no name"),
        ("a,b,a\n1,2,3\n", "line 1: column 'a' appears twice"),
        ("1,2\n3,4\n", "line 1: '1' is no name of a column"),
        ("a,b\n", "has no rows below its header"),
        ("a,b\n1,2\n3\n", "line 3: 1 value where the header has 2 columns"),
        ("a\n1\n1,2\n", "line 3: 2 values where the header has 1 column;"),
        ('a,b\n1,"2\n', "line 2: unexpected end of data"),
        ('a,b\n1,"2"x\n', "line 2: .*correct the quotes"),
        (b"a\n\xff\n", "not UTF-8 text"),
    ],
)
def test_a_wrong_csv_names_file_and_line(table, text, sentence):
    """What is wrong in a table is told with its file and line."""
    path = table(text)
    with pytest.raises(UsageError, match=f"{path}.*{sentence}"):
        collect(over=path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty: write a JSON object"),
        ('{"x": 1}\n[1]\n', r"line 2: \[1\] is not an object"),
        ('{"x": 1}\n{"x": \n', "line 2: not JSON"),
        ('{"x": 1, "x": 2}\n', "line 1: a key appears twice"),
        ("[" * 100_000 + "\n", "line 1: not JSON"),
    ],
)
def test_wrong_json_lines_name_file_and_line(table, text, sentence):
    """What is wrong in JSON Lines is told with its file and line."""
    path = table(text, "t.jsonl")
    with pytest.raises(UsageError, match=f"{path}.*{sentence}"):
        collect(over=path)


# What is written can be read ----------------------------------------------------------------------

NAMES = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)
CELLS = {
    "whole": st.integers(-(10**30), 10**30),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "text": st.text(st.characters(exclude_categories=["Cs"])),
}


@st.composite
def tables(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    kinds = [draw(st.sampled_from(sorted(CELLS))) for _ in names]
    count = draw(st.integers(1, 5))
    columns = [draw(st.lists(CELLS[kind], min_size=count, max_size=count)) for kind in kinds]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows, [name for name, kind in zip(names, kinds, strict=True) if kind == "text"]


@given(tables())
def test_csv_round_trip(tmp_path_factory, drawn):
    """A table that ``--out`` writes reads back through ``--over``: same values, same types."""
    rows, text_columns = drawn
    path = str(tmp_path_factory.mktemp("round") / "trip.csv")
    outcomes = [Outcome(i, row, None, 0.1, 1, "w", 0) for i, row in enumerate(rows)]
    write_out(path, Inputs(range(len(rows)), "one", ("input ",)), outcomes)
    with open(path, encoding="utf-8", newline="") as file:
        read = read_csv(file, path, text_columns).items
    for item, row in zip(read, rows, strict=True):
        found = {name: item[name] for name in row}
        assert found == row
        assert list(map(type, found.values())) == list(map(type, row.values()))


@given(st.lists(st.one_of(st.text(), st.integers().map(str), st.floats().map(str))))
def test_inference_never_fails(texts):
    """Any column gets one type, and a column of text is left exactly as it is."""
    values = infer(texts)
    kinds = {type(value) for value in values} - {type(None)}
    assert len(kinds) <= 1
    if kinds == {str}:
        assert values == texts


def test_reading_stops_at_the_first_wrong_row():
    """The line that is told is where the row ends, also behind a cell of several lines."""
    file = io.StringIO('a,b\n"1\n2",3\n4\n')
    with pytest.raises(UsageError, match=r"t\.csv, line 4"):
        read_csv(file, "t.csv")
