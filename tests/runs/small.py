"""A scheduler in a folder, for the runs of these tests: it answers as a scheduler does, and its
elements are real processes of this machine.

Files in the folder tell it how to behave, so that it is the same for every process that asks.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import fanfold as ff
from fanfold.errors import SchedulerDown, SubmitRefused, SubmitUnknown
from fanfold.runs.arrays import read_array
from fanfold.runs.asked import Asked
from fanfold.runs.recorder import Tally, journal_header
from fanfold.runs.state import read_state
from fanfold.schedulers.base import Answer, JobState, Limits, Seen
from fanfold.schedulers.pace import Clock
from fanfold.schedulers.registry import SCHEDULERS
from fanfold.schedulers.slurm import Slurm
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import JournalWriter
from fanfold.store.lease import Lease
from fanfold.store.pack import PackWriter
from fanfold.testing.functions import until
from fanfold.transport.pickling import dumps

__all__ = [
    "SQUARES", "TASKS", "TOTAL", "Copy", "Site", "Small", "begun", "directory", "site_in", "work",
]  # fmt: skip

TASKS = """
import os
import pathlib
import time


def square(n):
    print("squaring", n)
    return n * n


def gated(n):
    pathlib.Path(f"began-{n}-{time.time_ns()}").touch()
    while not pathlib.Path("open").exists():
        time.sleep(0.01)
    return n * n


def half(n):  # even numbers are quick, odd ones wait
    return n * n if n % 2 == 0 else gated(n)


def signed(n):
    gated(n)
    return os.environ["SLURM_JOB_ID"]


def draw(n, scale):
    import fanfold

    return scale * float(fanfold.rng().random())


def fatal(n):
    if n == 1:
        os.kill(os.getpid(), 9)
    return n * n


def picky(n):
    pathlib.Path(f"began-{n}-{time.time_ns()}").touch()
    if n % 5 == 3 and not pathlib.Path("good").exists():
        raise ValueError(f"no square for {n}")
    return n * n


def picky_or_gated(n):
    return picky(n) if n < 4 else gated(n)
"""

TOTAL = 8
SQUARES = [n * n for n in range(TOTAL)]

# What a node does with a script: the exit status is kept when all is over, as a scheduler does.
_NODE = """
trap : TERM
sh "$1" >>"$2" 2>&1
code=$?
trap "" TERM  # mv, too, obeys none
echo $code >"$3.new"
mv "$3.new" "$3"
"""
_children: list[subprocess.Popen[bytes]] = []


class Small(Slurm):
    """It is asked with the command ``true``, and answers from its folder, ``SMALL_SITE``."""

    def submission(self, script: str, resources=None) -> list[str]:
        return ["true", script]

    def submitted(self, answer: Answer) -> str:
        return Site().submit(Path(answer.argv[-1]))

    def search(self, name: str) -> list[str]:
        return ["true", name]

    def found(self, answer: Answer) -> list[str]:
        return Site().search(answer.argv[-1])

    def watch(self, jobs: Sequence[str]) -> list[str]:
        return ["true", *jobs]

    def seen(self, answer: Answer) -> list[Seen]:
        return Site().watch(answer.argv[1:], "queue")

    def history(self, jobs: Sequence[str]) -> list[str]:
        return ["true", *jobs]

    def recorded(self, answer: Answer) -> list[Seen]:
        return Site().watch(answer.argv[1:], "records")

    def limits(self) -> list[str]:
        return ["true"]

    def read_limits(self, answer: Answer) -> Limits:
        return Site().limits()

    def cancel(self, job: str, indices: Sequence[int] | None = None) -> list[list[str]]:
        return [["true", job, *map(str, indices or ())]]

    def cancelled(self, answer: Answer) -> None:
        Site().cancel(answer.argv[1], [int(index) for index in answer.argv[2:]])


class Site:
    """The folder: a subfolder for each job, with files for each of its elements."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["SMALL_SITE"])
        self.later = 0.0  # seconds that its clock was moved

    def wait_a_while(self, seconds: float) -> None:
        """Move the clock of those who ask it."""
        self.later += seconds

    # How it is to behave: a file of that name, with these words

    def set(self, how: str, words: object = "") -> None:
        """``down`` (it answers nothing), ``hold`` (nothing is begun), ``refuse`` N (every job after
        N jobs), ``lose`` (every reply to a submission; and then it is ``down``), ``interrupt``
        (Ctrl-C comes while a job is submitted), ``limits`` (of an array)."""
        (self.folder / how).write_text(str(words))

    def unset(self, how: str) -> None:
        (self.folder / how).unlink()

    def say(self, job: str, index: int, state: JobState | None, **told: object) -> None:
        """What to tell of an element from now on, whatever it does; None: how it is."""
        path = self._file(job, index, "said")
        if state is None:
            path.unlink()
        else:
            path.write_text(json.dumps({"state": state, **told}))

    def lose(self, job: str, state: JobState = "node") -> None:
        """Say of all elements of a job that they have ended so."""
        for index in range(self._about(job)["last"] + 1):
            self.say(job, index, state)

    def forget(self, job: str) -> None:
        """Know nothing of a job any more, in the queue."""
        (self.folder / job / "forgotten").touch()

    # What it was asked

    def jobs(self) -> list[str]:
        """All that were ever accepted, in order."""
        return sorted(path.parent.name for path in self.folder.glob("*/job.json"))

    def calls(self) -> list[str]:
        """What it was asked, in order: submit, search, queue, records, limits or cancel."""
        path = self.folder / "calls"
        return path.read_text().split() if path.exists() else []

    def cancelled(self) -> list[str]:
        """The elements that it was asked to end, as ``JOB.INDEX``."""
        paths = self.folder.glob("*/*.cancelled")
        return sorted(f"{path.parent.name}.{path.stem}" for path in paths)

    def pid(self, job: str, index: int) -> int:
        """The leader of the processes of an element."""
        return int(self._file(job, index, "pid").read_text())

    def begin(self, job: str, index: int) -> None:
        """Begin an element; again, where it was begun before."""
        about = self._about(job)
        script = self.folder / job / "script"
        exited = self._file(job, index, "exit")
        exited.unlink(missing_ok=True)
        argv = ["/bin/sh", "-c", _NODE, "node", script, f"{about['output']}.{index}", exited]
        told = {"SLURM_ARRAY_TASK_ID": str(index)} if about["last"] else {}
        child = subprocess.Popen(
            argv,
            cwd="/",  # a node is elsewhere
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "SLURM_JOB_ID": job, **told},
            start_new_session=True,
        )
        _children.append(child)
        self._file(job, index, "pid").write_text(str(child.pid))
        log = Path(f"{about['output']}.{index}")  # once it is there the node obeys no TERM
        until(lambda: log.exists() or exited.exists(), "the node to begin", 60)

    def wait(self, job: str, index: int) -> int:
        """The exit status of an element, when it has ended."""
        path = self._file(job, index, "exit")
        until(path.exists, f"element {index} of job {job} to end", 60)
        return int(path.read_text())

    # Its answers

    def submit(self, script: Path) -> str:
        self._asked("submit")
        refuse = self.folder / "refuse"
        if refuse.exists() and len(self.jobs()) >= int(refuse.read_text()):
            raise SubmitRefused("Slurm refuses the job (invalid partition): name another (--queue)")
        job = f"{len(list(self.folder.glob('[0-9]*'))) + 101}"
        text = script.read_text()
        told = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
        about = {
            "name": told["job-name"],
            "last": int(re.sub(r"0-|%.*", "", told.get("array", "0"))),
            "output": re.sub(r"\.(%a|0)$", "", told["output"]),
        }
        (self.folder / job).mkdir()
        (self.folder / job / "script").write_text(text)
        (self.folder / job / "job.json").write_text(json.dumps(about))
        if not (self.folder / "hold").exists():
            for index in range(about["last"] + 1):
                self.begin(job, index)
        if (self.folder / "lose").exists():
            if (self.folder / "lose").read_text() == "down":
                self.set("down")
            raise SubmitUnknown("the reply was lost")
        if (self.folder / "interrupt").exists():
            raise KeyboardInterrupt
        return job

    def search(self, name: str) -> list[str]:
        self._asked("search")
        return [job for job in self.jobs() if self._about(job)["name"] == name]

    def watch(self, jobs: Sequence[str], where: str) -> list[Seen]:
        self._asked(where)
        found = []
        for job in jobs:
            if where == "queue" and not (self.folder / job / "forgotten").exists():
                found += self._elements(job)
        return found

    def limits(self) -> Limits:
        self._asked("limits")
        path = self.folder / "limits"
        return Limits(*map(int, path.read_text().split())) if path.exists() else Limits()

    def cancel(self, job: str, indices: Sequence[int]) -> None:
        self._asked("cancel")
        for index in indices or range(self._about(job)["last"] + 1):
            if not self._file(job, index, "exit").exists():
                self._file(job, index, "cancelled").touch()
                self._signal(job, index, signal.SIGTERM)

    # Inside

    def _asked(self, what: str) -> None:
        with (self.folder / "calls").open("a") as out:
            print(what, file=out)
        if (self.folder / "down").exists():
            raise SchedulerDown("Slurm does not answer: connection refused")

    def _about(self, job: str) -> dict:
        return json.loads((self.folder / job / "job.json").read_text())

    def _file(self, job: str, index: int, kind: str) -> Path:
        return self.folder / job / f"{index}.{kind}"

    def _elements(self, job: str) -> Iterator[Seen]:
        last = self._about(job)["last"]
        for index in range(last + 1):
            yield self._element(job, index)._replace(index=index if last else None)

    def _element(self, job: str, index: int) -> Seen:
        seen = Seen(job, index, "waiting", "PENDING", "Resources")
        said, exited = self._file(job, index, "said"), self._file(job, index, "exit")
        begun = self._file(job, index, "pid").exists()
        if said.exists():
            return seen._replace(word="", reason="", **json.loads(said.read_text()))
        if self._file(job, index, "cancelled").exists():
            over = exited.exists() or not begun
            return seen._replace(state="cancelled" if over else "ending", word="CANCELLED")
        if exited.exists():
            status = int(exited.read_text())
            state = "failed" if status else "done"
            return seen._replace(state=state, word="", reason="", exit_status=status)
        if begun:
            return seen._replace(state="running", word="RUNNING", reason="", node="n1")
        return seen

    def _signal(self, job: str, index: int, number: int) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(self.pid(job, index), number)

    def close(self) -> None:
        """End what still runs, and wait until it has."""
        for job in self.jobs():
            for index in range(self._about(job)["last"] + 1):
                if not self._file(job, index, "exit").exists():
                    self._signal(job, index, signal.SIGCONT)
                    self._signal(job, index, signal.SIGKILL)
        while _children:
            _children.pop().wait(60)


class Copy:
    """What a copy of an element writes that stands nowhere but in this process: it looks at no
    fence, as one that was stopped between its look and its writing."""

    def __init__(self, directory: RunDirectory, array: int, index: int) -> None:
        told = read_array(directory, array)
        element = told.first + index
        before = read_state(directory, element=element)
        self._lease = Lease.take(directory, element, steal=True)
        self._beat = directory.beat(element, self._lease.attempt)
        about = {
            "run": Asked.read(directory).id, "inputs": told.inputs, "code": told.code,
            "anew": False, "session": told.session, "array": array,
        }  # fmt: skip
        self._tally = Tally(before.done, 0)
        header = journal_header(directory, self._lease, about, self._tally)
        names = {name: header[name] for name in ("run", "element", "attempt")}
        self.shares = [index for part in told.shares[index] for index in part]
        self._pack = PackWriter(directory.pack(element, self._lease.attempt), names)
        self._journal = JournalWriter(directory.journal(element, self._lease.attempt), header)

    def do(self, *tasks: int, times: int = 1) -> None:
        """Record that tasks are done: the square of each, ``times`` that."""
        for index in tasks:
            self._record("done", index, dumps([times * index * index]), count=1)
            self._tally.done += 1

    def fail(self, *tasks: int) -> None:
        """Record that tasks have failed."""
        for index in tasks:
            payload = dumps((ValueError(f"no square for {index}"), "ValueError: no square"))
            error = {"type": "ValueError", "message": "no square", "traceback": ""}
            self._record("failed", index, payload, final=True, input=str(index), error=error)
            self._tally.failed += 1

    def _record(self, kind: str, index: int, payload: bytes, **told: object) -> None:
        ran = [[1, time.time(), 0.01, 0.01, 1 << 20, None, None, None, None]]
        self._journal.append(
            [{"is": kind, "first": index, "try": 1, "worker": "worker 0",
              "place": self._pack.append(index, 1, 1, payload), "ran": ran, **told}]
        )  # fmt: skip

    def beat(self, later: float) -> None:
        """Say that it lives, by a clock that was moved."""
        self._beat.write_text(json.dumps({"count": 1, "at": time.time() + later, "workers": []}))

    def end(self, why: str) -> None:
        """Say how it ends; with "" it dies without a word."""
        if why:
            end = {"is": "end", "why": why, "at": time.time()}
            self._journal.append([self._tally.record(), end])
        self._lease.release()
        self._pack.close()
        self._journal.close()


def begun(task: Callable[[int], object], name: str = "r", **options: object) -> ff.Run:
    """A run of 8 tasks in 2 elements on the small scheduler, unless it is said otherwise."""
    options = {"on": "slurm", "elements": 2, **options}
    return ff.run(task, range(TOTAL), name=name, **options)


def directory(name: str = "r") -> RunDirectory:
    """Of a run of that name."""
    return RunDirectory.open(Path("fanfold-runs", name))


def work(*numbers: int, why: str = "done") -> None:
    """Have all elements of these arrays of the run do their shares, and end so."""
    for number in numbers:
        for index in range(len(read_array(directory(), number).shares)):
            copy = Copy(directory(), number, index)
            copy.do(*copy.shares)
            copy.end(why)


@contextmanager
def site_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Put the small scheduler in the place of Slurm, and the test into ``folder``, where there is a
    module of tasks, ``chores``. What waits for the scheduler moves its clock, and takes no time."""
    (folder / "site").mkdir()
    (folder / "chores.py").write_text(TASKS)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "chores", raising=False)
    monkeypatch.setenv("SMALL_SITE", str(folder / "site"))
    monkeypatch.setitem(SCHEDULERS, "slurm", "tests.runs.small:Small")
    site = Site()
    monkeypatch.setattr(Clock, "time", lambda _: time.time() + site.later)
    monkeypatch.setattr(Clock, "monotonic", lambda _: time.monotonic() + site.later)
    monkeypatch.setattr(Clock, "sleep", lambda _, seconds: site.wait_a_while(seconds))
    try:
        yield site
    finally:
        site.close()
