"""Twenty tasks on two workers, the input of task 7 guilty of each of nineteen faults.

This is the experiment whose outcome for twelve peers stands in `docs/reference/faults.md`, with
fanfold's own beside it: `tools/grid.py` runs these tests at full size and writes it there.
"""

from __future__ import annotations

import json
import os
import runpy
import time
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

import fanfold as ff
from fanfold.errors import TaskError, WorkerDied
from fanfold.tasks import short_repr
from fanfold.testing import leaks
from fanfold.testing.faults import Fault, grid
from fanfold.testing.functions import square

TASKS, GUILTY = 20, 7
WHOLE = os.environ.get("FANFOLD_FAULTS") == "whole"
FAULTS = grid(gibibyte=1 << (30 if WHOLE else 27))
PATIENCE = 1 if WHOLE else 10  # times as long on a machine that is busy with other tests


@dataclass
class Cell:
    """One field of the grid, as the peers' are written: ``mark`` is I, ok, X7, H, or with L for
    what was left behind."""

    fault: str
    way: str
    mark: str = "H"
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)
    error: str = ""

    def judge(self, fault: Fault, results: list[Any]) -> None:
        done = sum(results[n] == n * n for n in range(TASKS) if n != GUILTY)
        outcome = results[GUILTY]
        if done < TASKS - 1:
            self.mark = f"X{done}"
        elif self.seconds > PATIENCE * fault.patience + (fault.timeout or 0):
            self.mark = "H"
        else:
            self.mark = "I" if isinstance(outcome, BaseException) else "ok"
        if isinstance(outcome, BaseException):
            self.error = f"{type(outcome).__name__}: {outcome}"
        self.mark += "L" if self.left else ""

    def record(self) -> None:
        """For `tools/grid.py`."""
        path = os.environ.get("FANFOLD_GRID")
        if path:
            with Path(path).open("a") as stream:
                print(json.dumps(asdict(self)), file=stream)


def by_map(fault: Fault) -> list[Any]:
    function, inputs = fault.script(GUILTY, TASKS)
    options = {"workers": 2, "timeout": fault.timeout, "progress": False}
    results = ff.map(function, inputs, on="processes", errors="return", **options)
    assert ff.map(square, range(4), on="processes", workers=2) == [0, 1, 4, 9]
    return results


def by_submit(fault: Fault) -> list[Any]:
    function, inputs = fault.script(GUILTY, TASKS)
    with ff.ProcessExecutor(2) as pool:
        futures = [pool.submit(function, item) for item in inputs]
        wait(futures)
        results = [outcome(future) for future in futures]
        assert [pool.submit(square, n).result() for n in range(4)] == [0, 1, 4, 9]
    return results


def outcome(future: Future[Any]) -> Any:
    error = future.exception()
    return future.result() if error is None else error


def check_culprit(fault: Fault, error: BaseException, way: str) -> None:
    """The error says which task it was, with which input, and how its worker ended."""
    assert type(error) is fault.error
    _, inputs = fault.script(GUILTY, TASKS)
    named = short_repr(inputs[GUILTY]).partition(" object at ")[0]
    notes = [note for note in error.__notes__ if note.startswith("fanfold: ")]
    assert len(notes) == 1
    assert named in notes[0]
    if way == "map":
        assert f"task {GUILTY}, input {named}" in notes[0]
        assert not isinstance(error, TaskError) or error.index == GUILTY
    if isinstance(error, WorkerDied):
        assert error.exitcode == fault.exitcode
        assert error.phase == fault.phase or fault.phase is None
        assert error.pid > 1
        assert error.peak_memory > 1 << 20
        how = f"code {error.exitcode}" if error.exitcode >= 0 else error.signal.name
        assert how in str(error)


@pytest.mark.parametrize("way", ["map", "submit"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(fault, way):
    """Only the guilty task fails, by name; the other nineteen have their results, the call returns
    in bounded time, the pool goes on, and nothing stays behind."""
    if way == "submit" and fault.timeout is not None:
        pytest.skip("a submit has no limit of its own: the caller gives it to Future.result")
    cell = Cell(fault.name, way)
    try:
        with leaks() as cell.left:
            began = time.monotonic()
            results = by_map(fault) if way == "map" else by_submit(fault)
            cell.seconds = round(time.monotonic() - began, 2)
        cell.judge(fault, results)
    finally:
        cell.record()
    if fault.error is None:
        assert cell.mark == "ok", cell
        assert results[GUILTY] == fault.act()
    else:
        assert cell.mark == "I", cell
        check_culprit(fault, results[GUILTY], way)


def test_page_shows_what_was_measured():
    """The table of the documentation is the one that `tools/grid.py` makes of what it measured, at
    full size: nineteen faults, each isolated or survived."""
    root = Path(__file__).parents[2]
    tool = runpy.run_path(str(root / "tools" / "grid.py"))
    measured = json.loads(tool["DATA"].read_text())
    page = tool["PAGE"].read_text()
    assert page == tool["rendered"](page, measured)
    cells = {(cell["fault"], cell["way"]): cell["mark"] for cell in measured["cells"]}
    assert {name for name, _ in cells} == {fault.name for fault in grid()}
    assert set(cells.values()) == {"I", "ok"}
