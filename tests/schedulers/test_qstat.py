"""What qstat tells of elements: real answers of OpenPBS 23.06.06, and what may become of them."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanfold.errors import SchedulerDown
from fanfold.schedulers.base import ENDED, Answer, Seen
from fanfold.schedulers.pbs import PBS

RAW = Path(__file__).parent / "transcripts" / "pbs" / "raw"
FILES = sorted(path.name for path in RAW.iterdir())
OFF = "qstat: PBS is not configured to maintain job history 0.pbshost\n"


def raw(name: str) -> str:
    """An answer as fanfold hears it."""
    return (RAW / name).read_bytes().decode(errors="replace")


def seen(text: str, *jobs: str, code: int = 0, err: str = "") -> dict[int | None, Seen]:
    told = PBS().seen(Answer(PBS().watch(jobs), code, text, err))
    assert len({(one.job, one.index) for one in told}) == len(told)
    return {one.index: one for one in told}


def states(text: str) -> list[str]:
    return [one.state for one in seen(text).values()]


def answer(*jobs: dict[str, object]) -> str:
    """An answer with such attributes, as 23.06.06 lays it out."""
    told = {str(job.pop("id")): job for job in jobs}
    return json.dumps({"timestamp": 1, "pbs_version": "23.06.06", "Jobs": told}, indent=4)


def element(index: int, word: str, **attributes: object) -> dict[str, object]:
    own = {"array_index": index, "run_count": 1} if word != "Q" else {}
    return {"id": f"12[{index}].pbshost", "job_state": word, **own, **attributes}


@pytest.fixture
def zone() -> Iterator[None]:
    before = os.environ.get("TZ")
    yield
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()


# What was told ------------------------------------------------------------------------------------


TOLD = {
    "array-queued-t.json": ["waiting"] * 10,
    "array-running-t.json": ["running"] * 8 + ["waiting"] * 2,
    "array-partly-t.json": ["done"] * 8 + ["running"] * 2,
    "array-finished-t.json": ["done"] * 10,
    "array-held-cannot-start-t.json": ["done", "held", "held"],
    "array-of-one-t.json": ["failed"],
    "array-after-server-restart-t.json": ["failed"] * 2 + ["done"] * 8,
    "array-deleted-t.json": ["cancelled"] * 10,
    "array-deleted-after-some-ended-t.json": ["cancelled"] * 10,
    "exit-status-t.json": [
        "done", *["failed"] * 6, "done", "failed", "failed", "done", "failed",
    ],
    "resources-used-t.json": ["done"] * 4,
    "resources-used-enforced-t.json": ["done", "memory", "done", "done"],
    "newer-array-finished-t.json": ["done", "failed", "done"],
    "array-queued-t4.json": ["waiting"],
    "array-running-t4.json": ["running"],
    "array-partly-t4.json": ["done"],
    "awkward-directory-13.json": ["ending"] * 2,
    "element-requeued.json": ["running"],
    "walltime-exceeded.json": ["walltime"],
    "interactive.json": ["done"],
}  # fmt: skip
NO_ELEMENTS = [
    *(name for name in FILES if "-parent" in name or name.startswith("qstat-")),
    "json-quirk-35.json", "json-quirk-36.json", "newer-json-quirk-11.json",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_states(name: str) -> None:
    """Every answer is read, whatever its version and whatever in it is no JSON: each element with
    its state, and nothing of the array as a whole."""
    if name in NO_ELEMENTS:
        expected: list[str] = []
    elif "awkward" in name and name not in TOLD:
        expected = ["done", "done"]
    else:
        expected = TOLD.get(name, ["held"])  # the quirks: each a job that was submitted held
    assert states(raw(name)) == expected


def test_every_kind_of_answer_is_there() -> None:
    """The tests above have seen both layouts, and answers that are no JSON."""
    broken = 0
    for name in FILES:
        try:
            json.loads((RAW / name).read_bytes())
        except ValueError:
            broken += 1
    assert broken == 14
    assert sum('"Jobs":\t{' in raw(name) for name in FILES) == 15


def test_exit_statuses() -> None:
    """0 to 255 is what the script ended with, 128 more than a signal where that ended it."""
    told = seen(raw("exit-status-t.json"))
    statuses = [one.exit_status for one in told.values()]
    assert statuses == [0, 3, 137, 143, 139, 127, 255, 0, 134, 137, 0, 255]
    signals = [one.signal for one in told.values()]
    assert signals == [None, None, 9, 15, 11, None, None, None, 6, 9, None, None]


@pytest.mark.parametrize(
    ("status", "state", "exit_status", "signal"),
    [
        (266, "failed", 266, 10),  # 256 more: the login shell was ended
        (271, "failed", 271, 15),
        (254, "failed", 254, None),  # no such program
        (127, "failed", 127, None),
        (-29, "walltime", None, None),
        (-27, "memory", None, None),
        (-3, "failed", None, None),
        (-4, "node", None, None),
    ],
)
def test_special_statuses(
    status: int, state: str, exit_status: int | None, signal: int | None
) -> None:
    """Over 256 a signal has ended the login shell; below 0 PBS has ended the job, and that is no
    exit status of a script."""
    (one,) = seen(answer(element(1, "X", substate=93, Exit_status=status))).values()
    assert (one.state, one.exit_status, one.signal) == (state, exit_status, signal)
    if status < 0:
        assert one.reason == f"Exit_status = {status}"


@pytest.mark.parametrize("status", [271, 143, 0, None])
def test_only_the_substate_tells_of_a_deletion(status: int | None) -> None:
    """A deleted job has 271, 143, 0 or no exit status: substate 91 makes it cancelled."""
    ended = {} if status is None else {"Exit_status": status}
    assert states(answer(element(1, "F", substate=91, **ended))) == ["cancelled"]
    job = {"id": "12.pbshost", "job_state": "F", "substate": 91, **ended}
    assert states(answer(job)) == ["cancelled"]


def test_waiting_elements_have_nothing_of_their_own() -> None:
    """A queued element carries its array's exit status, start and comment: only the index in its id
    is its own."""
    told = seen(raw("array-held-cannot-start-t.json"))[3]
    assert (told.exit_status, told.began, told.ended, told.node) == (None, None, None, "")
    waiting = seen(raw("array-running-t.json"))[9]
    assert (waiting.state, waiting.began, waiting.exit_status) == ("waiting", None, None)
    assert waiting.reason == "Job Array Began at Fri Nov 20 at 17:54"


def test_held_array() -> None:
    """Elements of a held array are shown as Q, and are held; the comment tells why."""
    told = seen(raw("array-held-cannot-start-t.json"))
    assert (told[3].word, told[3].state) == ("Q", "held")
    assert told[3].reason.startswith("Job Array Held, too many failed attempts to run")
    assert told[2].reason == "job held, too many failed attempts to run"
    assert told[2].restarts == 20
    assert seen(raw("json-quirk-01.json"))[None].reason == "Hold_Types = u"


def test_deleted_before_it_began() -> None:
    """An element that was deleted while it waited is X with the attributes of its array."""
    deleted = {"substate": 70, "comment": "Subjob finished", "Exit_status": 1}
    job = {"id": "155[10].pbshost", "job_state": "X", "Hold_Types": "n", **deleted}
    (one,) = seen(answer(job)).values()
    assert (one.state, one.exit_status, one.reason) == ("cancelled", None, "Subjob finished")


def test_records_wiped_by_qdel() -> None:
    """Who deletes a whole array wipes the records of what had ended: nothing is made up."""
    told = seen(raw("array-deleted-after-some-ended-t.json"))
    for index in (1, 2, 3):
        assert told[index][2:] == ("cancelled", "F", "Subjob finished", "", *[None] * 6, 0)
    assert told[4].exit_status == 271


def test_dependencies() -> None:
    """What waits for another job is held by the system, and waits; its elements look as Q do."""
    depend = {"depend": "afterany:238[].pbshost@pbshost", "Hold_Types": "s"}
    job = {"id": "13.pbshost", "job_state": "H", "substate": 22, **depend}
    (one,) = seen(answer(job)).values()
    assert (one.state, one.reason) == ("waiting", depend["depend"])
    assert states(answer(element(1, "Q", substate=10, **depend))) == ["waiting"]
    held = {**depend, "Hold_Types": "us"}
    assert states(answer(element(1, "Q", substate=10, **held))) == ["held"]


def test_awaited_jobs_do_not_wait() -> None:
    """A job that others wait for has a dependency, too, and waits for nobody."""
    depend = {"depend": "beforeany:213.pbshost@pbshost", "Hold_Types": "n"}
    (one,) = seen(answer(element(1, "Q", substate=10, comment="Not Running: x", **depend))).values()
    assert (one.state, one.reason) == ("waiting", "Not Running: x")


def test_taken_away() -> None:
    """What can never begin any more is taken away without a word: F, substate 92, and no more."""
    depend = "afterok:215[].pbshost@pbshost"
    job = {"id": "216.pbshost", "job_state": "F", "Hold_Types": "s", "substate": 92}
    (one,) = seen(answer({**job, "depend": depend})).values()
    assert one.state == "cancelled"
    assert depend in one.reason
    assert states(answer(job)) == ["unknown"]  # nothing tells why


def test_impossible_request() -> None:
    """An impossible request waits, and only its comment says that it can never run."""
    comment = "Can Never Run: Insufficient amount of resource: ncpus (R: 999 A: 8 T: 8)"
    job = {"id": "327.pbshost", "job_state": "Q", "Hold_Types": "n", "comment": comment}
    assert seen(answer(job))[None][2:5] == ("waiting", "Q", comment)


@pytest.mark.parametrize("word", ["M", "Y", "", "running", "7"])
def test_unknown_states(word: str) -> None:
    """A state that is not known is unknown, and shown as it is."""
    (one,) = seen(answer(element(1, word, substate=92, Exit_status=0))).values()
    assert (one.state, one.word) == ("unknown", word)


@pytest.mark.parametrize("word", sorted(PBS.states))
def test_states_of_the_table(word: str) -> None:
    """Each state of the table is what it says there, as long as nothing is ended."""
    (one,) = seen(answer(element(1, word, comment="c"))).values()
    assert one.state == PBS.states[word]
    assert one.state not in ENDED


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"substate": 92},
        {"substate": 92, "Exit_status": 3},
        {"substate": 93},
        {"substate": 94, "Exit_status": 0},
        {"Exit_status": 0},
        {"substate": "inf", "Exit_status": 1e999},
    ],
)
def test_ends_that_cannot_be(attributes: dict[str, object]) -> None:
    """Substate and exit status have to agree: else nobody knows how it ended."""
    assert states(answer(element(1, "F", **attributes))) == ["unknown"]


def test_index_of_another() -> None:
    """An element whose attributes are those of another one is unknown."""
    job = element(1, "F", substate=92, Exit_status=0)
    assert states(answer({**job, "array_index": 2})) == ["unknown"]
    del job["run_count"]
    assert states(answer(job)) == ["unknown"]


def test_usage() -> None:
    """CPU time and memory are those of the whole job; 0 means that nobody had looked yet."""
    told = seen(raw("resources-used-enforced-t.json"))
    assert [one.cpu_time for one in told.values()] == [4.0, None, None, 6.0]
    kilobytes = [None, 423672, 7228, 22224]
    assert [one.peak_memory and one.peak_memory // 1024 for one in told.values()] == kilobytes


def test_restarts() -> None:
    """run_count counts begins: an element that was begun again has had one restart."""
    (one,) = seen(raw("element-requeued.json")).values()
    assert (one.restarts, one.state) == (1, "running")


@pytest.mark.parametrize(
    ("host", "node"),
    [("pbshost/0", "pbshost"), ("n1/0*4+n1/4*4+n2/1", "n1,n2"), ("", ""), ("+//+", "")],
)
def test_nodes(host: str, node: str) -> None:
    """exec_host names each place on each node; each node is named once."""
    assert seen(answer(element(1, "R", exec_host=host)))[1].node == node


def test_lost_output() -> None:
    """Where the log could not be copied to its place, that is told."""
    (one,) = seen(answer(element(1, "X", substate=92, Exit_status=0, Stageout_status=0))).values()
    assert (one.state, one.reason[:19]) == ("done", "Stageout_status = 0")


# Times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_times_of_another_zone(name: str, zone: None) -> None:
    """Times are text of some time zone: what has ended tells which, in seconds since 1970."""
    os.environ["TZ"] = name
    time.tzset()
    told = seen(raw("array-partly-t.json"))
    assert (told[1].began, told[1].ended) == (1795197280, 1795197292)
    assert told[9].began == 1795197292


def test_times_of_here(zone: None) -> None:
    """Where nothing has ended yet they are times of here: qstat itself writes them."""
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    text = answer(element(1, "R", stime="Fri Nov 20 18:54:40 2026"))
    assert seen(text)[1].began == 1795197280


@pytest.mark.parametrize(
    "text", ["", "soon", "Fri Brr 20 17:54:40 2026", "Fri Nov 20 17:54:40", "Fri Nov 99 99:99:99 0"]
)
def test_no_times(text: str) -> None:
    """What is no time is not known."""
    assert seen(answer(element(1, "R", stime=text)))[1].began is None


# What is asked ------------------------------------------------------------------------------------


def test_ids_as_they_were_asked() -> None:
    """An id is told as it was asked for, whatever name the server gives itself."""
    text = raw("array-running-t.json")
    for job in ("2[].pbshost", "2[]", "2[].pbshost.example.org", "2[].pbshost@other"):
        assert {one.job for one in PBS().seen(Answer(PBS().watch([job]), 0, text, ""))} == {job}
    both = ["2[].other", "2[].pbshost", "2.pbshost"]
    assert {one.job for one in PBS().seen(Answer(PBS().watch(both), 0, text, ""))} == {both[1]}


NOTHING = raw("qstat-f-nojobs.json")


@pytest.mark.parametrize(
    ("code", "err"),
    [
        (0, ""),
        (0, OFF),  # -x, where no history is kept
        (153, "qstat: Unknown Job Id 0.pbshost\n"),
        (35, "qstat: 71[].pbshost Job has finished, use -x or -H to obtain historical ...\n"),
    ],
)
def test_nothing_is_known(code: int, err: str) -> None:
    """S07: history off, expired, or asked without -x: nothing is told, and that is no failure."""
    assert seen(NOTHING, code=code, err=err) == {}
    assert PBS().recorded(Answer([], code, NOTHING, err)) == []
    if code:
        assert seen("", code=code, err=err) == {}


def test_unknown_among_known() -> None:
    """Exit status 153 is of the unknown ones: the others are told."""
    text = raw("array-partly-t.json")
    assert len(seen(text, code=153, err="qstat: Unknown Job Id 999999.pbshost\n")) == 10


@pytest.mark.parametrize("code", [255, 162, 160, 1, 2, 159, 170, -9, None])
def test_server_down(code: int | None) -> None:
    """S04: valid JSON without jobs, and an exit status that says why: it is down, not empty."""
    said = "Connection refused\nqstat: cannot connect to server pbshost (errno=15010)\n"
    with pytest.raises(SchedulerDown, match="cannot connect to server"):
        PBS().seen(Answer([], code, NOTHING, said))
    with pytest.raises(SchedulerDown):
        PBS().recorded(Answer([], code, NOTHING, ""))
