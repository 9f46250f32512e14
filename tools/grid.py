"""Measure the fault grid at full size, and write it into the documentation.

``python tools/grid.py`` runs `tests/faults/test_grid.py` (it needs 12 GB of memory), keeps what
came out in `docs/reference/fault-grid.json` and renders the table of `docs/reference/faults.md`
from it; ``--render`` only does the latter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "faults.md"
DATA = ROOT / "docs" / "reference" / "fault-grid.json"
BEGIN, END = "<!-- grid: written by tools/grid.py -->\n", "<!-- end of the grid -->\n"

PEERS = "PPE, mp.Pool, loky, joblib, pebble, mpire, dask, ray, ipypar., execlib, parsl, submitit"
# One row a fault, in the order of `fanfold.testing.faults.grid`: a column for each of the peers.
CELLS = """
X7 H X7 X0 I X7 I I I I I I
X7 H X7 X0 H X10 I I I I I I
X7 H X8 X0 I X10 I I I I I I
X7 H X7 X0 I I X18 I ok I I ok
I H I X0 I I I I I I I I
I H I X0 I HX I I I I I I
X7 T X7 X0 X7 I I I I I H7 I
I I X10 X0 I HX I I I I H6 I
I I I X0 I HX I I I I ok I
X7 T X7 X0 HX HX I I HX I H6 I
X7 H X6 X0 H HX I I I I I I
X6 H X6 X0 HX X7 † I I I I I
I I I X0 I I H I I I I I
I H I X0 I HX I I I I I I
I H I X0 I X13 I I I I I I
X7 H X7 X0 I HX I I I I I ok
- - - X0 I I - - - - - -
H HX H H0 H HX H18 H H H H HX
ok H H H0 ok H18 ok ok H H H ok
"""


def measure() -> dict[str, Any]:
    """Run the tests; every cell as they judged it, whether they passed or not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells"
        path.touch()
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/faults/test_grid.py", "-k", "test_fault"],
            cwd=ROOT,
            env={**os.environ, "FANFOLD_GRID": str(path), "FANFOLD_FAULTS": "whole"},
        )
        cells = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "cells": cells,
    }


def table(measured: dict[str, Any]) -> str:
    """The grid in Markdown: fanfold's two columns, then the peers'."""
    marks = {(cell["fault"], cell["way"]): cell["mark"] for cell in measured["cells"]}
    faults = list(dict.fromkeys(cell["fault"] for cell in measured["cells"]))
    names = ["fanfold map", "submit", *PEERS.split(", ")]
    peers = [row.split() for row in CELLS.strip().splitlines()]
    rows = [
        [marks[fault, "map"], marks.get((fault, "submit"), "-"), *cells]
        for fault, cells in zip(faults, peers, strict=True)
    ]
    lines = [["fault in task 7", *names], ["---"] * (1 + len(names))]
    lines += [[fault, *row] for fault, row in zip(faults, rows, strict=True)]
    totals = [sum(row[column] in ("I", "ok") for row in rows) for column in range(len(names))]
    lines.append(["**isolated or survived**", *(f"**{total}**" for total in totals)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rendered(page: str, measured: dict[str, Any]) -> str:
    """The page with the table of what was measured."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    where = f"Python {measured['python']}, {measured['system']}, {measured['date']}"
    return f"{before}{BEGIN}{table(measured)}\nfanfold's columns: {where}.\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--render", action="store_true", help="only render what was measured")
    if not parser.parse_args().render:
        DATA.write_text(json.dumps(measure(), indent=1) + "\n")
    PAGE.write_text(rendered(PAGE.read_text(), json.loads(DATA.read_text())))


if __name__ == "__main__":
    main()
