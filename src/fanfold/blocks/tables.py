"""Sources that are a column of a table: CSV and Parquet."""

from __future__ import annotations

import csv
import io
import itertools
import os
from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np

from fanfold.blocks.grid import Grid, Region
from fanfold.blocks.source import Array, Source, check_dtype
from fanfold.errors import SourceChanged, UsageError
from fanfold.extras import need

__all__ = ["CsvSource", "ParquetSource"]

_PIECE = 2**20  # bytes of text parsed at once


class Table(Source):
    """A column, in pieces that can only be read as a whole: piece ``k`` holds the rows from
    ``_rows[k]`` to ``_rows[k + 1]``."""

    _rows: list[int]

    def __init__(self, path: Path, column: str, dtype: np.dtype[Any]) -> None:
        self.path, self.column = os.path.abspath(path), column
        self.stored = check_dtype(dtype, f"column {column!r} of {path}")
        self.dtype = self.stored.newbyteorder("=")
        self.shape = (self._rows[-1],)
        status = os.stat(path)
        self.stamp = (status.st_size, status.st_mtime_ns)

    def __str__(self) -> str:
        return f"{self.path!r}, column={self.column!r}"

    @property
    def chunk(self) -> tuple[int, ...]:
        return (max((b - a for a, b in itertools.pairwise(self._rows)), default=1),)

    def grid(self, most: int) -> Grid:
        return Grid([sorted({0, *self._rows})])

    def piece(self, number: int) -> Array:
        """The rows of one piece."""
        raise NotImplementedError

    def read(self, region: Region) -> Array:
        first, stop = region[0].start, region[0].stop
        parts = [np.empty(0, self.dtype)]
        number = bisect_right(self._rows, first) - 1
        while number < len(self._rows) - 1 and self._rows[number] < stop:
            begin, end = self._rows[number], self._rows[number + 1]
            part = self.piece(number)
            if len(part) != end - begin:
                raise SourceChanged(
                    f"rows {begin} to {end} of {self.path} are {len(part)} now: the file was "
                    "changed while it was read"
                )
            parts.append(part[max(0, first - begin) : stop - begin])
            number += 1
        return np.concatenate(parts).astype(self.dtype, copy=False)


class ParquetSource(Table):
    """A column of a Parquet file; its row groups are the pieces. Missing values are NaN."""

    copies = 4

    def __init__(self, path: Path, column: str | None) -> None:
        file = _parquet(path)
        with file:
            about = file.metadata
            groups = [about.row_group(at).num_rows for at in range(about.num_row_groups)]
            name = _column(file.schema_arrow.names, column, path)
            kind = file.schema_arrow.field(name).type
            at = file.schema_arrow.names.index(name)
            missing = any(_nulls(about.row_group(n).column(at)) for n in range(len(groups)))
        try:
            dtype = np.dtype(kind.to_pandas_dtype())
        except (NotImplementedError, TypeError):
            dtype = np.dtype(object)
        if missing and dtype.kind in "biu":
            dtype = np.dtype(np.float64)  # for NaN, as pandas has it
        self._rows = [0, *itertools.accumulate(groups)]
        super().__init__(path, name, dtype)

    def piece(self, number: int) -> Array:
        with _parquet(self.path) as file:
            table = file.read_row_group(number, [self.column], use_threads=False)
        values = table.column(0).to_numpy()
        return np.asarray(values, self.dtype)


def _parquet(path: str | os.PathLike[str]) -> Any:
    need("pyarrow", "parquet", "reading Parquet files")
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UsageError(f"{os.fspath(path)} cannot be read as Parquet: {error}") from None


def _nulls(column: Any) -> bool:
    """Whether a column chunk has missing values, or does not tell."""
    statistics = column.statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


class CsvSource(Table):
    """A column of a CSV file (``.tsv``: between tabs) whose first line names the columns.

    An empty cell, or NA, is NaN. The file is read once to find the lines; a field in quotation
    marks may not go over several lines.
    """

    copies = 16  # a cell is a text before it is a number

    def __init__(self, path: Path, column: str | None, dtype: Any) -> None:
        self._separator = "\t" if path.suffix.lower() == ".tsv" else ","
        with open(path, "rb") as file:
            names = next(csv.reader([_text(file.readline())], delimiter=self._separator), [])
            self._bytes = [file.tell()]
            name = _column(names, column, path)
            self._at, self._rows = names.index(name), [0]
            while lines := file.read(_PIECE):
                lines += file.readline()
                if lines.count(b'"') % 2:
                    raise UsageError(f"{path} has a field over several lines, or a lone quote")
                self._rows.append(self._rows[-1] + _count_lines(lines))
                self._bytes.append(self._bytes[-1] + len(lines))
        super().__init__(path, name, np.dtype(np.float64 if dtype is None else dtype))

    def piece(self, number: int) -> Array:
        start, stop = self._bytes[number], self._bytes[number + 1]
        with open(self.path, "rb") as file:
            file.seek(start)
            data = file.read(stop - start)
        cells = self._cells(_text(data))
        try:
            return np.array(cells, dtype=self.dtype)
        except (ValueError, OverflowError) as error:
            raise UsageError(
                f"column {self.column!r} of {self.path} does not hold {self.dtype} in rows "
                f"{self._rows[number]} to {self._rows[number + 1]}: {error}"
            ) from None

    def _cells(self, text: str) -> list[Any]:
        cells: list[Any] = []
        missing = "nan" if self.dtype.kind in "fc" else ""
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=self._separator):
            if row:
                cell = row[self._at].strip() if self._at < len(row) else ""
                cells.append(missing if cell in ("", "NA") else cell)
        return cells


def _count_lines(lines: bytes) -> int:
    """The lines that are not empty: these are no rows."""
    text = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    if not lines.endswith(b"\n"):
        ends = np.append(ends, len(lines))
    lengths = np.diff(ends, prepend=-1) - 1
    lone = (lengths == 1) & (text[np.maximum(ends - 1, 0)] == ord("\r"))
    return int(np.count_nonzero((lengths > 0) & ~lone))


def _text(line: bytes) -> str:
    return line.decode("utf-8-sig", "replace")


def _column(names: list[str], column: str | None, path: str | os.PathLike[str]) -> str:
    if column is None and len(names) == 1:
        return names[0]
    if column not in names:
        there = ", ".join(map(repr, names[:12]))
        wrong = "needs column=" if column is None else f"has no column {column!r}"
        raise UsageError(f"{os.fspath(path)} {wrong}: its columns are {there}")
    return column
