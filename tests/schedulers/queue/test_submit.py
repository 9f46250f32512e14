"""Submission: once, whatever becomes of the replies and of the driver."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from fanfold.errors import (
    SchedulerDown,
    SchedulerError,
    SchedulerFull,
    SubmitRefused,
    SubmitUnknown,
    UsageError,
)
from fanfold.schedulers.base import Answer
from fanfold.schedulers.queue import Queue
from fanfold.testing.functions import until

NAME = "sums-a1b2"
WHOLE = os.environ.get("FANFOLD_FAULTS") == "whole"
Make = Callable[..., Queue]


def test_one_command(site, queue: Make) -> None:
    """Where all is well a submission is one command."""
    assert queue().submit(site.script, NAME) == "1"
    assert site.calls() == [f"psub {site.script}"]
    assert site.jobs() == ["1"]


def test_submitted_again(site, queue: Make) -> None:
    """S02: who submits the same script again gets the same job."""
    assert queue().submit(site.script, NAME) == "1"
    assert queue().submit(site.script, NAME) == "1"
    assert site.jobs() == ["1"]
    assert site.calls("psub") == [f"psub {site.script}"]


@pytest.mark.parametrize("how", ["lost", "garbage", "killed", "hang"])
def test_taken_but_the_reply_is_lost(site, queue: Make, how: str) -> None:
    """S01: accepted, and the reply is an error, garbage, cut off or does not come: the job is
    found by its name, and not submitted again."""
    site.modes("psub", f"taken-{how}")
    assert queue(timeout=1.0 if how == "hang" else 65).submit(site.script, NAME) == "1"
    assert site.jobs() == ["1"]
    assert len(site.calls("psub")) == 1


@pytest.mark.parametrize("how", ["killed", "hang"])
def test_what_was_cut_off_refuses_nothing(
    site, queue: Make, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """S01: whatever a command has said that was ended before its end: it may have been taken."""
    site.modes("psub", f"taken-{how}")
    watched = queue(timeout=1.0)

    def hasty(answer: Answer) -> str:
        raise SubmitRefused(f"warning taken for an error: {answer.err}")

    monkeypatch.setattr(watched._scheduler, "submitted", hasty)
    assert watched.submit(site.script, NAME) == "1"
    assert site.jobs() == ["1"]


@pytest.mark.parametrize("how", ["lost", "garbage", "killed", "hang"])
def test_not_taken_and_no_reply(site, queue: Make, clock, how: str) -> None:
    """S01: it is looked for for twice the time-out, less and less often, then submitted again."""
    site.modes("psub", how)
    timeout = 1.0 if how == "hang" else 65
    assert queue(timeout=timeout).submit(site.script, NAME) == "1"
    assert site.jobs() == ["1"]
    assert len(site.calls("psub")) == 2
    assert sum(clock.slept) == pytest.approx(2 * timeout)
    assert len(site.calls("pfind")) < 20


@pytest.mark.parametrize("searches", [1, 5, 12])
def test_taken_late(site, queue: Make, searches: int) -> None:
    """S01: a job that turns up late, while it is looked for, is adopted."""
    site.modes("psub", f"late-{searches}")
    assert queue().submit(site.script, NAME) == "1"
    assert site.jobs() == ["1"]
    assert len(site.calls("psub")) == 1


def test_taken_too_late(site, queue: Make) -> None:
    """S01: one that turns up when it has been submitted again is the one that stays: there are
    never two."""
    site.modes("psub", "late-4")
    found = queue(timeout=1.0).submit(site.script, NAME)
    assert len(site.calls("psub")) == 2
    assert site.jobs() == [found]
    assert site.calls("pend") == ["pend 1"]  # the later of the two


def test_two_copies_are_made_one(site, queue: Make) -> None:
    """Where two copies are found, however they came, one is kept."""
    site.modes("psub", "taken-lost")
    site.job(7, "0 Q")
    found = queue().submit(site.script, NAME)
    assert site.jobs() == [found]


def test_lost_and_no_search(site, queue: Make, clock) -> None:
    """S01: what cannot be looked for is never submitted again: SubmitUnknown says so, and the
    next one to submit it finds it."""
    site.modes("psub", "taken-lost")
    site.always("pfind", "down")
    said: list[str] = []
    with pytest.raises(SubmitUnknown, match=r"may have taken the job sums-a1b2.*submit it again"):
        queue().submit(site.script, NAME, patience=900, tell=said.append)
    assert len(site.calls("psub")) == 1
    assert 900 <= sum(clock.slept) <= 1000
    assert any("tried again in" in sentence for sentence in said)
    site.always("pfind", "ok")
    assert queue().submit(site.script, NAME) == "1"
    assert site.jobs() == ["1"]


def test_lost_then_down(site, queue: Make, clock) -> None:
    """S01, S03: once it is sure that nothing was taken, the scheduler is down, and no more."""
    site.modes("psub", "lost")
    site.always("psub", "down")
    with pytest.raises(SchedulerDown):
        queue().submit(site.script, NAME, patience=300)
    assert list(site.script.parent.iterdir()) == [site.script]


def test_killed_after_a_long_silence(site, queue: Make, clock, monkeypatch) -> None:
    """S01, S02: a job may turn up for as long after the command that sent it has ended, not begun:
    a driver that dies then leaves that to the next one."""
    site.modes("psub", "late-4")
    watched = queue()
    send = watched._send

    def slow(*sent) -> str:
        clock.now += 130
        return send(*sent)

    def die(sentence: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watched, "_send", slow)
    with pytest.raises(KeyboardInterrupt):
        watched.submit(site.script, NAME, tell=die)
    assert queue().submit(site.script, NAME) == "1"
    assert site.jobs() == ["1"]
    assert len(site.calls("psub")) == 1


def test_always_lost(site, queue: Make) -> None:
    """S01: a scheduler whose replies never make sense is not given job after job."""
    site.always("psub", "lost")
    with pytest.raises(SubmitUnknown, match="three times"):
        queue().submit(site.script, NAME)
    assert len(site.calls("psub")) == 3


def test_refused(site, queue: Make, clock) -> None:
    """A job that is refused is not tried again; corrected, it is submitted at once."""
    site.modes("psub", "refused")
    with pytest.raises(SubmitRefused, match="no such queue: huge"):
        queue().submit(site.script, NAME)
    assert queue().submit(site.script, NAME) == "1"
    assert (len(site.calls()), clock.slept) == (2, [])


def test_not_installed(site, queue: Make) -> None:
    """Where there is no scheduler, nothing is marked as sent."""
    (site.folder / "bin/psub").unlink()
    with pytest.raises(UsageError, match="no command psub here"):
        queue().submit(site.script, NAME)
    assert list(site.script.parent.iterdir()) == [site.script]


@pytest.mark.parametrize("how", ["down", "full"])
def test_down_or_full_for_a_while(site, queue: Make, clock, how: str) -> None:
    """S03, S16: it is tried again less and less often, and said so, until it is taken."""
    site.modes("psub", *[how] * 6)
    said: list[str] = []
    assert queue().submit(site.script, NAME, tell=said.append) == "1"
    assert site.jobs() == ["1"]
    assert clock.slept == [1, 2, 4, 8, 16, 32]
    assert len(said) == 6
    assert "tried again in 4.00s" in said[2]


@pytest.mark.parametrize(("how", "error"), [("down", SchedulerDown), ("full", SchedulerFull)])
def test_down_or_full_for_good(site, queue: Make, clock, how: str, error: type) -> None:
    """S03, S16: after the given patience its own words are raised, few commands have been run, and
    nothing stands in the way of the next submission."""
    site.always("psub", how)
    with pytest.raises(error, match=r"too many jobs|cannot contact"):
        queue().submit(site.script, NAME, patience=3600)
    assert sum(clock.slept) == 3600
    assert len(site.calls("psub")) < 70
    site.always("psub", "ok")
    assert queue().submit(site.script, NAME) == "1"
    assert sum(clock.slept) == 3600


def test_all_down(site, queue: Make, clock) -> None:
    """S03: while even the search fails, nothing is submitted."""
    site.always("psub", "down")
    site.always("pfind", "down")
    with pytest.raises(SchedulerDown):
        queue().submit(site.script, NAME, patience=600)
    assert len(site.calls("psub")) == 1


def test_down_but_taken(site, queue: Make) -> None:
    """Even a job that the scheduler denied is looked for before it is sent again."""
    site.modes("psub", "down")
    site.job(4, "0 R")
    assert queue().submit(site.script, NAME) == "4"
    assert site.jobs() == ["4"]


SENDS = [
    "taken-lost",
    "taken-garbage",
    "taken-killed",
    "lost",
    "garbage",
    "killed",
    "late-1",
    "late-9",
    "down",
    "full",
]
SEARCHES = ["ok", "ok", "down", "killed", "garbage"]


@pytest.mark.parametrize("seed", range(1000 if WHOLE else 15))
def test_any_script_of_faults(site, queue: Make, clock, seed: int) -> None:
    """G12: up to six faults of submissions and six of searches, in any order: at the end there is
    one copy of the job, known by its id, and what is raised is an error of ours."""
    source = random.Random(seed)
    site.modes("psub", *source.choices(SENDS, k=source.randint(1, 6)))
    site.modes("pfind", *source.choices(SEARCHES, k=source.randint(0, 6)))
    found = None
    while found is None:
        try:
            found = queue().submit(site.script, NAME, patience=source.choice([0, 100]))
        except (SchedulerError, UsageError):
            clock.now += source.choice([1, 86400])
    assert site.jobs() == [found]
    assert len(site.calls("pend")) <= len(site.calls("psub"))


def test_find(site, queue: Make) -> None:
    """S02: a job is found by its name; None means that there is none, not that nobody answered."""
    assert queue().find(NAME) is None
    site.job(3, "0 R")
    assert queue().find(NAME) == "3"
    site.always("pfind", "down")
    with pytest.raises(SchedulerDown):
        queue().find(NAME)
    site.always("pfind", "killed")
    with pytest.raises(SchedulerDown, match="pfind was ended by signal 9"):
        queue().find(NAME)
    site.always("pfind", "garbage")
    with pytest.raises(SchedulerError, match="no sense"):
        queue().find(NAME)


def test_the_mark_is_private(site, queue: Make) -> None:
    """X02: the file beside the script is 0600; a link in its place is not followed."""
    mark = site.script.with_suffix(".sent")
    mark.symlink_to(site.folder / "elsewhere")
    with pytest.raises(OSError, match=r"1\.sent"):
        queue().submit(site.script, NAME, patience=0)
    assert not (site.folder / "elsewhere").exists()
    mark.unlink()
    queue().submit(site.script, NAME)
    assert mark.stat().st_mode & 0o777 == 0o600


# Each line of what is between "nothing sent" and "recorded" is a moment to die at. The forks share
# one interpreter, which adopts the orphans: so it knows when a submission that outlived its driver
# has come to its end.
SWEEP = """
import ctypes
from fanfold.schedulers import commands, pace, submission
from fanfold.schedulers import queue as queue_module

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
SITE = Site(Path(os.environ["PRETEND"]))
RECORD = SITE.folder / "run/1.job"
FILES = {commands.__file__, pace.__file__, submission.__file__, queue_module.__file__, "<string>"}

def submit_and_record(now):
    queue = Queue(Pretend(), timeout=5.0, clock=Hand(now), random=lambda: 1.0)
    job = queue.submit(SITE.script, "sums-a1b2")
    RECORD.write_text(job)

def live(now, point=None):
    "The exit code of a driver that is killed at a point."
    pid = os.fork()
    if pid == 0:
        os.environ["DRIVER"] = str(os.getpid())
        lines = 0

        def trace(frame, event, arg):
            nonlocal lines
            if frame.f_code.co_filename not in FILES:
                return None
            if lines == point:
                os.kill(os.getpid(), 9)
            lines += 1
            return trace

        if point is not None:
            sys.settrace(trace)
        submit_and_record(now)
        os._exit(0)
    status = None
    while True:
        try:
            ended, code = os.wait()
        except ChildProcessError:
            return status
        if ended == pid:
            status = os.waitstatus_to_exitcode(code)

def check(point, odd=False):
    "What is wrong after a kill and a resume."
    resumed = [1e9 + 1, 1e9 + 86400][odd]
    if not RECORD.exists():
        code = live(resumed)
        assert code == 0, code
    jobs, record = SITE.jobs(), RECORD.read_text()
    return "" if jobs == [record] else f"{point}: jobs {jobs}, recorded {record}"

def clean():
    for folder in ("jobs", "dropped"):
        for path in (SITE.folder / folder).iterdir():
            path.unlink()
    for name in ("run/1.sent", "run/1.job", "late", "psub.modes"):
        (SITE.folder / name).unlink(missing_ok=True)
"""

LINES = """
faults, step = sys.argv[1].split(), int(sys.argv[2])
if sys.argv[3] == "wrong":
    submission._touch = lambda mark, now: None
point, wrong = 0, []
while True:
    SITE.modes("psub", *faults)
    code = live(1e9, point)
    wrong.append(check(point, len(wrong) % 2))
    clean()
    if code == 0:
        break
    assert code == -9, code
    point += step
print(len(wrong), [text for text in wrong if text])
"""


def sweep(driver: list[str], *words: str) -> tuple[int, str]:
    driver[-1] += SWEEP + LINES
    done = subprocess.run([*driver, *words], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    points, _, wrong = done.stdout.partition(" ")
    return int(points), wrong.strip()


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux adopts orphans")


@linux_only
@pytest.mark.parametrize(
    ("faults", "step"), [("ok", 1), ("taken-lost ok", 1), ("lost ok", 3), ("down ok", 2)]
)
def test_killed_at_every_line(site, driver: list[str], faults: str, step: int) -> None:
    """S02: the driver is killed at every line between the intention and the record, and resumed at
    once or a day later: there is always one copy of the job, and it is the recorded one."""
    points, wrong = sweep(driver, faults, str(step if WHOLE else 5 * step), "right")
    assert wrong == "[]"
    assert points > (100 if WHOLE else 20)


@linux_only
def test_a_wrong_order_is_seen(site, driver: list[str]) -> None:
    """The negative control: without the mark before the submission there are two copies."""
    _, wrong = sweep(driver, "ok", "1" if WHOLE else "5", "wrong")
    assert "jobs ['1', '2']" in wrong


MOMENT = """
SITE.modes("psub", sys.argv[1])
assert live(1e9) == -9
print(check(0), len(SITE.calls("psub")))
"""


@linux_only
@pytest.mark.parametrize(
    ("moment", "submissions"),
    [("die", 1), ("taken-die", 1), ("die-late-0", 1), ("die-late-3", 1), ("die-late-99", 2)],
)
def test_killed_within(site, driver: list[str], moment: str, submissions: int) -> None:
    """S02: the driver is killed while its submission is under way: before it is taken, after, long
    before, and so that it is never taken. There is one copy, and it is the recorded one."""
    driver[-1] += SWEEP + MOMENT
    done = subprocess.run([*driver, moment], capture_output=True, text=True, timeout=250)
    assert (done.stdout, done.returncode) == (f" {submissions}\n", 0), done.stderr


INTERRUPT = """
SITE = Site(Path(os.environ["PRETEND"]))
try:
    Queue(Pretend()).submit(SITE.script, "sums-a1b2")
except KeyboardInterrupt:
    print(Queue(Pretend()).find("sums-a1b2"))
"""


def test_interrupted(site, driver: list[str]) -> None:
    """S02: Ctrl-C, sent to the whole group as a terminal does, does not cut a submission in two:
    the job is in the queue, and found."""
    site.modes("psub", "gate")
    driver[-1] += INTERRUPT
    drive = subprocess.Popen(driver, stdout=subprocess.PIPE, text=True, start_new_session=True)
    until((site.folder / "waiting").exists, "the submission to begin")
    os.killpg(drive.pid, signal.SIGINT)
    (site.folder / "go").touch()
    assert drive.communicate(timeout=60)[0] == "1\n"
    assert site.jobs() == ["1"]
