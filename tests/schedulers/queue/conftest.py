"""A pretend scheduler: real commands on PATH, a folder as their state, and scripted faults.

Every command writes a line into ``calls``, then does what the first line of ``COMMAND.modes`` says
(and removes it), else what ``COMMAND.always`` says, else what it should. A job is a file in
``jobs``: its name, then a line an element: index and word. What has ended stands in ``records``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from fanfold.errors import SchedulerDown, SchedulerError, SchedulerFull, SubmitRefused
from fanfold.errors import SubmitUnknown as Unknown
from fanfold.schedulers import commands
from fanfold.schedulers.base import Answer, Job, Limits, Scheduler, Seen
from fanfold.schedulers.pace import Clock
from fanfold.schedulers.queue import Queue

BEGIN = """#!/bin/sh
cd "$PRETEND" || exit 9
me=${0##*/}
echo "$me $*" >> calls
mode=ok
if [ -s "$me.modes" ]; then
    read -r mode < "$me.modes"
    tail -n +2 "$me.modes" > "$me.rest"; mv "$me.rest" "$me.modes"
elif [ -f "$me.always" ]; then
    read -r mode < "$me.always"
fi
take() {
    number=1
    while [ -e "jobs/$number" ] || [ -e "dropped/$number" ]; do number=$((number + 1)); done
    { echo "$1"; cat elements; } > new; mv new "jobs/$number"
}
hang() {
    while :; do echo x >> hung; sleep 0.05; done
}
case $mode in
down) echo "cannot contact the server" >&2; exit 7 ;;
hang) sleep 600 & hang ;;
killed) kill -9 $$ ;;
garbage) printf 'W\\303rning \\377 what?\\n'; exit 0 ;;
esac
"""
COMMANDS = {
    "psub": """
name=$(sed -n 's/^#NAME //p' "$1")
case $mode in
taken-lost) take "$name"; echo 'connection reset' >&2; exit 1 ;;
taken-garbage) take "$name"; printf 'b\\377d'; exit 0 ;;
taken-killed) take "$name"; kill -9 $$ ;;
taken-hang) take "$name"; hang ;;
lost) echo 'connection reset' >&2; exit 1 ;;
late-*) echo "${mode#late-} $name" > late; exit 1 ;;
forgotten) echo "job 77"; exit 0 ;;
refused) echo 'no such queue: huge' >&2; exit 2 ;;
full) echo 'too many jobs' >&2; exit 8 ;;
gate) echo x > waiting; while [ ! -e go ]; do sleep 0.01; done ;;
die) kill -9 "$DRIVER" ;;
die-late-*) echo "${mode#die-late-} $name" > late; kill -9 "$DRIVER"; exit 0 ;;
taken-die) take "$name"; kill -9 "$DRIVER"; exit 0 ;;
esac
take "$name"
echo "job $number"
""",
    "pfind": """
if [ -e late ]; then
    read -r searches name < late
    rm late
    if [ "$searches" -le 0 ]; then take "$name"; else echo "$((searches - 1)) $name" > late; fi
fi
for job in jobs/*; do
    [ -e "$job" ] || continue
    read -r name < "$job"
    [ "$name" = "$1" ] && echo "found ${job#jobs/}"
done
exit 0
""",
    "pwatch": """
for number; do
    [ -e "jobs/$number" ] && sed "1d; s/^/$number /" "jobs/$number"
done
exit 0
""",
    "precords": """
for number; do [ -e "records/$number" ] && sed "s/^/$number /" "records/$number"; done
exit 0
""",
    "pend": """
case $mode in
refused) echo 'it is not yours' >&2; exit 9 ;;
esac
[ -e "jobs/$1" ] || { echo 'no such job' >&2; exit 4; }
mv "jobs/$1" dropped/
""",
    "plimits": "echo 'elements 50'\n",
}
LINE = re.compile(r"([0-9]+) ([0-9]+|-) ([A-Z]+)(?: ([0-9]+))?")


class Pretend(Scheduler):
    """Reads strictly: a text with no line that it knows is no answer."""

    name = "pretend"
    command = "psub"
    states: ClassVar = {
        "R": "running",
        "Q": "waiting",
        "D": "done",
        "F": "failed",
        "X": "cancelled",
        "N": "node",
    }
    variables: ClassVar = {}

    def header(self, job: Job) -> list[str]:
        return [f"#NAME {job.name}"]

    def submission(self, script: str, resources=None) -> list[str]:
        return ["env", "LC_ALL=C", "psub", script]

    def submitted(self, answer: Answer) -> str:
        if answer.code == 0 and (match := re.fullmatch(r"job ([0-9]+)\n", answer.out)):
            return match[1]
        for code, kind in ((2, SubmitRefused), (7, SchedulerDown), (8, SchedulerFull)):
            if answer.code == code:
                raise kind(f"pretend: {answer.err.strip()}")
        raise Unknown(f"pretend: {answer.err.strip()}")

    def search(self, name: str) -> list[str]:
        return ["pfind", name]

    def found(self, answer: Answer) -> list[str]:
        self._check(answer)
        return re.findall(r"found ([0-9]+)\n", answer.out)

    def watch(self, jobs: Sequence[str]) -> list[str]:
        return ["pwatch", *jobs]

    def seen(self, answer: Answer) -> list[Seen]:
        self._check(answer)
        return [
            Seen(
                match[1],
                None if match[2] == "-" else int(match[2]),
                self.states.get(match[3], "unknown"),
                match[3],
                exit_status=int(match[4]) if match[4] else None,
            )
            for match in map(LINE.fullmatch, answer.out.splitlines())
            if match is not None
        ]

    def history(self, jobs: Sequence[str]) -> list[str]:
        return ["precords", *jobs]

    def recorded(self, answer: Answer) -> list[Seen]:
        return self.seen(answer)

    def limits(self) -> list[str]:
        return ["plimits"]

    def read_limits(self, answer: Answer) -> Limits:
        match = re.fullmatch(r"elements ([0-9]+)\n", answer.out)
        return Limits(int(match[1]), int(match[1]) - 1) if match else Limits()

    def cancel(self, job: str, indices: Sequence[int] | None = None) -> list[list[str]]:
        return [["pend", job]] if indices is None else [["pend", job, str(i)] for i in indices]

    def cancelled(self, answer: Answer) -> None:
        if answer.code == 7:
            raise SchedulerDown(answer.err.strip())
        if answer.code not in (0, 4):
            raise SchedulerError(answer.err.strip())

    def shell(self, resources: object) -> list[str]:
        return ["sh"]

    def _check(self, answer: Answer) -> None:
        if answer.code != 0:
            raise SchedulerDown(f"pretend: {answer.err.strip()}")
        if answer.out and not re.search(r"^(found )?[0-9]", answer.out, re.MULTILINE):
            raise SchedulerError(f"pretend: no sense in {answer.out!r}")


class Hand(Clock):
    """Time that passes when somebody sleeps, or moves it."""

    def __init__(self, now: float = 1e9) -> None:
        self.now = now
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Site:
    """A pretend cluster in a folder; `install` puts its commands on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "run" / "1.sh"

    def install(self) -> None:
        for name in ("bin", "jobs", "records", "dropped", "run"):
            (self.folder / name).mkdir()
        (self.folder / "elements").write_text("0 R\n1 R\n2 R\n")
        self.script.write_text("#!/bin/sh\n#NAME sums-a1b2\n")
        for name, text in COMMANDS.items():
            path = self.folder / "bin" / name
            path.write_text(BEGIN + text)
            path.chmod(0o755)

    def modes(self, command: str, *modes: str) -> None:
        """What the next calls of a command do."""
        (self.folder / f"{command}.modes").write_text("".join(f"{mode}\n" for mode in modes))

    def always(self, command: str, mode: str) -> None:
        """What a command does from now on."""
        (self.folder / f"{command}.always").write_text(f"{mode}\n")

    def job(self, number: int, *elements: str) -> None:
        """A job in the queue."""
        (self.folder / f"jobs/{number}").write_text("\n".join(["sums-a1b2", *elements, ""]))

    def records(self, number: int, *elements: str) -> None:
        """What the records say of a job."""
        (self.folder / f"records/{number}").write_text("".join(f"{line}\n" for line in elements))

    def purge(self, number: int) -> None:
        """A job leaves the queue."""
        (self.folder / f"jobs/{number}").unlink()

    def monotonic(self) -> float:
        """The time of those who wait for a command: it passes only while one hangs, however busy
        the machine is."""
        path = self.folder / "hung"
        return 1e6 * path.stat().st_size if path.exists() else 0.0

    def jobs(self) -> list[str]:
        return sorted(os.listdir(self.folder / "jobs"))

    def calls(self, command: str = "") -> list[str]:
        """The commands that were run."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(command)]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(tmp_path)
    site.install()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("PRETEND", str(tmp_path))
    monkeypatch.setattr(commands, "monotonic", site.monotonic)
    return site


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def queue(site: Site, clock: Hand) -> Callable[..., Queue]:
    """Makes a queue of the pretend cluster, whose time is moved by hand."""

    def make(**options: object) -> Queue:
        return Queue(Pretend(), **{"clock": clock, "random": lambda: 1.0, **options})

    return make


@pytest.fixture
def driver(site: Site) -> list[str]:
    """The beginning of a command for code, in one word, that has the names of this file."""
    here = Path(__file__)
    return [sys.executable, "-c", f"__file__ = {str(here)!r}; exec(open(__file__).read())\n"]
