"""Watching: what is known of the elements of jobs, whatever the scheduler says or does not say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.errors import SchedulerDown, SchedulerError
from fanfold.schedulers.base import Limits, Seen
from fanfold.schedulers.known import Known, Look
from fanfold.schedulers.queue import Queue

Make = Callable[..., Queue]
THREE = {"1": range(3)}


def states(look: Look) -> str:
    return " ".join(seen.state for seen in look.seen.values())


def test_one_command_for_all_jobs(site, queue: Make, clock) -> None:
    """One command asks for all jobs; the records are asked only for what the queue has not got."""
    site.job(1, "0 R", "1 Q")
    site.job(2, "- R")
    look = queue().look({"1": range(2), "2": [None]})
    assert states(look) == "running waiting running"
    assert (look.at, look.trouble) == (clock.now, "")
    assert site.calls() == ["pwatch 1 2"]


def test_asked_again_when_it_is_old(site, queue: Make, clock) -> None:
    """An answer serves for ``max_age`` seconds."""
    site.job(1, "- R")
    watched = queue()
    for _ in range(5):
        watched.look({"1": [None]})
        clock.now += 6.5
    assert len(site.calls()) == 1
    watched.look({"1": [None]}, max_age=30)
    watched.look({"1": [None]}, max_age=0.5)
    assert len(site.calls()) == 2
    site.job(2, "- Q")
    assert states(watched.look({"1": [None], "2": [None]})) == "running waiting"
    assert site.calls()[-1] == "pwatch 2"


def test_ended_between_two_looks(site, queue: Make, clock) -> None:
    """S06, S09: what left the queue is found in the records, element by element, in one command;
    what has ended is not asked for again."""
    site.job(1, "0 R", "1 R", "2 R")
    site.job(2, "- R")
    watched, jobs = queue(), {**THREE, "2": [None]}
    watched.look(jobs)
    site.job(1, "1 R")
    site.records(1, "0 D 0", "2 F 3")
    look = watched.look(jobs, max_age=-1)
    assert states(look) == "done running failed running"
    assert look.seen["1", 2].exit_status == 3
    assert site.calls()[1:] == ["pwatch 1 2", "precords 1"]
    site.purge(1)
    site.purge(2)
    site.records(1, "0 X", "1 D 0", "2 X")
    site.records(2, "- D 0")
    assert states(watched.look(jobs, max_age=-1)) == "done done failed done"
    watched.look(jobs, max_age=-1)
    assert site.calls()[3:] == ["pwatch 1 2", "precords 1 2"]


def test_late_records(site, queue: Make, clock) -> None:
    """S08: records that come late are waited for: neither gone nor failed is said too early."""
    site.job(1, "- R")
    watched = queue()
    watched.look({"1": [None]})
    site.purge(1)
    for record, state in ("- R", "running"), ("- F 0", "failed"), ("- F 3", "failed"):
        clock.now += 5
        site.records(1, record)
        look = watched.look({"1": [None]}, max_age=1)
        assert states(look) == state
    assert look.seen["1", None].exit_status == 3


def test_records_without_an_end(site, queue: Make, clock) -> None:
    """Records that have a job running for ever, which the queue does not know any more, are
    believed for ten minutes."""
    site.records(1, "- R")
    watched = queue()
    seen = []
    for _ in range(11):
        seen.append(states(watched.look({"1": [None]}, max_age=1)))
        clock.now += 61
    assert seen == ["unknown"] * 10 + ["vanished"]


def test_lost_node_and_begun_again(site, queue: Make, clock) -> None:
    """S12: an element that was ended with its node is looked at again: it may be begun anew."""
    site.records(1, "- N")
    watched = queue()
    assert states(watched.look({"1": [None]}, max_age=1)) == "node"
    clock.now += 10
    site.job(1, "- R")
    assert states(watched.look({"1": [None]}, max_age=1)) == "running"
    clock.now += 10
    site.purge(1)
    watched.look({"1": [None]}, max_age=1)
    clock.now += 30
    site.modes("pwatch", "down")
    watched.look({"1": [None]}, max_age=1)
    clock.now += 30
    asked = len(site.calls())
    assert states(watched.look({"1": [None]}, max_age=1)) == "node"
    assert len(site.calls()) == asked


def test_cancelled_before_they_began(site, queue: Make) -> None:
    """Elements that were cancelled while they waited may have one record, without an index; it
    says nothing of those that the queue shows, and none of another state stands for elements."""
    site.job(1, "0 R")
    site.records(1, "1 D 0", "- X")
    assert states(queue().look(THREE)) == "running done cancelled"
    site.records(1, "1 D 0", "- D")
    assert states(queue().look(THREE)) == "running done unknown"


@pytest.mark.parametrize("submitted", [True, False], ids=["taken and forgotten", "never seen"])
def test_vanished(site, queue: Make, clock, submitted: bool) -> None:
    """S06, S30: a job that neither the queue nor the records know is unknown for a minute of
    asking, vanished then, and not asked for any more."""
    watched = queue()
    if submitted:
        site.modes("psub", "forgotten")
        assert watched.submit(site.script, "sums-a1b2") == "77"
    seen = []
    for _ in range(9):
        look = watched.look({"77": [0, 1]}, max_age=1)
        seen.append(states(look))
        clock.now += 10
    assert seen == ["unknown unknown"] * 6 + ["vanished vanished"] * 3
    assert "neither the queue nor its records" in look.seen["77", 1].reason
    assert len(site.calls("pwatch")) == len(site.calls("precords")) == 7


def test_just_submitted(site, queue: Make, clock) -> None:
    """A job that the queue does not show yet has not vanished: it is there a moment later."""
    watched = queue()
    assert states(watched.look(THREE, max_age=1)) == "unknown unknown unknown"
    clock.now += 59
    site.job(1, "0 Q", "1 Q", "2 Q")
    assert states(watched.look(THREE, max_age=1)) == "waiting waiting waiting"


@pytest.mark.parametrize("down", [["pwatch"], ["precords"], ["pwatch", "precords"]])
@pytest.mark.parametrize("how", ["down", "garbage", "killed"])
def test_refused_polls(site, queue: Make, clock, down: list[str], how: str) -> None:
    """S04, S05: 200 polls are refused, over days: the states are those of before, "unknown since"
    says when that was, nothing is declared dead; then it goes on."""
    site.job(1, "0 R", "1 R", "2 R")
    watched = queue()
    before = watched.look(THREE)
    site.job(1, "0 R", "1 R")
    for command in down:
        site.always(command, how)
    clock.now += 3600
    for _ in range(200 if how == "down" else 20):
        look = watched.look(THREE, max_age=1)
        assert states(look) == "running running running"
        assert look.trouble.startswith("unknown since 2001-09-")
        assert look.at == before.at
        clock.now += 1800
    assert f"{down[0]} was ended" in look.trouble or "pretend: " in look.trouble
    for command in down:
        site.always(command, "ok")
    look = watched.look(THREE, max_age=1)
    assert (states(look), look.trouble) == ("running running running", "")
    site.job(1, "1 R")
    site.records(1, "0 D 0", "2 D 0")
    clock.now += 10
    assert states(watched.look(THREE, max_age=1)) == "done running done"


def test_no_answer_in_time(site, queue: Make) -> None:
    """S04: a command that hangs is trouble, too."""
    site.always("pwatch", "hang")
    look = queue(timeout=0.2).look(THREE)
    assert "pwatch did not end within 200ms" in look.trouble
    assert (states(look), look.at) == ("unknown unknown unknown", 0.0)


def test_not_installed_here(site, queue: Make) -> None:
    """Where there are no commands, on a node for example, a look says so and raises nothing."""
    (site.folder / "bin/pwatch").unlink()
    assert "no command pwatch here" in queue().look(THREE).trouble


def test_trouble_between(site, queue: Make, clock) -> None:
    """A job is given up only after a minute in which the scheduler has answered."""
    watched = queue()
    for mode in ("ok", "ok", "down", "ok", "ok"):
        site.always("precords", mode)
        assert states(watched.look({"1": [None]}, max_age=1)) == "unknown"
        clock.now += 29
    for state in ("unknown", "vanished"):
        clock.now += 1
        assert states(watched.look({"1": [None]}, max_age=0)) == state


def test_a_state_that_is_not_known(site, queue: Make) -> None:
    """S05: a new word of the scheduler is unknown, not ended; lines that make no sense do not
    spoil those that do."""
    site.job(1, "0 REVOKED", "oops", "1 R", "slurm_load_jobs: warning", "2 R R R")
    look = queue().look(THREE)
    assert states(look) == "unknown running unknown"
    assert look.seen["1", 0].word == "REVOKED"


LINES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("RQDFXNU"), st.sampled_from(["", " 0", " 3"])),
    max_size=5,
)


@given(st.lists(st.tuples(LINES, LINES, st.booleans(), st.floats(0, 100)), max_size=12))
def test_states_move_forward(steps: list) -> None:
    """I9: whatever the queue and the records tell in which order: what has ended for certain stays
    as it is, and nothing that the last answer shows alive has ended."""
    words = {"R": "running", "Q": "waiting", "D": "done", "F": "failed", "X": "cancelled"}
    words |= {"N": "node", "U": "unknown"}

    def read(lines: list) -> list[Seen]:
        return [
            Seen("1", index, words[word], word, exit_status=int(status) if status else None)
            for index, word, status in lines
        ]

    known, now, ended = Known("pretend"), 0.0, {}
    for queue_lines, record_lines, fails, pause in steps:
        now += pause + 1
        live = known.to_ask(THREE, now, 0.5)
        if not live:
            break
        told = read(queue_lines)
        absent = known.queue_told(live, told, now)
        if fails:
            known.failed(live, "down", now)
        else:
            known.records_told(absent, read(record_lines), now)
            known.answered(live, now)
        seen = known.look(THREE).seen
        assert {key: seen[key] for key in ended} == ended
        for one in told:
            if one.index in live["1"] and one.state in ("running", "waiting"):
                last = [other for other in told if other.index == one.index][-1]
                assert seen["1", one.index].state == last.state
        ended |= {key: one for key, one in seen.items() if one.state in ("done", "cancelled")}


def test_limits(site, queue: Make) -> None:
    """The limits are asked for once; where they cannot be, the usual ones are taken, and said."""
    said: list[str] = []
    site.modes("plimits", "down", "hang")
    watched = queue(timeout=1.0)
    assert watched.limits(said.append) == watched.limits(said.append) == Limits()
    assert "pretend does not tell its limits (cannot contact the server)" in said[0]
    assert "did not end within 1.00s" in said[1]
    assert "job arrays of up to 1000 elements" in said[1]
    assert watched.limits(said.append) == watched.limits(said.append) == Limits(50, 49)
    assert (len(said), len(site.calls())) == (2, 3)


def test_cancel(site, queue: Make) -> None:
    """S24: to cancel what is gone, or going, is no error."""
    site.job(1, "0 R")
    for _ in range(3):
        queue().cancel("1")
    assert site.jobs() == []
    queue().cancel("2", [0, 3])
    assert site.calls()[-2:] == ["pend 2 0", "pend 2 3"]


def test_cancel_fails(site, queue: Make, clock) -> None:
    """S24: it is tried again while the scheduler is down, and said, for as long as there is
    patience; of many commands all are run, whatever the first says."""
    site.job(1, "0 R")
    site.modes("pend", "down", "down", "killed")
    said: list[str] = []
    queue().cancel("1", tell=said.append)
    assert site.jobs() == []
    assert (len(said), clock.slept) == (3, [1, 2, 4])
    site.always("pend", "down")
    with pytest.raises(SchedulerDown, match="cannot contact"):
        queue().cancel("1", patience=100)
    site.always("pend", "ok")
    site.modes("pend", "refused")
    calls = len(site.calls())
    with pytest.raises(SchedulerError, match="not yours"):
        queue().cancel("1", [0, 1, 2])
    assert len(site.calls()) == calls + 3


def test_cancelled_while_it_ended(site, queue: Make, clock) -> None:
    """S24: what was seen to end before it was cancelled stays so, whatever is written over it."""
    site.records(1, "0 D 0", "1 F 1")
    watched = queue()
    assert states(watched.look({"1": range(2)}, max_age=1)) == "done failed"
    watched.cancel("1")
    site.records(1, "0 X", "1 X")
    clock.now += 100
    assert states(watched.look({"1": range(2)}, max_age=1)) == "done failed"
