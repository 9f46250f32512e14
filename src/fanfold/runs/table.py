"""What tasks gave, as a table: a row a task, a column for each part of its input and its result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from fanfold.errors import UsageError
from fanfold.runs.values import as_cell, as_columns, as_json, to_json
from fanfold.tasks import Outcome

__all__ = ["Table", "csv_line", "error_text", "tabulate", "write_whole"]


@dataclass(frozen=True)
class Table:
    """Values under a header: ``rows[i][j]`` is of column ``header[j]``; None where there is none.

    >>> table = Table(["index", "x", "result"], [[0, 1.5, {"a": 2}]])
    >>> table.rows[0][1], len(table), list(table)
    (1.5, 1, [{'index': 0, 'x': 1.5, 'result': {'a': 2}}])
    """

    header: list[str]
    rows: list[list[Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows as dictionaries."""
        return (dict(zip(self.header, row, strict=True)) for row in self.rows)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write it as CSV, whole or not at all; what is no number or text as JSON."""
        write_whole(path, self.write_csv)

    def write_csv(self, file: TextIO) -> None:
        file.write(csv_line(self.header))
        file.writelines(csv_line(map(as_cell, row)) for row in self.rows)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON Lines, an object a row, whole or not at all."""
        lines = (f"{to_json(as_json(row))}\n" for row in self)
        write_whole(path, lambda file: file.writelines(lines))

    def to_pandas(self) -> Any:
        """As a `pandas.DataFrame`, indexed by the tasks. Raises `UsageError` without pandas."""
        try:
            import pandas as pd  # type: ignore[import-untyped, unused-ignore]
        except ImportError as error:
            raise UsageError(
                "a DataFrame needs pandas: pip install pandas, or use to_csv() or to_jsonl()"
            ) from error
        return pd.DataFrame(self.rows, columns=self.header).set_index("index")


def tabulate(
    columns: Iterable[str],
    cells: Callable[[int], Mapping[str, Any]],
    outcomes: Iterable[Outcome],
    *,
    errors: bool,
) -> Table:
    """Index, input and result of each task done; with ``errors`` the failed too, and why.

    ``columns`` name the parts of an input, and ``cells`` gives them by the index of the task.
    """
    columns = list(columns)
    kept = [outcome for outcome in outcomes if errors or outcome.ok]
    results = [as_columns(outcome.value) if outcome.ok else {} for outcome in kept]
    names = list(dict.fromkeys(name for parts in results for name in parts)) or ["result"]
    taken = {"index", "error"}
    header = ["index", *_unique("input", columns, taken), *_unique("result", names, taken)]
    rows: list[list[Any]] = []
    for outcome, parts in zip(kept, results, strict=True):
        given = cells(outcome.index)
        row = [outcome.index, *map(given.get, columns), *map(parts.get, names)]
        rows.append([*row, error_text(outcome)] if errors else row)
    return Table([*header, "error"] if errors else header, rows)


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


def csv_line(row: Iterable[str]) -> str:
    """A line of CSV. The csv module leaves a carriage return unquoted, and cannot read it then."""
    cells = (
        '"' + cell.replace('"', '""') + '"' if any(map(cell.__contains__, ',"\r\n')) else cell
        for cell in row
    )
    return ",".join(cells) + "\n"


def write_whole(path: str | os.PathLike[str], write: Callable[[TextIO], object]) -> None:
    """A file beside, then a rename: whoever reads sees the old file or the new one."""
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    beside = os.path.join(folder, f".{name}.{os.urandom(4).hex()}")
    try:
        with open(beside, "x", encoding="utf-8", errors="backslashreplace", newline="") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, real)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
