"""Write the tables of what things cost into the pages of the course, from benchmarks/results.

    python tools/learn_figures.py

A page has its table between two comments, ``<!-- figures -->`` and ``<!-- end of figures -->``.
A figure is the median of the latest measurement of its case; what was never measured has no row.
tests/learn/test_figures.py holds the pages to it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # the benchmark is a part of the checkout, not of the package

from benchmarks.cases import CASES  # noqa: E402
from benchmarks.report import scale, table, three_digits  # noqa: E402
from benchmarks.summary import figure  # noqa: E402

LEARN = ROOT / "docs" / "learn"
PLACE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


class Row(NamedTuple):
    """A line of a table: in words, and where the figure is found."""

    words: str
    case: str
    entrant: str
    metric: str


def rows(page: str) -> list[Row]:
    """Those of a page, by its name without the number: as they stand in ROWS."""
    return [Row(*row) for row in ROWS[re.sub(r"^\d+-", "", page)]]


MP, LOAD_BALANCED = "multiprocessing.Pool", "ipyparallel, load-balanced view"
DIRECT, ENGINES = "ipyparallel, direct view", "fanfold on IPython engines"
SBATCH, ELEMENTS, ARRAY = "sbatch, job by job", "fanfold run, an element a node", "sbatch --array"
ON_SLURM, ON_MPI, ON_DASK = "fanfold on Slurm", "fanfold on MPI", "fanfold on Dask"
JOBQUEUE, CLUSTER = "dask_jobqueue.SLURMCluster", "ff.dask_cluster"
WORK = "over_work"  # a factor: of what the work itself takes on all cores

ROWS = {
    "shared-memory": [
        ("`add` of a `SharedValue`, by 8 processes", "shared-counter", "fanfold", "rate"),
        ("`+= 1` under its lock", "shared-counter", "fanfold", "locked"),
        ("`+= 1` under the lock of a `multiprocessing.Value`", "shared-counter", MP, "locked"),
        ("a worker attaches to a shared array of 800 MB", "shared-array", "fanfold", "attach"),
    ],
    "job-arrays": [
        ("a hundred `sbatch`, until all are accepted", "hand-in", SBATCH, "handed"),
        ("one `sbatch --array` of a hundred", "hand-in", ARRAY, "handed"),
        ("until that array, which does nothing, has ended", "hand-in", ARRAY, "ended"),
        ("a hundred such tasks by `ff.run` in 4 elements", "hand-in", ELEMENTS, "ended"),
        ("10 000 tasks of 10 ms by `ff.run`, to the work alone", "job-arrays", ON_SLURM, WORK),
        ("the same by submitit, an element a task", "job-arrays", "submitit map_array", WORK),
    ],
    "job-summary": [
        ("a look at an element with five processes", "look", "fanfold", "look"),
        ("the file at the end of a run on the laptop", "look", "fanfold", "summary"),
    ],
    "asking": [
        ("a job that does nothing, from `sbatch` to its end", "hand-in", SBATCH, "one"),
        ("a task by `ff.run`, until its result is here", "hand-in", ELEMENTS, "one"),
        ("an array of four, from `sbatch` to its end", "job-arrays", ON_SLURM, "start"),
    ],
    "mpi": [
        ("three ranks, from `mpiexec` to their end", "ranks", "mpiexec", "start"),
        ("the same by `fanfold mpi`", "ranks", "fanfold mpi", "start"),
        ("eight bytes from one rank to another", "ranks", "mpiexec", "message"),
        ("a small dict, which is pickled", "ranks", "mpiexec", "object"),
        ('the first result of a map with `on="mpi"`', "places", ON_MPI, "start"),
    ],
    "dask": [
        ("plain Dask with two jobs: the first result, and the end", "dask-jobs", JOBQUEUE, "first"),
        ("the same by `ff.dask_cluster`", "dask-jobs", CLUSTER, "first"),
        ("tasks that do nothing, by a `Client` of Dask", "engine-dask", "dask.distributed", "rate"),
        ("the same by `ff.map` on Dask", "engine-dask", ON_DASK, "rate"),
    ],
    "ipython-engines": [
        ("a controller and four engines: the first result", "engine-start", DIRECT, "start"),
        ("the same by `ff.EngineExecutor`", "engine-start", ENGINES, "start"),
        ("memory of all of them", "engine-start", ENGINES, "memory"),
        ("tasks that do nothing, load-balanced view", "engine-ipyparallel", LOAD_BALANCED, "rate"),
        ("direct view, which deals them out", "engine-ipyparallel", DIRECT, "rate"),
        ("`ff.map` on the engines", "engine-ipyparallel", ENGINES, "rate"),
    ],
}


def measured(case: str) -> dict[str, Any] | None:
    """The latest measurement of a case, with the machine and the date; None: there is none.

    Of two on the same day the one whose file comes last by its name counts.
    """
    paths = sorted(ROOT.glob("benchmarks/results/*.json"), reverse=True)
    records = [json.loads(path.read_text()) for path in paths]
    return max(
        (record for record in records if record["cases"].get(case, {}).get("rounds")),
        key=lambda record: record["date"],
        default=None,
    )


def shown(row: Row) -> str | None:
    """The figure of a row, with its unit; None where nobody has measured it."""
    record = measured(row.case)
    found = record and figure(record["cases"][row.case]["rounds"], row.entrant, row.metric)
    if not found:
        return None
    unit = CASES[row.case].metric(row.metric).unit
    if unit == "x":
        return f"{three_digits(found.median)} times"
    rounded = float(f"{found.median:.3g}")
    factor, shown = scale(rounded, unit)
    return f"{three_digits(rounded / factor)}{shown}"


def figures(page: str) -> str:
    """The table of a page, and what it was measured on; nothing where nothing was."""
    found = [(row, value) for row in rows(page) if (value := shown(row)) is not None]
    if not found:
        return ""
    records = [record for row, _ in found if (record := measured(row.case))]
    about = sorted({(one["machine"]["cores"], one["date"]) for one in records})
    told = "; ".join(f"{cores} cores, {date}" for cores, date in about)
    lines = table(("what", f"measured ({told})"), ((row.words, value) for row, value in found))
    return f"\n{lines}\n"


def with_figures(page: Path) -> str:
    """The text of a page with the figures of now."""
    return PLACE.sub(lambda _: figures(page.stem), page.read_text(encoding="utf-8"))


def pages() -> list[Path]:
    """The pages that have such a table."""
    return [page for page in sorted(LEARN.glob("*.md")) if PLACE.search(page.read_text("utf-8"))]


def main() -> None:
    for page in pages():
        page.write_text(with_figures(page), encoding="utf-8")


if __name__ == "__main__":
    main()
