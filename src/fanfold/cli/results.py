"""What a map gave, as a table, as JSON records and as files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from fanfold.cli.inputs import Inputs
from fanfold.errors import UsageError
from fanfold.runs.table import Table, error_text, write_whole
from fanfold.runs.table import tabulate as tabulate_outcomes
from fanfold.runs.values import as_cell, as_json, to_json
from fanfold.tasks import Outcome

__all__ = [
    "JsonLines",
    "check_out",
    "error_text",
    "print_table",
    "results_only",
    "tabulate",
    "write_out",
]

EXTENSIONS = (".csv", ".jsonl", ".json")

#: Aligning needs every width at once and takes a while; nobody reads longer tables by eye.
LONGEST_ALIGNED = 1000


def tabulate(inputs: Inputs, outcomes: Iterable[Outcome], *, errors: bool) -> Table:
    """The outcomes as a table (see `fanfold.runs.table.tabulate`)."""
    return tabulate_outcomes(inputs.columns, inputs.cells, outcomes, errors=errors)


# On standard output -----------------------------------------------------------------------------


@contextmanager
def results_only() -> Iterator[TextIO]:
    """Standard output, kept for results: what else is printed meanwhile goes to standard error.

    It is done to the file descriptor, so it holds for C libraries and for worker processes too.
    A character that the output's encoding does not have is written as its code.
    """
    sys.stdout.flush()
    output = open(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")  # noqa: SIM115
    with output:
        os.dup2(2, 1)
        try:
            yield output
        finally:
            sys.stdout.flush()
            os.dup2(output.fileno(), 1)


def print_table(table: Table, file: TextIO) -> None:
    """Aligned in a terminal; elsewhere lines with tabs, for other programs."""
    if not table.rows:
        return
    rows = ([as_cell(value) for value in row] for row in table.rows)
    if file.isatty() and len(table.rows) <= LONGEST_ALIGNED:
        _print_aligned(table.header, list(rows), file)
        return
    for row in (table.header, *rows):
        print("\t".join(map(_one_line, row)), file=file)


def _one_line(cell: str) -> str:
    return cell.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _print_aligned(header: list[str], rows: list[list[str]], file: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    view = RichTable(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(header):
        numbers = all(_is_number(row[position]) for row in rows)
        view.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        view.add_row(*map(Text, row))
    Console(file=file, highlight=False).print(view)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == ""
    return True


class JsonLines:
    """Writes a JSON record a task, in the order of the inputs, as soon as it is a task's turn."""

    def __init__(self, inputs: Inputs, file: TextIO) -> None:
        self._inputs = inputs
        self._file = file
        self._waiting: dict[int, Outcome] = {}
        self._turn = 0

    def add(self, outcome: Outcome) -> None:
        self._waiting[outcome.index] = outcome
        while self._turn in self._waiting:
            self._write(self._waiting.pop(self._turn))
            self._turn += 1

    def finish(self) -> None:
        """Write what ended behind a task that did not."""
        for index in sorted(self._waiting):
            self._write(self._waiting.pop(index))

    def _write(self, outcome: Outcome) -> None:
        print(to_json(_record(self._inputs, outcome)), file=self._file, flush=True)


def _record(inputs: Inputs, outcome: Outcome) -> dict[str, Any]:
    record = {"index": outcome.index, "input": as_json(inputs.items[outcome.index])}
    if outcome.ok:
        return record | {"result": as_json(outcome.value)}
    return record | {"error": error_text(outcome)}


# Into a file ------------------------------------------------------------------------------------


def check_out(path: str) -> None:
    """Refuse, before any work, a file that could not be written after it."""
    folder = os.path.dirname(path) or "."
    if os.path.splitext(path)[1].lower() not in EXTENSIONS:
        raise UsageError(f"--out {path}: the name must end in {', '.join(EXTENSIONS)}")
    if not os.path.isdir(folder):
        raise UsageError(f"--out {path}: there is no folder {folder}; make it first")
    if os.path.isdir(path):
        raise UsageError(f"--out {path}: this is a folder; name a file")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--out {path}: the folder {folder} is not yours to write in")


def write_out(path: str, inputs: Inputs, outcomes: Sequence[Outcome]) -> None:
    """Write the results whole, or not at all, in the format that the name's end asks for."""

    def write(file: TextIO) -> None:
        extension = os.path.splitext(path)[1].lower()
        if extension == ".csv":
            tabulate(inputs, outcomes, errors=True).write_csv(file)
            return
        records = (to_json(_record(inputs, outcome)) for outcome in outcomes)
        if extension == ".jsonl":
            file.writelines(f"{record}\n" for record in records)
        else:
            file.write("[\n" + ",\n".join(records) + "\n]\n")

    write_whole(path, write)
