"""The airports with the longest departure delay of each month, and what more workers bring.

    python examples/learn/e21_flights.py
    python examples/learn/e21_flights.py demo-data/2013-*.csv

Some months come with the example; `make demo` writes a whole year of New York into demo-data.
"""

import csv
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import fanfold as ff

HERE = Path(__file__).parent / "flights"
WORKERS = [1, 2, 4, 6, 8]
Longest = tuple[str, float, list[str]]


def delays(path: Path) -> Iterator[tuple[float, str]]:
    """(delay in minutes, airport) of each flight that left; the others have no delay."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for row in csv.DictReader(map(str.lower, file)):
            if row["dep_delay"] not in ("", "na"):
                yield float(row["dep_delay"]), row["origin"].upper()


def longest_delay(path: str | Path) -> Longest:
    """The month, as its file is named, its longest delay, and every airport that had it."""
    longest, airports = float("-inf"), set()
    for delay, airport in delays(Path(path)):
        if delay > longest:
            longest, airports = delay, set()
        if delay == longest:
            airports.add(airport)
    return Path(path).name.split(".")[0], longest, sorted(airports)


def shown(month: str, longest: float, airports: list[str]) -> str:
    return f"{month.replace('-', ' ')} {longest} {airports}"


def answers() -> list[Longest]:
    """What a plain loop of one process found in the files that come with the example."""
    with (HERE / "longest-delays.csv").open() as file:
        rows = csv.DictReader(file)
        return [(row["MONTH"], float(row["MAX_DELAY"]), row["AIRPORTS"].split()) for row in rows]


def main() -> None:
    given = [Path(name) for name in sys.argv[1:]]
    paths = given or sorted(HERE.glob("*.csv.gz"))
    found = ff.map(longest_delay, paths, workers=2)
    for month in found:
        print(shown(*month))
    if not given:
        print("as one process found:", found == answers())
    work = paths if given else paths * 10  # these files are small: each ten times
    study = ff.scaling(longest_delay, work, workers=WORKERS, repeats=3)
    for workers in study.workers:
        seconds, speedup = study.seconds[workers], study.speedup(workers)
        print(f"  {workers} workers: {seconds:.3f} s, speed-up {speedup:.2f}")
    print(f"take {study.best} workers")


if __name__ == "__main__":
    main()
