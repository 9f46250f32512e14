"""A durable run, for whoever holds it: to wait, to look, to retry, to cancel."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fanfold.dispatch import Event, Listener
from fanfold.errors import FanfoldError, LoadFailed, RunCancelled, RunUnfinished, TaskMissing
from fanfold.resources import Resources
from fanfold.runs.asked import Asked
from fanfold.runs.cluster import Cluster, Submission, settle
from fanfold.runs.driver import Driver, Work
from fanfold.runs.elements import Watch, is_over, open_arrays, queue_of
from fanfold.runs.frames import forget_damaged
from fanfold.runs.inputs import read_generation, read_inputs
from fanfold.runs.learned import learned
from fanfold.runs.prepare import load
from fanfold.runs.recorder import cancel_request
from fanfold.runs.remote import Remote, cancel, wait_for
from fanfold.runs.results import Results
from fanfold.runs.state import DONE, FAILED, MISSING, State, read_state
from fanfold.runs.status import Status, read_status
from fanfold.runs.usage import write_usage
from fanfold.store.directory import RunDirectory, safe_name
from fanfold.store.lease import Lease, holder
from fanfold.tasks import MapStarted, Outcome

if TYPE_CHECKING:
    from fanfold.history import Failure, History
    from fanfold.reports.next_time import NextTime
    from fanfold.runs.table import Table

__all__ = ["FOLDER", "Run"]

FOLDER = "fanfold-runs"
_LOOK = 0.2  # seconds between looks at a run that another process drives
_OLD = 10.0  # seconds: what a scheduler said before that is asked again
_NOW = 0.0  # the same, where something is to be submitted


class Run:
    """A durable run: a handle that any process may hold.

    `fanfold.run` makes one, `Run.open` finds one.
    """

    def __init__(self, directory: RunDirectory, asked: Asked, *, trust: bool = False) -> None:
        self.name = asked.name
        self.path = directory.path
        self._directory = directory
        self._asked = asked
        self._trust = trust
        self._driver: Driver | Remote | None = None
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

    def _repr_html_(self) -> str:
        """Its report, as a notebook shows it."""
        from fanfold.reports import render_html
        from fanfold.reports.formats import html

        return html.frame(render_html(self.history()))

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
        if "cluster" in work.options:
            self._driver = self._remote(work, everything, progress, listeners, steal)
            return self._driver.notes
        if self._directory.arrays():
            lease = work.lease or Lease.take(self._directory, 0, steal=steal)
            try:
                settle(self._directory, steal=steal)
            except BaseException:
                lease.release()
                raise
            work = replace(work, lease=lease)
        self._driver = Driver(
            work,
            everything=everything,
            progress=progress,
            listeners=[*listeners, self._note_begin],
            steal=steal,
        )
        return self._driver.notes

    def _remote(
        self,
        work: Work,
        everything: bool,
        progress: bool | None,
        listeners: Sequence[Listener],
        steal: bool,
    ) -> Remote:
        """What is at work already is followed, and not submitted again."""
        submission = None
        if everything or steal or not self._at_work(_NOW):
            cluster = Cluster.of(work.options["cluster"])
            submission = Submission.plan(work, cluster, everything=everything, steal=steal)
        state = read_state(self._directory) if submission is None else submission.state
        return Remote(
            self._directory, self._asked.id, submission, state,
            progress=progress, listeners=listeners,
        )  # fmt: skip

    def _at_work(self, max_age: float = _OLD) -> bool:
        """Are elements of it waiting, running, or may they be?"""
        arrays = open_arrays(self._directory)
        if not arrays:
            return False
        queue = queue_of(self._directory, arrays[0].scheduler)
        return not all(is_over(one.state) for one in Watch(self._directory, queue).look(max_age))

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
        """Do the work in a thread of its own, or submit it; returns when it has begun.

        A program may end then: Python waits for the thread, but from 3.12 on lets it make no
        threads and processes any more.
        """
        if isinstance(self._driver, Remote):
            self._driver.submit()
        elif self._driver is not None:
            self._begun.clear()
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
        while self._thread is None and self._is_driven_elsewhere():
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"the run {self.name} has not ended in {timeout:g} s")
            time.sleep(_LOOK)
        for _ in wait_for(self._directory, timeout):
            pass
        if self._directory.arrays():
            keep_usage(self._directory, self.history())
        return self

    def _wait_here(self, timeout: float | None) -> None:
        assert self._thread is not None  # asked by who calls  # noqa: S101
        try:
            self._thread.join(timeout)
        except KeyboardInterrupt as interrupt:
            if isinstance(self._driver, Driver):
                self._driver.stop(interrupt)
            self._thread.join()
            raise
        if self._thread.is_alive():
            raise TimeoutError(f"the run {self.name} has not ended in {timeout:g} s")
        error, self._error = self._error, None
        if error is not None:
            raise error

    def is_driven(self) -> bool:
        """Does a process or a job work on it now, as far as can be known?"""
        return self._is_driven_elsewhere() or self._at_work()

    def _is_driven_elsewhere(self) -> bool:
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

        history = self.history()
        keep_usage(self._directory, history)
        if html is None:
            return render_text(history, width)
        path = Path(html)
        path.write_text(render_html(history), encoding="utf-8")
        return str(path)

    def advise(self) -> NextTime:
        """What to ask a scheduler for next time: cores, memory, walltime, elements and workers.

        Its text holds options of ``fanfold run`` and directives of both schedulers, to be copied.
        Raises `RunUnfinished` where nothing is known to go by.

        >>> import fanfold as ff
        >>> ff.run(abs, [-1, -2], name="advised", on="threads").wait().advise().resources.cores
        1
        """
        from fanfold.reports.next_time import next_time

        advised = next_time(self.history())
        if advised is None:
            raise RunUnfinished(
                f"nothing of {self.name} has ended yet: there is nothing to go by. Wait for it"
            )
        return advised

    def retry(
        self,
        *,
        all: bool = False,  # noqa: A002
        progress: bool | None = None,
        resources: Resources | None = None,
    ) -> Run:
        """Run again what failed, what is missing and what is damaged, with ``all`` everything;
        returns itself. On a scheduler ``resources`` replace what was asked for before.

        Raises `RunChanged` when the function has changed: `run` with its name takes it anew.
        """
        self.take_again(everything=all, progress=progress, resources=resources)
        self.start()
        return self

    def take_again(
        self,
        *,
        everything: bool = False,
        progress: bool | None = None,
        resources: Resources | None = None,
    ) -> list[str]:
        """`take`, from what the folder holds."""
        work = load(self._directory, trust=self._trust)
        work = replace(work, costs=learned(work, everything=everything))
        if resources is not None and "cluster" in work.options:
            work.options["cluster"] |= {"resources": resources._asdict()}
        return self.take(work, everything=everything, progress=progress)

    @property
    def resources(self) -> Resources | None:
        """What was asked for of each element on a scheduler; None elsewhere."""
        cluster = self._asked.options.get("cluster")
        return None if cluster is None else Resources(**cluster["resources"])

    def cancel(self, *, element: int | None = None) -> None:
        """Stop it, wherever it is driven, and wait until it has stopped. What is done stays.

        With ``element`` only that element of a job array is ended.
        """
        if element is not None or open_arrays(self._directory):
            cancel(self._directory, element)
            for watched in wait_for(self._directory):
                if element in {one.number for one in watched if is_over(one.state)}:
                    break
            return
        if self._thread is not None and isinstance(self._driver, Driver):
            self._driver.stop(RunCancelled(f"the run {self.name} was cancelled"))
            self._thread.join()
            self._thread = self._error = None
            return
        last = holder(self._directory, 0)
        if last is None or last.alive is False:
            return
        cancel_request(self._directory, f"e0-a{last.attempt}").touch()
        self.wait()


def keep_usage(directory: RunDirectory, history: History) -> None:
    """Beside the logs, what the elements used; a folder that cannot be written goes without."""
    if history.elements:
        with suppress(FanfoldError):
            write_usage(directory.path / "logs", history)


def _may_be_a_run(path: Path) -> bool:
    try:
        return (path / "run.json").exists()
    except PermissionError:
        return True  # to open it tells
    except OSError:  # too long for a path, for example
        return False
