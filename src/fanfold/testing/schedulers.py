"""The conformance suite for schedulers: `SchedulerTests`."""

from __future__ import annotations

import os
import pty
import re
import secrets
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fanfold.errors import SchedulerDown, SubmitRefused, UsageError
from fanfold.resources import Resources
from fanfold.schedulers.base import ENDED, Answer, Scheduler
from fanfold.testing.desk import Desk, Elements

__all__ = ["SchedulerTests"]

# Names that a shell, a directive or a pattern of file names would read as something else.
HOSTILE = (
    "two words",
    "$(touch CANARY)",
    "`touch CANARY`",
    ";touch CANARY;",
    "'\"",
    "&& touch CANARY",
    "%a%j%%",
    "^array_index^",
    "-z",
    "#",
    "*?[a]",
    "back\\slash",
    "naïve",
    "line\ntouch CANARY #",
)


class SchedulerTests:
    """Hold a scheduler, as fanfold speaks to it, to the contract of
    `fanfold.schedulers.base.Scheduler`.

    Real scripts are submitted with the commands that are installed. Subclass it in a test file, and
    say which scheduler it is, and a directive that it does not take; pytest does the rest:

    >>> from fanfold.schedulers.registry import scheduler
    >>> class TestOurCluster(SchedulerTests):
    ...     scheduler = scheduler("slurm")
    ...     wrong_directive = "--time=soon"

    Everything else has a default, for a site where one has an account (give pytest a --basetemp
    there that every node sees):

    - ``environment``, a fixture: the variables that the commands need;
    - ``records`` (True): it can be asked about jobs that ended long ago;
    - ``shortest_walltime`` (``"1m"``), and ``expire``, a fixture: a function that lets the walltime
      of a running job be over sooner;
    - ``stopped``, a fixture: the scheduler does not answer while a test has it;
    - ``interactive`` (True): it gives shells;
    - ``patience`` (60): seconds that anything may take.
    """

    scheduler: ClassVar[Scheduler]
    wrong_directive: ClassVar[str]
    records: ClassVar[bool] = True
    interactive: ClassVar[bool] = True
    shortest_walltime: ClassVar[str] = "1m"
    patience: ClassVar[float] = 60.0

    @pytest.fixture
    def environment(self) -> Mapping[str, str]:
        """The variables that lead the commands to the scheduler."""
        return {}

    @pytest.fixture
    def expire(self) -> Callable[[str], None]:
        """Lets the walltime of a running job be over sooner than it would be."""
        return lambda job: None

    @pytest.fixture
    def stopped(self) -> None:
        """The scheduler does not answer."""
        pytest.skip("this scheduler is not for the tests to stop")

    @pytest.fixture
    def desk(
        self, environment: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Desk]:
        """Where jobs are handed in; those that a test leaves are cancelled."""
        for name, example in (("scheduler", 'scheduler("slurm")'), ("wrong_directive", '"--x"')):
            if not hasattr(self, name):
                raise NotImplementedError(
                    f"{type(self).__name__} must say which {name.replace('_', ' ')}:\n"
                    f"    {name} = {example}"
                )
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        folder = tmp_path / "desk"
        folder.mkdir()
        monkeypatch.chdir(folder)
        desk = Desk(self.scheduler, folder, self.patience)
        yield desk
        desk.close()

    def test_array(self, desk: Desk) -> None:
        """Every element of an array is run, once, with an index of its own."""
        job = desk.submit(f'echo once >> {desk.folder}/"{desk.index}".ran', last=4)
        ended = desk.end_of(job)
        assert set(ended) == {0, 1, 2, 3, 4}
        assert {seen.state for seen in ended.values()} == {"done"}
        assert {seen.job for seen in ended.values()} == {job}
        ran = {path.stem: path.read_text() for path in desk.folder.glob("*.ran")}
        assert ran == dict.fromkeys("01234", "once\n")

    def test_job_knows_its_id(self, desk: Desk) -> None:
        """The id that a job finds in its environment is the one that its submitter was told."""
        variable = self.scheduler.variables["job"]
        job = desk.submit(f"echo ${{{variable}}} > {desk.folder}/id", last=1)
        desk.end_of(job)
        assert (desk.folder / "id").read_text().strip() == job

    def test_one_element(self, desk: Desk) -> None:
        """A job of one element is no array: it has no index."""
        job = desk.submit(desk.mark("ran"))
        ended = desk.end_of(job)
        assert [(seen.index, seen.state) for seen in ended.values()] == [(None, "done")]
        assert desk.marks() == {"ran-none"}

    def test_output(self, desk: Desk) -> None:
        """What an element prints, on stdout and stderr, is in one file, with its index at the end;
        a job of one element has the index 0."""
        say = f'echo "stdout of {desk.index}"; echo "stderr of {desk.index}" >&2'
        output = desk.folder / "printed"
        array = desk.submit(say, last=1, output=str(output))
        alone = desk.submit(say, output=f"{output}-alone")
        desk.end_of(array)
        desk.end_of(alone)
        for path, index in (("printed.0", "0"), ("printed.1", "1"), ("printed-alone.0", "none")):
            assert desk.printed(path) == [f"stdout of {index}", f"stderr of {index}"]

    def test_exit_statuses(self, desk: Desk) -> None:
        """Each element has the exit status of its script, whatever became of the others."""
        job = desk.submit(f"set -- 0 3 100 1; shift {desk.index}; exit $1", last=3)
        ended = desk.end_of(job)
        assert [(ended[index].state, ended[index].exit_status) for index in range(4)] == [
            ("done", 0), ("failed", 3), ("failed", 100), ("failed", 1),
        ]  # fmt: skip

    def test_signal(self, desk: Desk) -> None:
        """A script that a signal ended has failed, and the signal is told."""
        (ended,) = desk.end_of(desk.submit("kill -KILL $$")).values()
        assert (ended.state, ended.signal) == ("failed", 9)

    def test_at_once(self, desk: Desk) -> None:
        """No more elements run at a time than asked for; the others wait, and there is a reason."""
        job = desk.submit(desk.wait_at_gate, last=3, at_once=2)
        desk.gate.wait_for(2)
        elements = desk.elements(job)
        states = [elements[index].state for index in range(4)]
        assert states.count("waiting") == 2
        assert all(seen.reason for seen in elements.values() if seen.state == "waiting")
        desk.gate.open()
        desk.end_of(job)
        assert len(desk.gate.came()) == 4

    def test_running(self, desk: Desk) -> None:
        """Of a running job it is told where it runs and since when."""
        before = time.time()
        job = desk.submit(desk.wait_at_gate)
        desk.wait_for(job, "running", None)
        seen = desk.elements(job)[None]
        assert seen.node
        assert seen.began is not None
        assert before - 5 < seen.began < time.time() + 5
        assert seen.exit_status is None
        assert seen.ended is None

    def test_jobs_watched_together(self, desk: Desk) -> None:
        """One question tells of several jobs, and of none that is not known."""
        array = desk.submit(desk.wait_at_gate, last=2)
        alone = desk.submit(desk.wait_at_gate)
        unknown = _other_number(array)
        seen = desk.watch(array, unknown, alone)
        assert {(one.job, one.index) for one in seen} == {
            (array, 0), (array, 1), (array, 2), (alone, None),
        }  # fmt: skip
        assert desk.watch(unknown) == []
        assert desk.history(unknown) == []

    def test_cancel_elements(self, desk: Desk) -> None:
        """Elements that are cancelled end, or never begin; the others go on."""
        job = desk.submit(f"{desk.wait_at_gate}; {desk.mark('ran')}", last=5, at_once=3)
        desk.gate.wait_for(3)
        running, waiting = desk.gate.came(), {str(i) for i in range(6)} - desk.gate.came()
        gone = [int(min(running)), int(min(waiting)), int(max(waiting))]
        desk.cancel(job, gone)
        desk.wait_for(job, "cancelled", gone[0])
        desk.gate.open()
        left = set(range(6)) - set(gone)
        desk.wait_for(job, "done", *left)
        assert desk.marks() == {f"ran-{index}" for index in left}

    def test_cancel_job(self, desk: Desk) -> None:
        """A job that is cancelled ends as a whole, and to cancel it again is no error."""
        job = desk.submit(f"{desk.wait_at_gate}; {desk.mark('ran')}", last=3, at_once=2)
        desk.gate.wait_for(2)
        desk.cancel(job)
        running = [int(name) for name in desk.gate.came()]
        desk.wait_for(job, "cancelled", *running)
        assert {seen.state for seen in desk.elements(job).values()} == {"cancelled"}
        desk.gate.open()
        desk.cancel(job)
        assert desk.marks() == set()

    def test_cancel_what_has_ended(self, desk: Desk) -> None:
        """To cancel what has ended, or what never was, is no error and changes nothing."""
        job = desk.submit("true")
        desk.end_of(job)
        desk.cancel(job)
        desk.cancel(_other_number(job))
        assert desk.end_of(job)[None].state == "done"

    def test_after(self, desk: Desk) -> None:
        """A job that is to begin after others waits for all their elements."""
        first = desk.submit(f"{desk.wait_at_gate}; {desk.mark('first')}", last=1)
        second = desk.submit(f"ls {desk.folder} > {desk.folder}/found", after=[first])
        desk.gate.wait_for(2)
        assert desk.elements(second)[None].state == "waiting"
        desk.gate.open()
        assert desk.end_of(second)[None].state == "done"
        found = (desk.folder / "found").read_text().split()
        assert {"first-0.mark", "first-1.mark"} <= set(found)

    def test_after_a_failure(self, desk: Desk) -> None:
        """A job that is to begin after one that fails does not begin."""
        first = desk.submit(f"{desk.wait_at_gate}; exit 1")
        second = desk.submit(desk.mark("second"), after=[first])
        desk.gate.open()
        desk.end_of(first)
        desk.end_of(desk.submit(desk.mark("later")))  # it had its chance
        assert desk.marks() == {"later-none"}
        assert {one.state for one in desk.elements(second).values()} <= {"waiting", "cancelled"}

    def test_walltime(self, desk: Desk, expire: Callable[[str], None]) -> None:
        """What runs longer than it asked for is ended, and that was why."""
        job = desk.submit(desk.wait_at_gate, resources=Resources(walltime=self.shortest_walltime))
        desk.wait_for(job, "running", None)
        expire(job)
        assert desk.end_of(job)[None].state == "walltime"

    def test_cores(self, desk: Desk) -> None:
        """A job has as many cores as it asked for, by what fanfold counts in it."""
        python = shlex.quote(sys.executable)
        count = f'{python} -c "import fanfold; print(*fanfold.cores().reasons, sep=chr(10))"'
        job = desk.submit(count, resources=Resources(cores=3), output=str(desk.folder / "told"))
        assert desk.end_of(job)[None].state == "done"
        told = desk.printed("told.0")
        assert any("limit=3," in line for line in told), told

    def test_search(self, desk: Desk) -> None:
        """A job is found by its whole name, as long as it is known, and others are not."""
        job = desk.describe(last=1)
        desk.submit("true")
        number = self.scheduler.submitted(desk.hand_in(job, desk.wait_at_gate))
        assert desk.find(job.name) == [number]
        assert desk.find(job.name[:-1]) == []
        assert desk.find(f"{job.name}0") == []
        desk.gate.wait_for(2)
        assert desk.find(job.name) == [number]
        desk.gate.open()
        desk.end_of(number)
        if self.records:
            assert desk.find(job.name) == [number]

    def test_history(self, desk: Desk) -> None:
        """Records tell how each element ended, and when; where none are kept they say nothing."""
        before = time.time()
        job = desk.submit(f"exit {desk.index}", last=2)
        ended = desk.end_of(job)
        if not self.records:
            assert desk.history(job) == []
            return
        recorded = self._recorded(desk, job, 3)
        assert [(recorded[index].state, recorded[index].exit_status) for index in range(3)] == [
            ("done", 0), ("failed", 1), ("failed", 2),
        ]  # fmt: skip
        for index, seen in recorded.items():
            assert seen.began is not None
            assert seen.ended is not None
            assert before - 5 < seen.began <= seen.ended < time.time() + 5
            assert seen.node == ended[index].node

    def _recorded(self, desk: Desk, job: str, count: int) -> Elements:
        """The records of a job, as soon as they are complete: they come late."""
        deadline = time.monotonic() + self.patience
        while True:
            recorded = {seen.index: seen for seen in desk.history(job)}
            if sum(seen.state in ENDED for seen in recorded.values()) == count:
                return recorded
            assert time.monotonic() < deadline, recorded
            time.sleep(0.1)

    @pytest.mark.parametrize("wrong", ["queue", "directive"])
    def test_refused(self, desk: Desk, wrong: str) -> None:
        """What the scheduler does not take is refused in its own words; nothing is submitted."""
        asked = Resources(queue="nowhere")
        if wrong == "directive":
            asked = Resources(extra=[self.wrong_directive])
        job = desk.describe(resources=asked)
        self._assert_refused(desk, desk.hand_in(job, "true"))
        assert desk.find(job.name) == []

    def test_limits(self, desk: Desk) -> None:
        """The largest array that the site's limits allow is taken; one larger is refused, in the
        scheduler's own words."""
        limits = desk.limits()
        last = min(limits.elements - 1, limits.highest_index)
        blocker = desk.submit(desk.wait_at_gate)  # so that they do not all run
        desk.submit("true", last=last, after=[blocker])
        too_large = desk.describe(last=last + 1, after=[blocker])
        self._assert_refused(desk, desk.hand_in(too_large, "true"))
        assert desk.find(too_large.name) == []

    def test_impossible_memory(self, desk: Desk) -> None:
        """More memory than there is is refused, or waits, with the scheduler's words for why."""
        answer = desk.hand_in(desk.describe(resources=Resources(memory="900TB")), "true")
        if answer.code:
            self._assert_refused(desk, answer)
        else:
            job = self.scheduler.submitted(answer)
            desk.wait(job, "a reason", lambda seen: bool(seen[None].reason))
            assert desk.elements(job)[None].state == "waiting"

    def _assert_refused(self, desk: Desk, answer: Answer) -> None:
        desk.submit("true")  # without what is wrong it would have been taken
        with pytest.raises(SubmitRefused) as caught:
            self.scheduler.submitted(answer)
        words = [line.rpartition(": ")[2] for line in answer.err.splitlines() if line.strip()]
        assert any(line in str(caught.value) for line in words), caught.value

    @pytest.mark.parametrize("what", ["name", "output"])
    def test_hostile_text(self, desk: Desk, what: str) -> None:
        """A name or a path is refused, or is what it says: no shell, directive or pattern reads
        anything else in it."""
        canary = f"canary-{secrets.token_hex(4)}"
        jobs = {}
        for text in (text.replace("CANARY", canary) for text in HOSTILE):
            given: Any = {what: text if what == "name" else str(desk.folder / text)}
            with suppress(UsageError):
                answer = desk.hand_in(desk.describe(**given), "echo ran")
                jobs[text] = self.scheduler.submitted(answer)
        assert jobs
        for text, job in jobs.items():
            assert desk.end_of(job)[None].state == "done", text
            if what == "output":
                assert desk.printed(f"{text}.0") == ["ran"]
        for folder in (Path.cwd(), Path.home(), desk.folder):
            assert not (folder / canary).exists()

    def test_nobody_answers(self, desk: Desk, stopped: None) -> None:
        """Where the scheduler does not answer, each question says so, with its words."""
        unknown = "4711"
        questions: list[Callable[[], object]] = [
            lambda: desk.submit("true"),
            lambda: desk.find("kit-nobody"),
            lambda: desk.watch(unknown),
            lambda: desk.cancel(unknown),
        ]
        with ThreadPoolExecutor(len(questions)) as pool:  # they may take a while to find out
            asked = [pool.submit(question) for question in questions]
        errors = [future.exception() for future in asked]
        assert [type(error) for error in errors] == [SchedulerDown] * len(questions), errors
        assert all(str(error) for error in errors)

    def test_shell(self, desk: Desk) -> None:
        """One can have a shell on a node, at a terminal."""
        if not self.interactive:
            pytest.skip("this scheduler gives no shells")
        said = _at_a_terminal(
            self.scheduler.shell(Resources()), "echo $((6 * 7)); tty; exit\n", self.patience
        )
        assert "42" in said
        assert "/dev/" in said


def _at_a_terminal(command: Sequence[str], typed: str, patience: float) -> str:
    """What a command says at a terminal of its own, where that is typed."""
    ours, theirs = pty.openpty()
    # the terminal that the leader of a session opens is the one that controls it
    there = ["sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(theirs), *command]
    said = b""
    with subprocess.Popen(there, start_new_session=True) as process:
        os.write(ours, typed.encode())
        while select.select([ours], [], [], 0.1)[0] or process.poll() is None:
            said += os.read(ours, 1 << 16) if select.select([ours], [], [], 0)[0] else b""
            patience -= 0.1
            if patience < 0:
                process.kill()
    os.close(ours)
    os.close(theirs)
    return said.decode(errors="replace")


def _other_number(job: str) -> str:
    """An id that looks like this one, and that no job has."""
    return re.sub("[0-9]+", "987654", job, count=1)
