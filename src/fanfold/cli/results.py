"""What a map gave, as a table, as JSON records and as files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from fanfold.cli.inputs import Inputs
from fanfold.cli.values import as_cell, as_columns, as_json, to_json
from fanfold.errors import UsageError
from fanfold.tasks import Outcome

__all__ = [
    "JsonLines",
    "Table",
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


@dataclass(frozen=True)
class Table:
    """Lines of text cells under a header."""

    header: list[str]
    rows: list[list[str]]


def tabulate(inputs: Inputs, outcomes: Iterable[Outcome], *, errors: bool) -> Table:
    """Index, input and result of each task done; with ``errors`` the failed too, and why."""
    kept = [outcome for outcome in outcomes if errors or outcome.ok]
    results = [as_columns(outcome.value) if outcome.ok else {} for outcome in kept]
    names = list(dict.fromkeys(name for parts in results for name in parts)) or ["result"]
    taken = {"index", "error"}
    header = [
        "index",
        *_unique("input", inputs.columns, taken),
        *_unique("result", names, taken),
        *(["error"] if errors else []),
    ]
    rows = []
    for outcome, parts in zip(kept, results, strict=True):
        cells = inputs.cells(outcome.index)
        row = [str(outcome.index)]
        row += [as_cell(cells.get(name)) for name in inputs.columns]
        row += [as_cell(parts.get(name)) for name in names]
        row += [error_text(outcome)] if errors else []
        rows.append(row)
    return Table(header, rows)


def _unique(prefix: str, names: Iterable[str], taken: set[str]) -> Iterator[str]:
    """The names, with a prefix where one is taken: ``x`` as input and result, for instance."""
    for name in names:
        while name in taken:
            name = f"{prefix}.{name}"
        taken.add(name)
        yield name


def error_text(outcome: Outcome) -> str:
    """Type and message of what a task failed with; nothing for a task that is done."""
    if outcome.error is None:
        return ""
    kind = type(outcome.error).__name__
    try:
        message = str(outcome.error)
    except Exception:  # noqa: BLE001 - a __str__ of the user's that raises
        message = ""
    return f"{kind}: {message}" if message else kind


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
    if file.isatty() and len(table.rows) <= LONGEST_ALIGNED:
        _print_aligned(table, file)
        return
    for row in (table.header, *table.rows):
        print("\t".join(map(_one_line, row)), file=file)


def _one_line(cell: str) -> str:
    return cell.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _print_aligned(table: Table, file: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    view = RichTable(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(table.header):
        numbers = all(_is_number(row[position]) for row in table.rows)
        view.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in table.rows:
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
            table = tabulate(inputs, outcomes, errors=True)
            file.writelines(map(_csv_line, [table.header, *table.rows]))
            return
        records = (to_json(_record(inputs, outcome)) for outcome in outcomes)
        if extension == ".jsonl":
            file.writelines(f"{record}\n" for record in records)
        else:
            file.write("[\n" + ",\n".join(records) + "\n]\n")

    _write_whole(os.path.realpath(path), write)


def _csv_line(row: Iterable[str]) -> str:
    """A line of CSV. The csv module leaves a carriage return unquoted, and cannot read it then."""
    cells = (
        '"' + cell.replace('"', '""') + '"' if any(map(cell.__contains__, ',"\r\n')) else cell
        for cell in row
    )
    return ",".join(cells) + "\n"


def _write_whole(path: str, write: Callable[[TextIO], None]) -> None:
    """A file beside, then a rename: whoever reads sees the old file or the new one."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{os.urandom(4).hex()}")
    try:
        with open(beside, "x", encoding="utf-8", errors="backslashreplace", newline="") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
