"""Slurm's queue, read; its limits, and what ends a job: the answers were given by a real one."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.schedulers.slurm_transcripts import (
    ASKED,
    SLURM,
    answer,
    asked,
    ends,
    queue,
    sacct,
    transcript,
)

from fanfold.errors import SchedulerDown, SchedulerError, UsageError
from fanfold.resources import Resources
from fanfold.schedulers.base import ENDED, Answer, Limits
from fanfold.units import parse_indices

# The queue ----------------------------------------------------------------------------------------


def test_one_question_for_all_jobs_and_their_elements():
    """S23. It is one command; squeue --json would list every job of everybody, and -r leave out the
    last element of a waiting array with a step, such as 98 of ``0-98:2``."""
    argv = SLURM.watch(["12", "13"])
    assert argv[argv.index("squeue") + 1 : -1] == ["--jobs=12,13", "--states=all"]
    assert not {"--json", "-r", "--array"} & set(argv)


def test_what_the_environment_must_not_say_of_a_question():
    """A SQUEUE_PARTITION or SQUEUE_USERS of the user would hide jobs; times are asked for in
    seconds, for they are local without offset, and indices without the cut at 64 characters."""
    for argv in (SLURM.watch(["12"]), SLURM.search("name-1a2b")):
        unset = [name for flag, name in itertools.pairwise(argv) if flag == "-u"]
        assert {"SQUEUE_PARTITION", "SQUEUE_USERS", "SQUEUE_NAMES"} <= set(unset)
        assert {"SLURM_TIME_FORMAT=%s", "SLURM_BITSTR_LEN=0", "LC_ALL=C"} <= set(argv)
    assert "SCANCEL_INTERACTIVE" in SLURM.cancel("12")[0]


def test_how_elements_ended():
    """The queue has exit statuses as they were, those above 127 too, and signals."""
    assert ends(SLURM.seen(asked("squeue", "98,99", 1))) == {
        ("98", 0): "done 0",
        ("98", 1): "failed 3",
        ("98", 2): "failed -9",
        ("98", 3): "failed -15",
        ("98", 4): "failed 255",
        ("98", 5): "failed 137",
        ("98", 6): "failed 128",
        ("98", 7): "done 0",
        ("99", None): "done 0",
    }


MANY = "108,109,110,111,112,113,114,115,116"


def test_elements_that_wait_share_a_row():
    """An array that waits is ``0-98:2`` in one row; an element that has begun has its own, even
    while it waits again. Held, suspended and ending ones are told apart."""
    assert ends(SLURM.seen(asked("squeue", MANY))) == {
        **{("114", index): "cancelled" for index in range(4)},
        ("116", None): "ending",
        ("113", 0): "failed",
        ("113", 1): "failed",
        **{("108", index): "waiting" for index in range(1, 10)},
        ("110", None): "waiting",
        ("111", None): "waiting",
        ("115", None): "waiting",
        **{("112", index): "held" for index in range(0, 99, 2)},
        ("109", None): "held",
        ("108", 0): "held",
    }


def test_why_elements_wait_and_how_they_ended():
    """S19, S25. The reason is the scheduler's own word, and so is the state."""
    told = {(seen.job, seen.index): seen for seen in SLURM.seen(asked("squeue", MANY))}
    assert told["115", None].reason == "DependencyNeverSatisfied"
    assert told["110", None].reason == "BeginTime"
    assert told["108", 5].reason == "JobArrayTaskLimit"
    assert told["108", 0].word == "SUSPENDED"
    assert told["114", 0].reason == "DependencyNeverSatisfied"


def test_a_reason_may_hold_anything():
    """A drained node leaves jobs with a reason that has blanks, a comma, brackets; free text may
    have the separator."""
    for reason in (
        "PartitionTimeLimit",
        "ReqNodeNotAvail, UnavailableNodes:n[1-4]",
        "a | b",
        "näme 語",
        "a||",
    ):
        (seen,) = SLURM.seen(queue(f"1|N/A|PENDING|0|0|N/A|N/A||{reason}|"))
        assert (seen.state, seen.reason) == ("waiting", reason)


def test_a_line_that_was_cut_off_or_runs_on_is_no_record():
    """S05. Every field ends with a bar, and the last bar ends the line."""
    whole = "1|N/A|PENDING|0|0|N/A|N/A||JobHeldUser|"
    for line in (whole[:-1], whole[1:].lstrip("|"), f"{whole}x", f"x{whole}"):
        assert SLURM.seen(queue(line)) == []


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("JobHeldUser", "held"),
        ("JobHeldAdmin", "held"),
        ("job requeued in held state", "held"),
        ("JobHeldUser,JobHeldAdmin", "held"),
        ("JobArrayTaskLimit,BeginTime,JobHeldUser", "waiting"),  # of some of them only
        ("ReqNodeNotAvail, UnavailableNodes:JobHeldUser", "waiting"),
    ],
)
def test_what_is_held_is_known_by_the_reason(reason, state):
    """S19. Slurm calls a held job PENDING."""
    (seen,) = SLURM.seen(queue(f"1|N/A|PENDING|0|0|N/A|N/A||{reason}|"))
    assert seen.state == state


def test_a_job_that_could_not_be_launched_says_so():
    """S17. A missing folder for the output, or to work in: FAILED with 0:53, in words; neither 53
    nor what stands before it is an end of the script, which never ran."""
    for told in (SLURM.seen(asked("squeue", MANY)), SLURM.recorded(asked("sacct", MANY))):
        seen = next(seen for seen in told if (seen.job, seen.index) == ("113", 0))
        assert (seen.state, seen.exit_status, seen.signal) == ("failed", None, None)
        assert seen.reason.startswith("JobLaunchFailure: its output could not be opened")


def test_a_job_that_was_cancelled_has_no_exit_status():
    """Even if its script caught TERM and ended with 0; those of an array that never began are named
    in one row, as they were when it was cancelled."""
    told = SLURM.seen(asked("squeue", MANY, 2))
    shown = ends(told)
    assert shown["116", None] == "cancelled"
    assert [index for job, index in shown if job == "112"] == list(range(0, 99, 2))
    assert {index for job, index in shown if job == "108"} == {0, 1, 2, 3, 6, 7, 8, 9}
    assert all(seen.state == "cancelled" for seen in told if seen.job == "108")


def test_elements_that_were_cancelled_while_they_waited_are_told_by_nobody():
    """Once they are cancelled alone, neither the queue nor the records have them."""
    for said in (SLURM.seen(asked("squeue", MANY, 1)), SLURM.recorded(asked("sacct", MANY))):
        assert {seen.index for seen in said if seen.job == "112"} == set(range(0, 99, 2))
        assert not {4, 5} & {seen.index for seen in said if seen.job == "108"}


def test_no_name_stands_in_an_answer():
    """A job name with ``|`` or a line end breaks a line of squeue, and of sacct -P."""
    for argv in (SLURM.watch(["12"]), SLURM.history(["12"]), SLURM.search("name-1a2b")):
        fields = argv[-1].partition("=")[2].replace(":|", "").split(",")
        assert not {"Name", "JobName", "Comment", "Command", "WorkDir"} & set(fields)


def test_the_times_of_a_job_that_waits_are_guesses():
    """squeue tells when a job may begin and must end; only what has happened is told."""
    told = {(seen.job, seen.index): seen for seen in SLURM.seen(asked("squeue", MANY, 1))}
    assert told["110", None].began is None
    assert (told["108", 2].state, told["108", 2].ended) == ("running", None)
    assert (told["108", 2].began, told["108", 2].node) == (1795237134.0, "n2")
    assert (told["116", None].began, told["116", None].ended) == (1795237132.0, 1795237134.0)
    assert told["114", 0].began is None


def test_a_lost_node_and_a_second_start():
    """S12, S13. A job that may not begin again has lost its node; the others wait, and tell that
    they were begun before."""
    told = {(seen.job, seen.index): seen for seen in SLURM.seen(asked("squeue", "122,123"))}
    assert (told["123", None].state, told["123", None].reason) == ("node", "NodeDown")
    assert (told["122", 0].state, told["122", 0].restarts) == ("waiting", 1)


def test_the_walltime():
    """S10. TIMEOUT has the signal in the queue, and nothing in the records (0:0)."""
    assert ends(SLURM.seen(asked("squeue", "97"))) == {
        ("97", 0): "walltime -15",
        ("97", 1): "walltime -15",
    }
    assert set(ends(SLURM.recorded(asked("sacct", "97"))).values()) == {"walltime"}


def test_jobs_that_the_queue_does_not_know_any_more():
    """S06. For one unknown id squeue exits 1, for several it lists none, and beside known ones it
    leaves them out: nothing is told of them."""
    assert SLURM.seen(asked("squeue", "99999")) == []
    assert SLURM.seen(asked("squeue", "99998,99999")) == []
    assert ends(SLURM.seen(asked("squeue", "99999,99"))) == {("99", None): "done 0"}
    assert SLURM.seen(answer("31b-purged-jobs", '-j 5 -o "%i %T"', 4)) == []


def test_nobody_answers():
    """S04. Controller, database, munge or configuration gone, no answer in time, or one without
    sense: the queue and the records are down, and nobody is dead."""
    down = [said.answer for said in transcript("81-nobody-answers") if "-u" in said.command]
    munge = answer("29-munge-down", "squeue"), answer("29-munge-down", "sacct")
    for said in (*down, *munge, answer("71-no-configuration", "squeue")):
        for read in (SLURM.seen, SLURM.recorded, SLURM.found):
            with pytest.raises(SchedulerDown):
                read(said)
    for said in (
        Answer([], None, "", ""),
        Answer([], 0, "", ""),
        Answer([], 0, "\x1b[31m%&$\n", ""),
    ):
        for read in (SLURM.seen, SLURM.recorded, SLURM.found):
            with pytest.raises(SchedulerDown):
                read(said)


def test_an_unknown_state_is_unknown():
    """S05. A word of a newer Slurm is told as it is, and not guessed at."""
    (seen,) = SLURM.seen(queue("1|0|EXPEDITING|0|0|N/A|N/A||None|"))
    assert (seen.state, seen.word) == ("unknown", "EXPEDITING")
    (seen,) = SLURM.recorded(sacct("1_0|debug|LAUNCH_FAILED|0:0|1|1|1|00:00:01||n1|"))
    assert seen.state == "unknown"


def test_every_state_of_slurm_has_a_meaning():
    """Those that squeue itself lists, but one: a job that another cluster has taken over."""
    listed = re.search(
        r"Valid job states include: (\S+)", answer("09-squeue", "squeue -t bogus").err
    )
    assert set(listed[1].split(",")) - set(SLURM.states) == {"REVOKED"}


# Found by name, and other clusters ----------------------------------------------------------------


def test_jobs_are_found_by_their_name():
    """S01, S02. All of this user with the name, once each, those that were cancelled last."""
    assert SLURM.found(answer(ASKED, "'--Format=ArrayJobID:|,Cluster:|,State:|'")) == ["126", "125"]
    assert SLURM.found(answer(ASKED, "'--Format=ArrayJobID:|,Cluster:|,State:|'", 1)) == []


def test_a_search_that_was_cut_off_found_nothing_out():
    """S01. To take it for "there is no such job" would submit it twice."""
    said = answer(ASKED, "'--Format=ArrayJobID:|,Cluster:|,State:|'")
    for length in range(len(said.out)):
        cut = said._replace(out=said.out[:length])
        if not cut.out.endswith("\n"):
            with pytest.raises(SchedulerDown):
                SLURM.found(cut)


def test_a_job_on_another_cluster():
    """S22. Its id tells where: ``127;private`` is asked for there, and told so."""
    assert SLURM.found(answer(ASKED, "'--Format=ArrayJobID:|,Cluster:|,State:|'", 2)) == [
        "127;private"
    ]
    assert "--clusters=private" in SLURM.watch(["127;private", "128;private"])
    assert "--clusters=private" in SLURM.cancel("127;private")[0]
    for told in (SLURM.seen(asked("squeue", "127")), SLURM.recorded(asked("sacct", "127"))):
        assert ends(told) == {("127;private", 0): "done 0", ("127;private", 1): "done 0"}
    for ask in (SLURM.watch, SLURM.history):
        assert "SLURM_CLUSTERS" in ask(["127"])  # unset: this id is of this cluster
        with pytest.raises(UsageError, match="several clusters"):
            ask(["127;private", "12"])


# Ending, limits, a shell --------------------------------------------------------------------------


@given(st.sets(st.integers(0, 5000)))
def test_exactly_the_elements_are_cancelled(indices):
    """Each is named, and no other; none at all is no command, for that would be the whole job."""
    named = []
    for argv in SLURM.cancel("12", list(indices)):
        number, listed = re.fullmatch(r"(12)_\[(.+)\]", argv[-1]).groups()
        assert number == "12"
        named += parse_indices(listed)
    assert sorted(named) == sorted(indices)


def test_many_elements_are_cancelled_by_several_commands():
    """A word of a command may not be longer than the kernel allows (128 KB)."""
    commands = SLURM.cancel("12", range(0, 40_000, 2))
    assert len(commands) == 20
    assert max(len(argv[-1]) for argv in commands) < 10_000


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("19-scancel", "scancel 80_9"),
        ("19-scancel", "scancel -v 80_2"),
        ("19-scancel", "scancel -v 99999"),
        ("31b-purged-jobs", "scancel -v 5"),
        ("17-signal", "scancel --full --signal=USR1 78"),
    ],
)
def test_to_cancel_what_is_gone_is_no_error(name, command):
    """S24. scancel is silent for what has ended, is purged, or never was; -v tells."""
    said = answer(name, command)
    SLURM.cancelled(said)
    if said.err:  # another version may exit with 1
        SLURM.cancelled(said._replace(code=1))


def test_what_cannot_be_cancelled():
    """Somebody else's job is an error with Slurm's words (exit 210); with the controller (8) or
    munge down (239) it may be tried again."""
    with pytest.raises(SchedulerError, match="Access/permission denied") as caught:
        SLURM.cancelled(answer("19-scancel", "scancel 86"))
    assert not isinstance(caught.value, SchedulerDown)
    for name, command in (("28-controller-down", "scancel 1"), ("29-munge-down", "scancel 1"),
                          ("81-nobody-answers", "scancel 129")):  # fmt: skip
        with pytest.raises(SchedulerDown):
            SLURM.cancelled(answer(name, command))
    with pytest.raises(SchedulerDown):
        SLURM.cancelled(Answer([], None, "", ""))
    with pytest.raises(SchedulerError, match="Invalid job id abc"):
        SLURM.cancelled(answer("19-scancel", "scancel abc"))


def test_the_limits_of_the_site():
    """S15. MaxArraySize is one more than the highest index, whatever the number of elements."""
    said = answer("06-array-too-large", '"MaxArraySize|MaxJobCount"')
    assert SLURM.read_limits(said) == Limits(elements=1001, highest_index=1000, jobs=10000)
    more = said._replace(out=said.out + "SchedulerParameters = max_array_tasks=200,bf_interval=1\n")
    assert SLURM.read_limits(more).elements == 200
    none = said._replace(out="MaxArraySize            = 0\n")
    assert SLURM.read_limits(none) == Limits(elements=1, highest_index=0)
    assert SLURM.read_limits(answer("81-nobody-answers", "scontrol show config")) == Limits()


def test_a_shell_on_a_node():
    """All that was asked for is allocated; the shell is a step on its first node, which leaves room
    for the steps that are begun in it."""
    argv = SLURM.shell(Resources(nodes=2, cores=4, memory="8GB", queue="long"))
    step = argv.index("srun")
    asked_for = "--nodes=2 --ntasks-per-node=1 --cpus-per-task=4 --mem=8G --partition=long"
    assert argv[:step] == ["salloc", *asked_for.split()]
    of_the_step = "--overlap --nodes=1 --ntasks=1 --cpus-per-task=4 --pty /bin/sh -c"
    assert argv[step + 1 :] == [*of_the_step.split(), 'exec "${SHELL:-/bin/sh}" -i']


def test_every_end_has_a_word():
    """Each way to end that we tell apart, Slurm does."""
    assert set(SLURM.states.values()) >= ENDED
