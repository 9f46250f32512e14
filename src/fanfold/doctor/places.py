"""Does a place work here? Tasks are run in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from time import perf_counter
from types import FrameType
from typing import Any

from fanfold.api import map as map_tasks
from fanfold.doctor.findings import Finding, State, fact
from fanfold.doctor.task import whereabouts
from fanfold.errors import FanfoldError, SchedulerDown, UsageError
from fanfold.executors import registry
from fanfold.executors.base import Executor
from fanfold.resources import Resources
from fanfold.runs.status import read_status
from fanfold.schedulers.queue import Queue
from fanfold.schedulers.registry import SCHEDULERS, scheduler
from fanfold.store.directory import RunDirectory, run_directories
from fanfold.units import format_duration

__all__ = ["limits", "try_place"]

_FEW, _MANY = range(4), range(400)
_WALLTIME = 120  # seconds: what the job of a scheduler asks for
_COMMAND = re.compile(r'\b(pip install "[^"]+"|pip install \S+|module load \w+)')
_MODULES = {"LMOD_CMD", "MODULESHOME"}  # what a shell has that knows modules
_ANSWER = 5.0  # seconds in which a scheduler is to say why a job waits
_LONGEST = 240  # characters of an error


class _TimeOver(KeyboardInterrupt):
    """Clears up as Ctrl-C does. An `Exception` may be suppressed by any code that it interrupts."""


def try_place(
    name: str, *, limit: float, folder: str, queue: str | None, account: str | None
) -> Iterator[Finding]:
    """Run a few tasks in the place of that name, for ``limit`` seconds at most.

    What a scheduler needs is kept in ``folder`` meanwhile; its job goes to ``queue``, and
    ``account`` pays.
    """
    try:
        with _place(name, folder, queue, account) as (executor, kept), _limited(limit, kept):
            what, seconds = _measured(executor)
        yield Finding("place", name, "works", what, "", seconds)
    except _TimeOver as error:
        yield Finding("place", name, "broken", str(error), _patience(name, limit))
    except (UsageError, ImportError) as error:
        yield _failure(name, "absent", error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is to be told
        yield _failure(name, "broken", error)


def _measured(executor: Executor) -> tuple[str, float]:
    """What it did, in words, and the seconds until the first tasks had ended."""
    with executor:
        began = perf_counter()
        hosts = set(map_tasks(whereabouts, _FEW, on=executor, progress=False))
        seconds = perf_counter() - began
        where = ", ".join(sorted(hosts - {os.uname().nodename}))
        what = f"first results after {format_duration(seconds)}"
        if not executor.batch:
            began = perf_counter()
            map_tasks(whereabouts, _MANY, on=executor, progress=False)
            each = (perf_counter() - began) / len(_MANY)
            what += f", then {format_duration(each)} a task"
    return f"{what}, on {where}" if where else what, seconds


@contextmanager
def _place(
    name: str, folder: str, queue: str | None, account: str | None
) -> Iterator[tuple[Executor, Path | None]]:
    """The executor, and the folder of its runs where it keeps any, which is removed."""
    if name not in SCHEDULERS:
        yield registry.resolve(name, 2)[0], None
        return
    _check_scheduler(name)
    asked = Resources(walltime=_WALLTIME, queue=queue, account=account)
    runs = Path(folder)
    made = not runs.exists()
    runs.mkdir(parents=True, exist_ok=True)
    kept = Path(tempfile.mkdtemp(prefix="doctor-", dir=runs))
    try:
        options: dict[str, Any] = {"resources": asked, "elements": 1, "folder": kept}
        yield registry.make(name, None, **options), kept
    finally:
        shutil.rmtree(kept, ignore_errors=True)
        if made:
            with suppress(OSError):
                runs.rmdir()


def _check_scheduler(name: str) -> None:
    """Does it answer at all? Raises `UsageError` and `SchedulerDown`."""
    asked = scheduler(name)
    if shutil.which(asked.command) is None:
        perhaps = f" (perhaps: module load {name})" if _MODULES.intersection(os.environ) else ""
        raise UsageError(
            f"there is no command {asked.command}: it is on the login nodes of a cluster{perhaps}"
        )
    try:
        Queue(asked).find("fanfold-doctor")
    except SchedulerDown as error:
        raise SchedulerDown(f"its commands are here, but it does not answer: {error}") from error


@contextmanager
def _limited(limit: float, kept: Path | None) -> Iterator[None]:
    """After ``limit`` seconds, interrupt what goes on within, so that it clears up."""
    over = threading.Event()
    why = [""]

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if not over.is_set():
            raise _TimeOver(f"no result within {format_duration(limit)}{why[-1]}")

    def watch() -> None:
        if not over.wait(limit):
            if kept is not None:
                asking = Thread(target=lambda: why.append(_why_waiting(kept)), daemon=True)
                asking.start()
                asking.join(_ANSWER)
            signal.pthread_kill(caller, signal.SIGALRM)

    signal.signal(signal.SIGALRM, interrupt)
    caller = threading.get_ident()
    # A thread asks, not the signal's handler: that may have interrupted the one whose turn it is
    # to ask the scheduler, and would wait for it for ever.
    watching = Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def _why_waiting(kept: Path) -> str:
    """What the scheduler says of the job; it is cancelled then."""
    for path in run_directories(kept):
        with suppress(FanfoldError, OSError):
            for one in read_status(RunDirectory.open(path)).elements:
                if one.job is None:
                    continue
                reason = one.seen.reason if one.seen is not None else ""
                said = f" ({reason})" if reason else ""
                return f": job {one.job} is {one.state}{said}, and is cancelled"
    return ""


def _patience(name: str, limit: float) -> str:
    if name not in SCHEDULERS:
        return ""
    return f"fanfold doctor --place {name} --timeout {format_duration(max(600.0, 10 * limit))}"


def _failure(name: str, state: State, error: Exception) -> Finding:
    """An error as a finding; the command in its message becomes the remedy."""
    message = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, FanfoldError):
        message = f"{type(error).__name__}: {message}"
    found = _COMMAND.search(message)
    remedy = found[1] if found else ""
    message = message.removesuffix(f"(perhaps: {remedy})").removesuffix(remedy).rstrip(" :;,")
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST - 3]}..."
    return Finding("place", name, state, message, remedy)


def limits(name: str) -> Iterator[Finding]:
    """What a scheduler that is here allows."""
    troubles: list[str] = []
    found = Queue(scheduler(name)).limits(troubles.append)
    label = f"{name} limits"
    if troubles:
        yield fact(label, f"not told; arrays of {found.elements} elements are taken for allowed")
        return
    jobs = "no limit of jobs is told" if found.jobs is None else f"{found.jobs} jobs"
    yield fact(
        label, f"{found.elements} elements an array, indices to {found.highest_index}, {jobs}"
    )
