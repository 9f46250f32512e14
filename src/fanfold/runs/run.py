"""`fanfold.run`: a map that survives, resumes and reports."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fanfold.api import check_options
from fanfold.dispatch import Event, Listener
from fanfold.errors import LoadFailed, RunCancelled, RunUnfinished, TaskMissing, UsageError
from fanfold.executors import registry
from fanfold.executors.base import worker_count
from fanfold.runs.asked import Asked
from fanfold.runs.driver import Driver, Work
from fanfold.runs.frames import forget_damaged
from fanfold.runs.identity import FilePolicy
from fanfold.runs.inputs import read_generation, read_inputs
from fanfold.runs.prepare import Request, Resume, load, prepare
from fanfold.runs.recorder import cancel_request
from fanfold.runs.results import Results
from fanfold.runs.state import DONE, FAILED, MISSING, State, read_state
from fanfold.runs.status import Status, read_status
from fanfold.store.directory import RunDirectory, safe_name
from fanfold.store.lease import holder
from fanfold.tasks import MapStarted, Outcome

if TYPE_CHECKING:
    from fanfold.history import Failure, History
    from fanfold.runs.table import Table

__all__ = ["FOLDER", "Run", "begin", "run"]

FOLDER = "fanfold-runs"
_LOOK = 0.2  # seconds between looks at a run that another process drives


def run(
    func: Callable[..., Any],
    inputs: Iterable[Any],
    /,
    *,
    name: str | None = None,
    folder: str | os.PathLike[str] = FOLDER,
    on: str = "local",
    workers: int | None = None,
    chunk: int | None = None,
    retries: int = 0,
    timeout: float | None = None,
    errors: Literal["raise", "return"] = "return",
    seed: int | None = None,
    progress: bool | None = None,
    resume: Resume = "ask",
    files: FilePolicy = "stat",
    packages: Sequence[str] = (),
    steal: bool = False,
) -> Run:
    """Run ``func`` over ``inputs`` durably: everything of note is on disk, and any process may die.

    It begins at once, in the background; `Run.wait` waits for it. The same call with the same
    ``name`` goes on where the run stands: what is done is not done again.

    Parameters:
        func, inputs: as for `map`, with one iterable, which ends.
        name: of the run; by default the function's, with a number, and a new run.
        folder: where the runs are kept; this one in a folder of its own, private to you.
        on: "local" (worker processes), "processes", "threads" or "serial".
        workers, chunk, retries, timeout, seed, progress: as for `map`.
        errors: "return" goes on after a failure, "raise" stops after the first.
        resume: what to do when the function has changed since: "ask" raises `RunChanged`, which
            says what has; "anyway" keeps the results; "fresh" keeps the old run aside, and begins.
        files: inputs that name files change when these do: by "stat" (size and time), by "hash"
            (content), or "ignore".
        packages: more packages whose versions count as part of the function.
        steal: take the run over from a driver that may live; that one stops before it writes more.

    Raises `RunChanged`, `RunBusy` when another process works on it, and `UsageError`.

    >>> import fanfold as ff
    >>> run = ff.run(abs, [-1, -2, 3], name="signs", on="threads")
    >>> run.wait().results()
    [1, 2, 3]
    >>> ff.Run.open("signs").status().state
    'done'
    """
    check_options(chunk, retries, timeout, errors, seed)
    if resume not in get_args(Resume):
        raise UsageError(f"resume must be 'ask', 'anyway' or 'fresh', not {resume!r}")
    items = _listed(inputs)
    options = {
        "on": _place(on),
        "workers": None if workers is None else worker_count(workers, 1),
        "chunk": chunk,
        "retries": retries,
        "timeout": timeout,
        "errors": errors,
    }
    request = Request(
        func, items, Path(folder), options, name,
        seed=seed, resume=resume, files=files, packages=tuple(packages),
    )  # fmt: skip
    begun, _ = begin(request, progress=progress, steal=steal)
    begun.start()
    return begun


def begin(
    request: Request,
    *,
    progress: bool | None = None,
    listeners: Sequence[Listener] = (),
    steal: bool = False,
) -> tuple[Run, list[str]]:
    """`run` for programs: the run, taken but not started, and sentences about what has changed."""
    work, notes = prepare(request, steal=steal)
    begun = Run(work.directory, work.asked, trust=request.trust)
    damage = begun.take(work, progress=progress, listeners=listeners, steal=steal)
    return begun, notes + damage


class Run:
    """A durable run: a handle that any process may hold. `run` makes one, `Run.open` finds one."""

    def __init__(self, directory: RunDirectory, asked: Asked, *, trust: bool = False) -> None:
        self.name = asked.name
        self.path = directory.path
        self._directory = directory
        self._asked = asked
        self._trust = trust
        self._driver: Driver | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._begun = threading.Event()

    @classmethod
    def open(
        cls,
        name: str | os.PathLike[str],
        *,
        folder: str | os.PathLike[str] = FOLDER,
        trust: bool = False,
    ) -> Run:
        """The run of this name, or in this folder.

        ``trust`` lets you read results that somebody else has written: reading them runs what
        they put there. Raises `RunNotFound`.
        """
        path = Path(name)
        if not _may_be_a_run(path):
            path = Path(folder) / safe_name(os.fspath(name))
        directory = RunDirectory.open(path)
        return cls(directory, Asked.read(directory), trust=trust)

    def __repr__(self) -> str:
        return f"<fanfold.Run {self.name!r} in {self.path}>"

    def take(
        self,
        work: Work,
        *,
        everything: bool = False,
        progress: bool | None = None,
        listeners: Sequence[Listener] = (),
        steal: bool = False,
    ) -> list[str]:
        """Become its driver, if anything is missing: `drive` or `start` does the work.

        Returns sentences about what is damaged.
        """
        if not everything and work.lease is None and self._is_whole():
            self._driver = None  # that of an earlier time is spent
            return []
        self._driver = Driver(
            work,
            everything=everything,
            progress=progress,
            listeners=[*listeners, self._note_begin],
            steal=steal,
        )
        return self._driver.notes

    def _is_whole(self) -> bool:
        """Has every task a result that can be read?"""
        state = read_state(self._directory)
        return not state.without_result() and not any(
            forget_damaged(self._directory, state, self._asked.id)
        )

    def drive(self) -> None:
        """Do the work in this thread; raises KeyboardInterrupt when it is interrupted."""
        if self._driver is not None:
            self._driver.drive()

    def _note_begin(self, event: Event) -> None:
        if isinstance(event, MapStarted):
            self._begun.set()

    def start(self) -> None:
        """Do the work in a thread of its own; returns when it has begun.

        A program may end then: Python waits for the thread, but from 3.12 on lets it make no
        threads and processes any more.
        """
        if self._driver is not None:
            name = f"fanfold-run-{self.name}"
            self._thread = threading.Thread(target=self._drive_apart, name=name)
            self._thread.start()
            self._begun.wait()

    def _drive_apart(self) -> None:
        try:
            self.drive()
        except BaseException as error:  # noqa: BLE001 - raised by wait()
            self._error = error
        finally:
            self._begun.set()

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until it has ended, wherever it is driven; returns itself.

        Ctrl-C stops it, if it is driven here: what is done stays done. Raises `TimeoutError` after
        ``timeout`` seconds, and what ended the driver, where it was neither a task nor the end.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._thread is not None:
            self._wait_here(timeout)
        while self._thread is None and self.is_driven():
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"the run {self.name} has not ended in {timeout:g} s")
            time.sleep(_LOOK)
        return self

    def _wait_here(self, timeout: float | None) -> None:
        assert self._thread is not None  # asked by who calls  # noqa: S101
        try:
            self._thread.join(timeout)
        except KeyboardInterrupt as interrupt:
            if self._driver is not None:
                self._driver.stop(interrupt)
            self._thread.join()
            raise
        if self._thread.is_alive():
            raise TimeoutError(f"the run {self.name} has not ended in {timeout:g} s")
        error, self._error = self._error, None
        if error is not None:
            raise error

    def is_driven(self) -> bool:
        """Does a process work on it now, as far as can be known?"""
        last = holder(self._directory, 0)
        return last is not None and last.alive is not False

    def status(self) -> Status:
        """How far it is, without waiting."""
        return read_status(self._directory)

    def _state(self) -> State:
        if self._thread is not None:
            self.wait()
        return read_state(self._directory)

    def results(self, *, errors: Literal["raise", "return"] = "raise") -> list[Any]:
        """All results, in the order of the inputs; waits for them when the run is driven here.

        ``errors="return"`` puts exceptions in place: of the tasks that failed, and `TaskMissing`
        for those not tried to the end. With "raise" the first failure is raised, and
        `RunUnfinished` while tasks are missing. Raises `RunDamaged` where a result is: `retry`
        runs its task again.
        """
        state = self._state()
        if errors == "raise" and MISSING in state.status:
            raise RunUnfinished(
                f"{state.status.count(MISSING)} of {state.total} tasks of {self.name} have no "
                "result yet: wait for it, or call retry() to go on"
            )
        with self._results(state) as results:
            if errors == "raise" and FAILED in state.status:
                raise results.get(state.status.index(FAILED))
            if state.done == state.total:
                try:
                    return results.values()
                except LoadFailed:
                    if errors == "raise":
                        raise
            return [self._in_place(results, state, index) for index in range(state.total)]

    def __iter__(self) -> Iterator[Any]:
        """The results one by one, in the order of the inputs; a failure is raised in its place."""
        state = self._state()
        with self._results(state) as results:
            for index in range(state.total):
                if state.status[index] != DONE:
                    raise self._in_place(results, state, index)
                yield results.get(index)

    def _in_place(self, results: Results, state: State, index: int) -> Any:
        if state.status[index] == MISSING:
            missing = TaskMissing("the task has not been tried to its end: wait, or call retry()")
            missing.index = index
            return missing
        try:
            return results.get(index)
        except LoadFailed as error:
            return error

    def _results(self, state: State) -> Results:
        return Results(self._directory, state, self._asked.id, trust=self._trust)

    def table(self) -> Table:
        """Inputs and results as a table, a row a task that was tried, with what it failed with.

        >>> import fanfold as ff
        >>> table = ff.run(lambda x: x * x, [2, 3], on="threads").wait().table()
        >>> list(table)[1]
        {'index': 1, 'input': 3, 'result': 9, 'error': ''}
        """
        from fanfold.runs.table import tabulate

        generation = read_generation(self._directory)
        items = read_inputs(self._directory, generation, trust=self._trust)
        named = generation.style == "keywords"
        return tabulate(
            generation.columns,
            lambda index: items[index] if named else {generation.columns[0]: items[index]},
            self.outcomes(),
            errors=True,
        )

    def before(self) -> Iterator[Outcome]:
        """The results that were there when this process began to drive it."""
        state = self._driver.state if self._driver is not None else read_state(self._directory)
        return (outcome for outcome in self._outcomes(state) if outcome.ok)

    def outcomes(self) -> Iterator[Outcome]:
        """What the tasks ended with, in order, without those that are missing; does not wait."""
        return self._outcomes(read_state(self._directory))

    def _outcomes(self, state: State) -> Iterator[Outcome]:
        with self._results(state) as results:
            for index, status in enumerate(state.status):
                if status != MISSING:
                    value = self._in_place(results, state, index)
                    failed = status == FAILED or isinstance(value, LoadFailed)
                    yield Outcome(
                        index, None if failed else value, value if failed else None, 0.0, 1, "", 0
                    )

    def failures(self) -> list[Failure]:
        """The tasks that have failed, each with its cause and what it printed last."""
        return list(self.history().last_failures())

    def history(self) -> History:
        """All that is recorded of it."""
        from fanfold.runs.telling import read_history  # late: whoever only runs needs none

        return read_history(self._directory)

    def report(self, *, html: str | os.PathLike[str] | None = None, width: int = 100) -> str:
        """What happened, as text of ``width`` columns; with ``html`` a page is written there that
        needs nothing else, and its path is returned."""
        from fanfold.reports import render_html, render_text

        if html is None:
            return render_text(self.history(), width)
        path = Path(html)
        path.write_text(render_html(self.history()), encoding="utf-8")
        return str(path)

    def retry(self, *, all: bool = False, progress: bool | None = None) -> Run:  # noqa: A002
        """Run again what failed, what is missing and what is damaged, with ``all`` everything;
        returns itself.

        Raises `RunChanged` when the function has changed: `run` with its name takes it anew.
        """
        self.take_again(everything=all, progress=progress)
        self.start()
        return self

    def take_again(self, *, everything: bool = False, progress: bool | None = None) -> list[str]:
        """`take`, from what the folder holds."""
        work = load(self._directory, trust=self._trust)
        return self.take(work, everything=everything, progress=progress)

    def cancel(self) -> None:
        """Stop it, wherever it is driven, and wait until it has stopped. What is done stays."""
        if self._thread is not None and self._driver is not None:
            self._driver.stop(RunCancelled(f"the run {self.name} was cancelled"))
            self._thread.join()
            self._thread = self._error = None
            return
        last = holder(self._directory, 0)
        if last is None or last.alive is False:
            return
        cancel_request(self._directory, f"e0-a{last.attempt}").touch()
        self.wait()


def _may_be_a_run(path: Path) -> bool:
    try:
        return (path / "run.json").exists()
    except PermissionError:
        return True  # to open it tells
    except OSError:  # too long for a path, for example
        return False


def _place(on: object) -> str:
    if on in ("auto", "local"):
        return "processes"
    if not isinstance(on, str):
        raise UsageError(
            f"a run goes on when its executor is gone, so on= takes a name such as "
            f'"local", not {on!r}'
        )
    registry.check(on)
    return on


def _listed(inputs: Iterable[Any]) -> Sequence[Any]:
    if isinstance(inputs, (list, tuple, range)):
        return inputs
    try:
        return list(inputs)
    except TypeError:
        raise UsageError(
            f"the inputs must be iterable, as a list or a generator is, not {inputs!r}"
        ) from None
