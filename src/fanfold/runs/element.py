"""What runs on a node: an element of a job array. ``python -m fanfold.runs.element RUN ARRAY``.

It has the same driver as a run on one machine, for its share of the tasks, on the cores that it was
given. A copy of it that begins later (the job was begun again) takes over from the earlier one.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fanfold.devices import devices, gpus_each
from fanfold.errors import FanfoldError, RunBusy, RunError, RunSuperseded
from fanfold.history import Element
from fanfold.reports import render_summary
from fanfold.runs.arrays import Array, job_of, read_array
from fanfold.runs.asked import Asked
from fanfold.runs.driver import Driver, DriverStopped, Part
from fanfold.runs.prepare import load
from fanfold.runs.recorder import Tally, journal_header
from fanfold.runs.status import read_status
from fanfold.runs.usage import Meter
from fanfold.schedulers.registry import scheduler
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import JournalWriter
from fanfold.store.lease import Lease

__all__ = ["main"]

_MARGIN = 0.02  # of the walltime: an element ends itself so much earlier than it would be ended
_SHORTEST_MARGIN, _LONGEST_MARGIN = 1.5, 10.0  # seconds
_STATUS = {"done": 0, "failed": 1}
_STOPPED = 143  # the exit status of who was ended by SIGTERM


def main(path: str, number: str) -> int:
    """Do the work of the element that the environment names; returns the exit status: 0 all done,
    1 a task failed, 2 it could not begin, 143 it was ended."""
    began = time.time()
    try:
        return _run(path, number, began)
    except FanfoldError as error:
        _say(str(error))
        return 2
    except DriverStopped as stopped:
        _say(f"ended ({stopped.why}): what is done is kept")
        return _STOPPED


def _run(path: str, number: str, began: float) -> int:
    directory = RunDirectory.open(Path(path))
    array = read_array(directory, int(number))
    element = array.first + _index(array)
    why = _work(directory, array, element, _Ending(array, began))
    _say(f"element {element} is {why}")
    return _STATUS[why]


def _say(sentence: str) -> None:
    """Into the log that the scheduler keeps."""
    sys.stderr.write(f"fanfold: {sentence}\n")


def _index(array: Array) -> int:
    variable = scheduler(array.scheduler).variables["index"]
    index = int(os.environ.get(variable, "0"))
    if index >= len(array.shares):
        raise RunError(f"{variable} is {index}, and array {array.number} has fewer elements")
    return index


class _Ending:
    """Has the driver stopped when the scheduler ends the job, and shortly before its walltime.

    A signal is noted and nothing else: it may strike in the middle of anything, and what it raised
    there could be taken for the failure of a task, or be lost.
    """

    def __init__(self, array: Array, began: float) -> None:
        self._reason: DriverStopped | None = None
        self._driver: Driver | None = None
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGALRM, self._note)
        walltime = array.resources.walltime
        if walltime is not None:
            job_began = float(os.environ.get("FANFOLD_BEGAN") or began)
            margin = min(max(_MARGIN * walltime, _SHORTEST_MARGIN), _LONGEST_MARGIN)
            left = job_began + walltime - margin - began
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.1))

    def _note(self, number: int, frame: object) -> None:
        why = "walltime" if number == signal.SIGALRM else "terminated"
        self._reason = self._reason or DriverStopped(why)
        if self._driver is not None:
            self._driver.stop(self._reason)

    def drive(self, driver: Driver) -> str:
        """Drive it until it ends, or is ended."""
        self._driver = driver
        if self._reason is not None:
            raise self._reason
        return driver.drive()


def _work(directory: RunDirectory, array: Array, element: int, ending: _Ending) -> str:
    fence = directory.array(array.number, "closed")
    if fence.exists():
        raise RunSuperseded(f"others do the work of array {array.number} now: nothing is left here")
    about = {"session": array.session, "array": array.number}
    try:
        _check(array)
        share = array.shares[element - array.first]
        work = load(directory, trust=False, only=share, code=array.code)
        _enter(work.asked.folder)
        asked = array.resources
        meter = Meter(asked.cores, asked.memory, asked.walltime)
        work.options.clear()
        work.options.update(array.options, on="processes")
        work.options["workers"] = array.options["workers"] or asked.workers
        work.options["gpus"] = asked.gpus
        part = Part(element, share, about, fence, meter.usage)
        driver = Driver(work, steal=True, progress=False, part=part)
    except (RunBusy, RunSuperseded):  # another copy of it is at work
        raise
    except Exception as error:
        _leave_word(directory, array, element, about, error)
        raise
    for note in driver.notes:
        _say(note)
    try:
        why = ending.drive(driver)
    except DriverStopped as stopped:
        _sum_up(directory, array, element, meter, stopped.why)
        raise
    _sum_up(directory, array, element, meter, why)
    return why


def _sum_up(directory: RunDirectory, array: Array, number: int, meter: Meter, why: str) -> None:
    """What the job asked for and used, in its own log."""
    asked, used, index = array.resources, meter.usage(), number - array.first
    state = "cancelled" if why == "terminated" else why
    element = Element(
        number, job_of(directory, array.number) or array.name, index, platform.node(), state,
        sum(map(len, array.shares[index])), asked.cores, asked.memory, asked.walltime,
        time.time() - used["seconds"], used["seconds"], used["cpu"], used["peak"],
    )  # fmt: skip
    status = _STATUS.get(why, _STOPPED)
    sys.stderr.write(f"{render_summary(element, directory.path.name, asked.account, status)}\n")


def _check(array: Array) -> None:
    """Is this the Python that the run was made with, are the GPUs here that it needs, and have the
    runs before it ended well?"""
    here, made = (version.split(".")[:2] for version in (platform.python_version(), array.python))
    if here != made:
        raise RunError(
            f"this node runs Python {platform.python_version()} ({sys.executable}), and the run "
            f"was made with {array.python}: name the right one with --python, or load its module "
            "with --setup"
        )
    gpus = array.resources.gpus
    if gpus:
        workers = array.options["workers"] or gpus
        devices().shares(workers, gpus_each(workers, gpus))
    for path in array.after:
        status = read_status(RunDirectory.open(Path(path)), ask=False)
        if status.done < status.total:
            raise RunError(
                f"it was to begin after {status.name}, of which {status.done} of {status.total} "
                "tasks are done: nothing was run"
            )


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise RunError(
            f"the folder {folder}, where the run was begun, cannot be entered on this node "
            f"({error.strerror}): begin runs where all nodes see the same"
        ) from error


def _leave_word(
    directory: RunDirectory, array: Array, element: int, about: dict[str, Any], error: Exception
) -> None:
    """A journal that says why nothing was done."""
    with suppress(FanfoldError, OSError):
        lease = Lease.take(
            directory, element, steal=True, fence=directory.array(array.number, "closed")
        )
        told = {
            "run": Asked.read(directory).id, "inputs": array.inputs, "code": array.code,
            "anew": False, **about,
        }  # fmt: skip
        header = journal_header(directory, lease, told, Tally(0, 0))
        end = {"is": "end", "why": "error", "at": time.time(), "message": str(error)}
        with JournalWriter(directory.journal(element, lease.attempt), header) as journal:
            journal.append([end])
            journal.sync()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
