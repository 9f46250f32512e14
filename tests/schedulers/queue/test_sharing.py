"""Many processes that watch the same jobs, and the file that they share."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.schedulers.base import JobState, Seen
from fanfold.schedulers.known import Known, Look
from fanfold.schedulers.queue import Queue
from fanfold.schedulers.sharing import Shared

Make = Callable[..., Queue]
THREE = {"1": range(3)}


def states(look: Look) -> str:
    return " ".join(seen.state for seen in look.seen.values())


@pytest.fixture
def cache(site) -> Path:
    return site.folder / "run/queue.json"


def test_one_asks_for_all(site, queue: Make, clock, cache: Path) -> None:
    """S23: of ten that watch one asks, the others read; what has ended none of them asks for."""
    site.job(1, "0 R", "1 R")
    site.records(1, "2 D 0")
    looks = [queue(cache=cache).look(THREE) for _ in range(10)]
    assert set(map(states, looks)) == {"running running done"}
    assert {look.at for look in looks} == {clock.now}
    assert site.calls() == ["pwatch 1", "precords 1"]
    clock.now += 31
    site.purge(1)
    site.records(1, "0 D 0", "1 D 0")
    for _ in range(10):
        assert states(queue(cache=cache).look(THREE)) == "done done done"
    clock.now += 1e6
    assert states(queue(cache=cache).look(THREE)) == "done done done"
    assert site.calls()[2:] == ["pwatch 1", "precords 1"]


def test_who_needs_a_newer_one_asks(site, queue: Make, clock, cache: Path) -> None:
    """Each look says how old an answer may be; its answer serves the others."""
    site.job(1, "0 R", "1 R", "2 R")
    first, second = queue(cache=cache), queue(cache=cache)
    for age in (1, 30, 3):
        clock.now += 4
        first.look(THREE, max_age=age)
        second.look(THREE, max_age=age)
    assert len(site.calls()) == 2


def test_other_jobs(site, queue: Make, cache: Path) -> None:
    """Who watches more jobs asks for those that nobody has asked for."""
    site.job(1, "- R")
    site.job(2, "- Q")
    queue(cache=cache).look({"1": [None]})
    assert states(queue(cache=cache).look({"1": [None], "2": [None]})) == "running waiting"
    assert states(queue(cache=cache).look({"2": [None], "1": [None]})) == "waiting running"
    assert site.calls() == ["pwatch 1", "pwatch 2"]


def test_trouble_is_shared(site, queue: Make, clock, cache: Path) -> None:
    """S04, S23: while the scheduler is down, one asks now and then, not each of them."""
    site.always("pwatch", "down")
    looks = [queue(cache=cache).look(THREE) for _ in range(10)]
    assert len({look.trouble for look in looks}) == 1
    assert "cannot contact" in looks[0].trouble
    assert len(site.calls()) == 1


def test_a_minute_of_many(site, queue: Make, clock, cache: Path) -> None:
    """S06: that a job is missing is known to all: `fanfold status`, typed again, tells the end."""
    seen = []
    for _ in range(4):
        seen.append(states(queue(cache=cache).look({"9": [None]}, max_age=1)))
        clock.now += 20
    assert seen == ["unknown", "unknown", "unknown", "vanished"]


FIFTY = """
import time
site, ready = Path(os.environ["PRETEND"]), []
gate = os.pipe()
for _ in range(50):
    if os.fork() == 0:
        os.close(gate[1])
        os.read(gate[0], 1)
        look = Queue(Pretend(), cache=site / "run/queue.json").look({"1": range(3)})
        states = [seen.state for seen in look.seen.values()]
        os._exit(0 if states == ["running"] * 3 and not look.trouble else 1)
os.close(gate[1])
codes = {os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(50)}
print(codes)
"""


def test_fifty_at_once(site, driver: list[str]) -> None:
    """S23: fifty processes look at the same moment: the scheduler is asked once."""
    site.job(1, "0 R", "1 R", "2 R")
    driver[-1] += FIFTY
    done = subprocess.run(driver, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("{0}\n", "")
    assert site.calls() == ["pwatch 1"]
    assert sorted(os.listdir(site.folder / "run")) == ["1.sh", "queue.json"]


def test_answered_at_that_moment(
    site, queue: Make, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S23: an answer that another was given just before it is our turn is enough."""
    site.job(1, "0 R", "1 R", "2 R")
    others = [queue(cache=cache)]
    take_turn = Shared.take_turn

    def late(shared: Shared) -> bool:
        while others:
            others.pop().look(THREE)
        return take_turn(shared)

    monkeypatch.setattr(Shared, "take_turn", late)
    assert states(queue(cache=cache).look(THREE)) == "running running running"
    assert site.calls() == ["pwatch 1"]


DIE = """
site = Path(os.environ["PRETEND"])
os.environ["DRIVER"] = str(os.getpid())
Queue(Pretend(), cache=site / "run/queue.json").look({"1": range(3)})
"""


def test_who_asked_is_dead(site, queue: Make, driver: list[str], clock, cache: Path) -> None:
    """A process that was killed while it asked is not waited for."""
    site.job(1, "0 R", "1 R", "2 R")
    path = site.folder / "bin/pwatch"
    path.write_text(path.read_text().replace("case $mode", 'kill -9 "$DRIVER"; case $mode', 1))
    driver[-1] += DIE
    assert subprocess.run(driver, timeout=60).returncode == -9
    assert cache.with_suffix(".asking").exists()
    path.write_text(path.read_text().replace('kill -9 "$DRIVER";', ""))
    clock.now = os.stat(cache.with_suffix(".asking")).st_mtime
    assert states(queue(cache=cache).look(THREE)) == "running running running"
    assert clock.slept == []


@pytest.mark.parametrize("said", ["elsewhere 1\n", "", "x\ny z\n", f"{os.uname().nodename} 1\n"])
def test_who_asks_does_not_come_back(site, queue: Make, clock, cache: Path, said: str) -> None:
    """One that asks on another host, or is stopped, is waited for as long as an answer may take."""
    site.job(1, "0 R", "1 R", "2 R")
    cache.with_suffix(".asking").write_text(said)
    os.utime(cache.with_suffix(".asking"), (clock.now, clock.now))
    assert states(queue(cache=cache).look(THREE)) == "running running running"
    assert sum(clock.slept) == pytest.approx(130, abs=1)
    assert len(site.calls()) == 1


def test_the_turn_of_long_ago(site, queue: Make, clock, cache: Path) -> None:
    """What says that somebody asks, and is older than any answer, is not believed."""
    cache.with_suffix(".asking").write_text("elsewhere 1\n")
    os.utime(cache.with_suffix(".asking"), (clock.now - 1000, clock.now - 1000))
    queue(cache=cache).look(THREE)
    assert clock.slept == []


def damaged(kind: str, text: str) -> str:
    told = json.loads(text)
    return {
        "empty": "",
        "torn": text[: len(text) // 2],
        "flipped": text.replace("running", "walking"),
        "another state": text.replace('"running"', '"done"'),
        "without its check": json.dumps({k: v for k, v in told.items() if k != "check"}),
        "no dictionary": "[1, 2]",
        "not a number": text.replace("null", "NaN", 1),
        "deep": "[" * 100_000,
        "a long number": "1" * 10_000,
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "torn",
        "flipped",
        "another state",
        "without its check",
        "no dictionary",
        "not a number",
        "deep",
        "a long number",
    ],
)
def test_damaged(site, queue: Make, clock, cache: Path, kind: str) -> None:
    """A file that is damaged says nothing: the scheduler is asked, and the file made anew."""
    site.job(1, "0 R", "1 R", "2 R")
    queue(cache=cache).look(THREE)
    whole = cache.read_text()
    cache.write_text(damaged(kind, whole))
    assert states(queue(cache=cache).look(THREE)) == "running running running"
    assert len(site.calls()) == 2
    assert cache.read_text() == whole


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
PLACES = [
    *(["format"], ["scheduler"], ["since"], ["trouble"], ["jobs"], ["jobs", "1"]),
    *(["jobs", "1", name] for name in ("asked", "told", "seen", "gone")),
    *(["jobs", "1", "seen", 0], ["jobs", "1", "gone", 0]),
    *(["jobs", "1", "seen", 0, column] for column in range(len(Seen._fields))),
    *(["jobs", "1", "gone", 0, column] for column in range(2)),
]
KINDS = {"index": (int,), "exit_status": (int,), "signal": (int,), "peak_memory": (int,)}
KINDS |= {"began": (int, float), "ended": (int, float), "cpu_time": (int, float)}


@given(place=st.sampled_from(PLACES), value=JSON)
def test_strange(place: list, value: object) -> None:
    """What is whole but nothing that we write is refused, and changes nothing, or is of the types
    that everybody relies on."""
    first = Known("pretend")
    first.to_ask(THREE, 1e9, 1)
    absent = first.queue_told(THREE, [Seen("1", 0, "running", "R")], 1e9)
    first.records_told(absent, [Seen("1", 2, "failed", "F", exit_status=3)], 1e9)
    first.answered(THREE, 1e9)
    told = json.loads(json.dumps(first.dump()))
    inner = told
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    second = Known("pretend")
    second.to_ask(THREE, 1e9, 1)
    nothing = second.look(THREE)
    try:
        second.merge(told, 1e9)
    except (ValueError, TypeError, KeyError, AttributeError):
        assert second.look(THREE) == nothing
    look = second.look(THREE)
    assert isinstance(look.at, float)
    for (job, index), seen in look.seen.items():
        assert (seen.job, seen.index) == (job, index)
        assert seen.state in get_args(JobState)
        for name, kinds in KINDS.items():
            assert getattr(seen, name) is None or type(getattr(seen, name)) in kinds
        assert type(seen.word) is type(seen.reason) is type(seen.node) is str


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_others_can_write_it(site, queue: Make, cache: Path, mode: int) -> None:
    """X02: what others could have written is not believed."""
    site.job(1, "0 R", "1 R", "2 R")
    queue(cache=cache).look(THREE)
    cache.chmod(mode)
    queue(cache=cache).look(THREE)
    assert len(site.calls()) == 2
    assert cache.stat().st_mode & 0o777 == 0o600


def test_no_plain_file(site, queue: Make, cache: Path) -> None:
    """X04: a link or a pipe in its place is neither followed nor waited for."""
    site.job(1, "0 R", "1 R", "2 R")
    target = site.folder / "elsewhere"
    target.write_text("precious")
    cache.symlink_to(target)
    os.mkfifo(cache.with_suffix(".asking"))
    queue(cache=cache, timeout=1.0).look(THREE)
    assert target.read_text() == "precious"
    cache.unlink()
    os.mkfifo(cache)
    assert states(queue(cache=cache).look(THREE)) == "running running running"


def test_nothing_can_be_written(site, queue: Make) -> None:
    """Where nothing can be written each asks for itself."""
    site.job(1, "0 R", "1 R", "2 R")
    cache = site.folder / "no such folder/queue.json"
    for _ in range(2):
        assert states(queue(cache=cache).look(THREE)) == "running running running"
    assert len(site.calls()) == 2


def test_another_scheduler(site, queue: Make, clock, cache: Path) -> None:
    """What another scheduler told of a job of the same number is not taken for this one's."""
    site.job(1, "0 R", "1 R", "2 R")
    cache.write_text("")
    shared = Shared(cache, 130.0, clock)
    known = Known("another")
    known.to_ask(THREE, clock.now, 1)
    known.queue_told(THREE, [Seen("1", index, "done", "D") for index in range(3)], clock.now)
    known.answered(THREE, clock.now)
    shared.write(known.dump())
    assert states(queue(cache=cache).look(THREE)) == "running running running"
