"""Slurm's accounting records, and answers that are damaged: they were given by a real one."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.schedulers.slurm_transcripts import (
    ASKED,
    SLURM,
    answer,
    asked,
    converted,
    ends,
    queue,
    sacct,
    transcript,
)

from fanfold.errors import SchedulerDown
from fanfold.schedulers.base import Answer, Seen

MANY = "108,109,110,111,112,113,114,115,116"


# The records --------------------------------------------------------------------------------------


def test_the_records_of_elements():
    """Exit statuses above 127 are recorded less 128, so both are named; 128 itself is not told from
    a late record."""
    told = SLURM.recorded(asked("sacct", "98,99", 1))
    assert ends(told) == {
        ("98", 0): "done 0",
        ("98", 1): "failed 3",
        ("98", 2): "failed -9",
        ("98", 3): "failed -15",
        ("98", 4): "failed 127",
        ("98", 5): "failed 9",
        ("98", 6): "failed",
        ("98", 7): "done 0",
        ("99", None): "done 0",
    }
    reasons = {seen.index: seen.reason for seen in told}
    assert reasons[5] == "exit status 9 or 137"
    assert reasons[2] == ""


def test_what_an_element_used():
    """MaxRSS and TotalCPU stand on the rows of its steps; what was not sampled is not known."""
    told = {seen.index: seen for seen in SLURM.recorded(asked("sacct", "98,99", 1))}
    assert (told[7].cpu_time, told[7].peak_memory) == (2.552, 91992064)
    assert (told[7].began, told[7].ended, told[7].node) == (1795237122.0, 1795237125.0, "n3")
    assert (told[0].cpu_time, told[0].peak_memory) == (0.001, None)
    told = {seen.index: seen for seen in SLURM.recorded(converted("11-sacct", "Start,End", 1))}
    assert (told[3].cpu_time, told[3].peak_memory) == (1.628, 125484 << 10)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:01.561", 1.561), ("01:02:03", 3723.0), ("2-01:02:03", 176523.0), ("", None), ("1", None)],
)
def test_cpu_time(text, seconds):
    """TotalCPU is ``MM:SS.mmm``, ``HH:MM:SS`` or ``D-HH:MM:SS``; that of several steps is added."""
    row = "1|debug|COMPLETED|0:0|1|1|9|||n1|"
    (seen,) = SLURM.recorded(sacct(row, f"1.batch||COMPLETED|0:0|1|1|9|{text}||n1|"))
    assert seen.cpu_time == seconds
    steps = [f"1.{step}||COMPLETED|0:0|1|1|9|00:02.5|{step}M|n1|" for step in (3, 4)]
    (seen,) = SLURM.recorded(sacct(row, *steps))
    assert (seen.cpu_time, seen.peak_memory) == (5.0, 4 << 20)
    (seen,) = SLURM.recorded(sacct("1|debug|RUNNING|0:0|1|1|", "1.batch||RUNNING|0:0|1|1||00:00|"))
    assert seen.cpu_time is None  # it is told at the end


def test_the_newest_of_several_records_counts():
    """S08. An element that was begun again has a row for each time; the later submission is the
    newer one, whatever the order, and what the earlier used does not count for it."""
    said = asked("sacct", MANY)
    told = {(seen.job, seen.index): seen for seen in SLURM.recorded(said)}
    assert (told["108", 1].state, told["108", 1].restarts) == ("cancelled", 1)
    assert told["108", 1].peak_memory is None
    told = {(seen.job, seen.index): seen for seen in SLURM.recorded(asked("sacct", "122,123"))}
    assert (told["122", 0].state, told["122", 0].restarts) == ("waiting", 1)
    assert told["123", None].state == "node"
    assert ends(SLURM.recorded(converted("18-requeue", "Elapsed", 1))) == {
        **dict.fromkeys([("59", 1), ("59", 2), ("61", None), ("62", None), ("64", None)], "done 0")
    }


def test_a_record_that_is_there_twice_is_one():
    """S08. Duplicate rows, and rows without a start, are no second start."""
    row = "1_0|debug|COMPLETED|0:0|5|6|9|||n1|"
    (seen,) = SLURM.recorded(sacct(row, row, "1_0|debug|RUNNING|0:0|5|Unknown|Unknown|||n1|", row))
    assert seen.restarts == 0
    again = "1_0|debug|REQUEUED|0:0|5|Unknown|7|||n1|"
    for rows in ([row, again], [again, row]):
        (seen,) = SLURM.recorded(sacct(*rows))
        assert seen.state == "done"


def test_elements_that_never_began_share_a_record():
    """``108_[3,6-9%2]`` also names element 3, which ran: its own row counts."""
    shown = {index: seen for seen in SLURM.recorded(asked("sacct", MANY)) if seen.job == "108"
             for index in [seen.index]}  # fmt: skip
    assert set(shown) == {0, 1, 2, 3, 6, 7, 8, 9}
    assert {seen.state for seen in shown.values()} == {"cancelled"}
    assert shown[3].began == 1795237136.0
    assert shown[6].began is None
    assert shown[6].reason == "by 0"
    row = "1_[0-1]|debug|CANCELLED|0:0|4|None|9|||None assigned|"
    told = SLURM.recorded(sacct("1_0|debug|COMPLETED|0:0|5|6|9|||n1|", row))
    assert [(seen.state, seen.restarts) for seen in told] == [("done", 0), ("cancelled", 0)]
    told = ends(SLURM.recorded(converted("19-scancel", "Start,End,Elapsed")))
    assert told == {("80", index): "cancelled" for index in (1, 2, 3, 4, 7, 8)}


def test_a_list_of_indices_that_was_cut_off():
    """``12_[1,3,5...]``: what may be half a number is not read."""
    shown = SLURM.recorded(sacct("1_[1-3,5,17...]|debug|PENDING|0:0|1|"))
    assert [seen.index for seen in shown] == [1, 2, 3, 5]


def test_records_that_are_late():
    """S08. At first a row is of the raw id, which is the array's own for its last element, and has
    no partition: it says nothing of the others. FAILED with 0:0 is not yet the exit status."""
    assert SLURM.recorded(asked("sacct", "98,99")) == []
    late = sacct(
        "1||FAILED|0:0|5|6|6|00:00.001||n2|",
        "1.batch||FAILED|0:0|6|6|6|00:00.001||n2|",
        "2|debug|CANCELLED by 0|0:0|5|6|6|||None assigned|",
        "2_1|debug|COMPLETED|0:0|5|6|6|||n1|",
        "3|debug|COMPLETED|0:0|5|6|6|||n1|",
        "3_0|debug|COMPLETED|0:0|5|6|6|||n1|",
    )
    assert ends(SLURM.recorded(late)) == {
        ("2", None): "cancelled",  # those that never began
        ("2", 1): "done 0",
        ("3", 0): "done 0",
    }


@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        ("14-task-exits", "-j 30 -o JobID,JobName,State,ExitCode,DerivedExitCode",
         {("30", 0): "done 0", ("30", 1): "failed 3", ("30", 2): "failed -9",
          ("30", 3): "failed -15", ("30", 4): "failed 127", ("30", 5): "failed 9",
          ("30", 6): "failed -11", ("30", 7): "failed 9", ("30", 8): "done 0",
          ("30", 9): "failed 1", ("30", 10): "done 0", ("30", 11): "failed 9",
          ("30", 12): "done 0"}),
        ("15b-memory-enforced-by-cgroup", "MaxRSS,ReqMem",
         {("11", None): "memory", ("13", None): "done 0", ("14", None): "done 0",
          ("15", None): "done 0", ("12", 1): "memory", ("12", 2): "memory"}),
        ("16-timeout", "-j 12 -o JobID,State,ExitCode,DerivedExitCode,Elapsed,Timelimit,Start,End",
         {("12", None): "walltime"}),
        ("17-signal", "-j 77,78,79 -o JobID,State,ExitCode",
         {("77", None): "cancelled", ("78", None): "failed -10", ("79", None): "failed -10"}),
        ("19-scancel", "-j 88 -o JobID,State,ExitCode",
         {("88", 1): "cancelled", ("88", None): "cancelled"}),
        ("19-scancel", "-j 90 -o JobID,State,ExitCode", {("90", None): "cancelled"}),
        ("22-missing-output-directory", "State,ExitCode,Elapsed",
         {**{(str(job), None): "failed" for job in (162, 163, 164, 165, 168)},
          ("166", None): "done 0", ("161", 1): "failed", ("161", 2): "failed"}),
        ("32-nodes", "-j 4,5 -o JobID,State,ExitCode,NodeList",
         {("5", None): "node", ("4", 1): "waiting", ("4", 2): "waiting"}),
    ],
)  # fmt: skip
def test_ends_on_record(name, command, expected):
    """OUT_OF_MEMORY has 0:125, TIMEOUT 0:0, CANCELLED the uid of who did it: none is an exit."""
    assert ends(SLURM.recorded(converted(name, command))) == expected


def test_no_records_are_kept():
    """S07. Without accounting sacct exits 1: there is nothing to tell, and nothing is wrong."""
    said = answer("31-no-accounting", "sacct -X -P -n -j 1")
    assert said.code == 1
    assert SLURM.recorded(said) == []
    assert SLURM.recorded(asked("sacct", "99999")) == []


def test_the_records_of_earlier_days_are_asked_for():
    """sacct begins at midnight unless told; and with a state it finds nothing at all."""
    argv = SLURM.history(["12", "13"])
    assert "--starttime=now-365days" in argv
    assert not [word for word in argv if word.startswith(("-s", "--state"))]


def test_times_without_seconds_are_of_this_place():
    """Where SLURM_TIME_FORMAT is not obeyed, times are local without offset."""
    (seen,) = SLURM.recorded(sacct("1|debug|COMPLETED|0:0|Unknown|2026-11-20T18:24:15|None|||n1|"))
    assert seen.began == datetime(2026, 11, 20, 18, 24, 15).timestamp()
    assert seen.ended is None


# Anything else that may be printed ----------------------------------------------------------------

ANSWERS = [said.answer for said in transcript(ASKED) if " squeue " in said.command
           or " sacct " in said.command]  # fmt: skip
NOISE = ["slurm_load_jobs: warning: something", "", "WARNING: 97% full", "|||||||||", "1|2|3|", "é"]


def read(said: Answer) -> list[Seen]:
    return (SLURM.recorded if "sacct" in said.argv else SLURM.seen)(said)


@given(st.sampled_from(ANSWERS), st.randoms(use_true_random=False))
def test_the_order_of_lines_and_what_stands_between_them_does_not_matter(said, random):
    """S05. Reordered lines, with warnings among them, tell the same."""
    if said.code:
        return
    lines = said.out.splitlines() + random.choices(NOISE, k=3)
    random.shuffle(lines)
    told = read(said._replace(out="".join(f"{line}\n" for line in lines)))
    assert sorted(map(str, told)) == sorted(map(str, read(said)))


@st.composite
def damaged(draw):
    """An answer of which a piece was replaced by another text."""
    said = draw(st.sampled_from(ANSWERS))
    first = draw(st.integers(0, len(said.out)))
    last = draw(st.integers(first, min(first + 40, len(said.out))))
    piece = draw(st.text(max_size=8) | st.text("0123456789|:-,%N/A[]_\n", max_size=8))
    return said, said._replace(out=said.out[:first] + piece + said.out[last:])


@given(damaged())
def test_a_damaged_answer_is_no_answer_or_tells_the_same_of_what_is_whole(answers):
    """S05. Whatever is printed, there is no other error than `SchedulerDown`, and the elements of a
    line that is whole have their state."""
    said, other = answers
    SLURM.read_limits(other)
    try:
        told = read(other)
    except SchedulerDown:
        return
    assume("squeue" in said.argv)  # in the records another line may be newer
    left = set(other.out.split("\n"))
    whole = [line for line in said.out.splitlines() if line in left]
    assert set(SLURM.seen(queue(*whole))) <= {
        seen._replace(job=seen.job.partition(";")[0]) for seen in told
    }


@given(st.none() | st.integers(-20, 255), st.text(), st.text())
def test_any_text_is_an_answer(code, out, err):
    """S05. No text and no exit status is an error of another kind."""
    for answer_of in (SLURM.seen, SLURM.recorded, SLURM.found):
        try:
            answer_of(Answer([], code, out, err))
        except SchedulerDown:
            continue
    assert SLURM.read_limits(Answer([], code, out, err)).elements >= 1
