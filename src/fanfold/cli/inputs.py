"""The inputs of a map, as a command line says them.

Four ways: plain INPUTs, ``--range``, ``--over`` a table, ``--param`` for a product. What comes as
text gets the type of its whole column: all whole numbers, all numbers, all true or false, or text
as it stands. So 007 stays a name, and 10 beside it too.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from fanfold.costs import read_costs
from fanfold.errors import UsageError
from fanfold.reports.words import one_line
from fanfold.units import counted, parse_indices

__all__ = ["EveryColumn", "Inputs", "collect_inputs"]

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,999})")  # 007 is a name; int() refuses endless digits
_NUMBER = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NO_NUMBER = re.compile(r"nan|-?inf", re.IGNORECASE)
_BOOLS = {"true": True, "false": False}

SOURCES = ("INPUT", "--range", "--over", "--param")

Row = dict[str, Any]


class EveryColumn(tuple[str, ...]):
    """The names of columns that stay text, where all of them do, whatever they are called."""

    def __contains__(self, name: object) -> bool:
        return True


@dataclass(frozen=True)
class Inputs:
    """The inputs of the tasks; ``columns`` names what each is made of.

    With the style ``"one"`` an item is the argument, under the one column; with ``"keywords"`` it
    is a dictionary of keyword arguments.
    """

    items: Sequence[Any]
    style: Literal["one", "keywords"]
    columns: tuple[str, ...]

    def cells(self, index: int) -> Row:
        """Column -> value of one input."""
        item = self.items[index]
        return dict(item) if self.style == "keywords" else {self.columns[0]: item}

    def shown(self, index: int) -> str:
        """One input in a line of text.

        >>> Inputs([{"x": 1, "y": "a"}], "keywords", ("x", "y")).shown(0)
        "x=1 y='a'"
        """
        item = self.items[index]
        if self.style == "one":
            return str(item)
        return " ".join(f"{name}={value!r}" for name, value in item.items())

    def costs(self, column: str) -> list[float]:
        """The numbers of a column, each the cost of a task. Raises `UsageError`.

        >>> Inputs([{"x": 1, "n": 20}, {"x": 2, "n": 5}], "keywords", ("x", "n")).costs("n")
        [20.0, 5.0]
        """
        _check_columns("--cost", [column], self.columns)
        values: list[Any] = [self.cells(index).get(column) for index in range(len(self.items))]
        if all(isinstance(value, str) for value in values):  # of a program, which gets text
            values = infer(values)
        return read_costs(values, self.items)

    def without(self, column: str) -> Inputs:
        """The same without a column."""
        items = [
            {name: value for name, value in item.items() if name != column} for item in self.items
        ]
        return Inputs(items, self.style, tuple(name for name in self.columns if name != column))


def collect_inputs(
    plain: Sequence[str],
    range_text: str | None,
    over: str | None,
    params: Sequence[str],
    as_text: Sequence[str],
) -> Inputs:
    """The inputs from whichever source is given; `UsageError` when it is none or several."""
    _check_sources(bool(plain), range_text is not None, over is not None, bool(params))
    typed = range_text is not None or (over or "").lower().endswith(".jsonl")
    if as_text and typed:
        raise UsageError(
            "--str keeps text as text; a --range or JSON Lines have none: leave it out"
        )
    if range_text is not None:
        inputs = Inputs(parse_indices(range_text), "one", ("input",))
    elif over is not None:
        inputs = read_table(over, as_text)
    elif params:
        inputs = product(params, as_text)
    else:
        inputs = Inputs(infer(plain, as_text=as_text, name="input", bools=False), "one", ("input",))
    _check_columns("--str", as_text, inputs.columns)
    return inputs


def _check_sources(*given: bool) -> None:
    names = [name for name, there in zip(SOURCES, given, strict=True) if there]
    if not names:
        raise UsageError(
            "there is no input: give INPUTs, --range 1-10, --over table.csv or --param x=1,2"
        )
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} each give inputs: use one of them")


def _check_columns(option: str, names: Sequence[str], columns: Sequence[str]) -> None:
    for name in names:
        if name not in columns:
            raise UsageError(f"{option} {name}: no such column; there is {', '.join(columns)}")


# Types ------------------------------------------------------------------------------------------


def infer(
    texts: Sequence[str], *, as_text: Sequence[str] = (), name: str = "", bools: bool = True
) -> list[Any]:
    """The values of a column of texts. An empty cell among typed ones is None.

    >>> infer(["1", "2"]), infer(["1", "2.5"]), infer(["true", ""]), infer(["7", "007"])
    ([1, 2], [1.0, 2.5], [True, None], ['7', '007'])
    """
    convert = None if name in as_text else _converter(texts, bools)
    if convert is None:
        return list(texts)
    return [convert(text.strip()) if text.strip() else None for text in texts]


def _converter(texts: Iterable[str], bools: bool) -> Callable[[str], Any] | None:
    cells = {text.strip() for text in texts} - {""}
    if not cells:
        return None
    if all(map(_WHOLE.fullmatch, cells)):
        return int
    if all(_NUMBER.fullmatch(cell) or _NO_NUMBER.fullmatch(cell) for cell in cells) and any(
        map(_NUMBER.fullmatch, cells)
    ):
        return float
    if bools and all(cell.lower() in _BOOLS for cell in cells):
        return lambda text: _BOOLS[text.lower()]
    return None


# Products ---------------------------------------------------------------------------------------


def product(params: Sequence[str], as_text: Sequence[str]) -> Inputs:
    """Every combination of the values of ``NAME=VALUE,VALUE...``; the last name varies fastest."""
    values: dict[str, list[Any]] = {}
    for param in params:
        name, equals, text = param.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--param {param}: write NAME=VALUE,VALUE such as x=0.1,0.2")
        if name in values:
            raise UsageError(f"--param {name} is given twice: join its values with commas")
        texts = text.split(",")
        if "" in texts:
            raise UsageError(f"--param {param}: a value is empty; write NAME=VALUE,VALUE")
        values[name] = infer(texts, as_text=as_text, name=name)
    rows = [
        dict(zip(values, combination, strict=True))
        for combination in itertools.product(*values.values())
    ]
    return Inputs(rows, "keywords", tuple(values))


# Tables -----------------------------------------------------------------------------------------


def read_table(path: str, as_text: Sequence[str]) -> Inputs:
    """The rows of a .csv or .jsonl file, as keyword arguments."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in (".csv", ".jsonl"):
        raise UsageError(f"--over {path}: a table is a .csv or a .jsonl file")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if extension == ".csv":
                return read_csv(file, path, as_text)
            return read_json_lines(file, path)
    except OSError as error:
        raise UsageError(f"--over {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--over {path}: not UTF-8 text; convert it with iconv") from error


def read_csv(file: TextIO, path: str, as_text: Sequence[str] = ()) -> Inputs:
    """A table with a header line; each column gets its type."""
    lines = _csv_rows(file, path)
    number, header = next(lines, (1, []))
    names = _header(header, f"{path}, line {number}")
    rows = []
    for number, row in lines:
        if len(row) != len(names):
            raise UsageError(
                f"{path}, line {number}: {counted(len(row), 'value')} where the header has "
                f"{counted(len(names), 'column')}; quote values that hold a comma"
            )
        rows.append(row)
    if not rows:
        raise UsageError(f"{path} has no rows below its header: add a line for each task")
    columns = [
        infer(texts, as_text=as_text, name=name)
        for name, texts in zip(names, zip(*rows, strict=True), strict=True)
    ]
    items = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return Inputs(items, "keywords", tuple(names))


def _csv_rows(file: TextIO, path: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the line where it ends, row) of every row that is not blank."""
    reader = csv.reader(file, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}; correct the quotes") from error


def _header(header: Sequence[str], where: str) -> list[str]:
    names = [name.strip() for name in header]
    if not any(names):
        raise UsageError(f"{where}: no header; begin with a line that names the columns")
    for position, name in enumerate(names, start=1):
        if not name:
            raise UsageError(f"{where}: column {position} has no name; give it one")
        if _NUMBER.fullmatch(name):
            raise UsageError(
                f"{where}: {name!r} is no name of a column; begin with a line that names them"
            )
        if name in names[: position - 1]:
            raise UsageError(f"{where}: column {name!r} appears twice; rename one of them")
    return names


def read_json_lines(file: TextIO, path: str) -> Inputs:
    """A JSON object a line; objects may have different keys."""
    items = [
        _json_object(line, f"{path}, line {number}")
        for number, line in enumerate(file, start=1)
        if line.strip()
    ]
    if not items:
        raise UsageError(f"{path} is empty: write a JSON object for each task, one a line")
    columns = tuple(dict.fromkeys(itertools.chain.from_iterable(items)))
    return Inputs(items, "keywords", columns)


def _json_object(line: str, where: str) -> Row:
    def unique(pairs: list[tuple[str, Any]]) -> Row:
        row = dict(pairs)
        if len(row) < len(pairs):
            raise UsageError(f"{where}: a key appears twice; remove one of them")
        return row

    try:
        row = json.loads(line, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({error}); write an object a line") from error
    if not isinstance(row, dict):
        raise UsageError(
            f"{where}: {one_line(line, 40)} is not an object; write keyword arguments "
            'such as {"x": 1, "y": 2}'
        )
    return row
