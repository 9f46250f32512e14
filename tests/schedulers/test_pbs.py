"""PBS: what fanfold asks it, and what it makes of the answers, from transcripts of 23.06.06."""

import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.errors import (
    SchedulerDown,
    SchedulerError,
    UsageError,
)
from fanfold.resources import Resources
from fanfold.schedulers.base import Answer, Job, Limits
from fanfold.schedulers.pbs import PBS
from fanfold.schedulers.registry import scheduler

TRANSCRIPTS = Path(__file__).parent / "transcripts" / "pbs"
COMMAND = re.compile(
    r"^(?:\$|root#) (?P<line>[^\n]*)\n(?P<said>.*?)^\[exit (?P<code>\d+)\]$", re.M | re.S
)


def commands(file: str, program: str) -> list[tuple[str, Answer]]:
    """Every call of a program in a transcript, and what it said."""
    text = (TRANSCRIPTS / file).read_text(errors="replace")
    found = []
    for match in COMMAND.finditer(text):
        out, _, err = match["said"].partition("[stderr]\n")
        if re.search(rf"(?:^|[|&] |PBS_\w+=\w+ ){program}\b(?!.*[|;])", match["line"]):
            found.append((match["line"], Answer([program], int(match["code"]), out, err)))
    return found


def job(last: int = 3, **given: object) -> Job:
    return Job(**{"name": "pi-4f2a", "first": 0, "last": last, "resources": Resources(),
                  "output": "/runs/pi/logs/array-1", **given})  # type: ignore[arg-type]  # fmt: skip


def test_registry() -> None:
    """It is found by its name."""
    assert isinstance(scheduler("pbs"), PBS)
    assert PBS.command == "qsub"


# Headers ------------------------------------------------------------------------------------------


def test_header() -> None:
    """An array has its name, its indices, its limit, one log an element, and what it asks for."""
    asked = Resources(cores=4, memory="8GB", walltime="1h", queue="long", extra=["-v A=1"])
    assert PBS().header(job(resources=asked, at_once=2)) == [
        "#PBS -r y",
        "#PBS -l select=1:ncpus=4:mem=8gb",
        "#PBS -l walltime=01:00:00",
        "#PBS -q long",
        "#PBS -v A=1",
        "#PBS -N pi-4f2a",
        "#PBS -J 0-3%2",
        "#PBS -j oe",
        "#PBS -o /runs/pi/logs/array-1.^array_index^",
    ]


def test_one_element_is_no_array() -> None:
    """`-J 0-0` is refused, so one element is a plain job, where ^array_index^ means nothing."""
    lines = PBS().header(job(last=0))
    assert not any("-J" in line for line in lines)
    assert lines[-1] == "#PBS -o /runs/pi/logs/array-1.0"


def test_dependencies() -> None:
    """The exit status of an array is that of its last element: who waits for one begins however it
    ended. Who waits for a plain job begins when that ended well."""
    lines = PBS().header(job(after=["12[].pbshost", "13.pbshost", "14[].pbshost"]))
    expected = "afterany:12[].pbshost:14[].pbshost,afterok:13.pbshost"
    assert lines[-1] == f"#PBS -W depend={expected}"


@pytest.mark.parametrize("after", ["12[2].pbshost", "x", "12;touch", "", "12\n#PBS -J 1-2"])
def test_what_cannot_be_waited_for(after: str) -> None:
    """An element cannot be depended on, and what is no id does not get into a script."""
    with pytest.raises(UsageError, match="12"):
        PBS().header(job(after=[after]))


def test_own_directives_have_the_last_word() -> None:
    """The last one counts to PBS: what users add changes no name, indices or log; but they may say
    that an element must not run twice."""
    lines = PBS().header(job(resources=Resources(extra=["-r n", "-m n"])))
    assert lines.index("#PBS -r n") > lines.index("#PBS -r y")
    assert lines.index("#PBS -m n") < lines.index("#PBS -N pi-4f2a")


@pytest.mark.parametrize(
    "line",
    ["-N x", "-J 1-9", "-o log", "-e log", "-j n", "-I", "-z", "-C x", "-W block=true", "-hz",
     "-W umask=22,block=true"],
)  # fmt: skip
def test_directives_that_are_not_for_users(line: str) -> None:
    """Directives by which the job could not be found or followed are refused, by name."""
    with pytest.raises(UsageError, match="for fanfold to say"):
        PBS().header(job(resources=Resources(extra=[line])))


def test_dependency_of_the_user() -> None:
    """-W depend is the user's own, as long as fanfold has nothing to wait for."""
    given = {"resources": Resources(extra=["-W depend=afterok:9"])}
    assert "#PBS -W depend=afterok:9" in PBS().header(job(**given))
    with pytest.raises(UsageError, match="leave -W depend out"):
        PBS().header(job(after=["12.pbshost"], **given))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "a\n#PBS -J 1-2", "$(x)", "n" * 231])
def test_names_that_qsub_refuses(name: str) -> None:
    """Names are of letters, digits and -_+. only, 230 at most; nothing else gets into a script."""
    with pytest.raises(UsageError, match="no name of a PBS job"):
        PBS().header(job(name=name))


@pytest.mark.parametrize(
    "output",
    ["/é/log", "/a\nb", "/a\tb", '/it\'s/"quoted"', "/back\\slash", "/^array_index^/log"],
)
def test_paths_that_pbs_cannot_write_to(output: str) -> None:
    """A path outside ASCII, or with an index of its own, is refused before anything is submitted:
    an array with ^array_index^ in the name of its folder never ends."""
    with pytest.raises(UsageError, match="choose a folder without"):
        PBS().header(job(output=output))


@pytest.mark.parametrize("output", ["/two words", "/it's", '/a"b', "/a:b,c", "/$HOME;x", "/%a"])
def test_awkward_paths(output: str) -> None:
    """Blanks, quotes, colons and dollars are fine in an absolute path, and are one word."""
    from fanfold.schedulers.scripts.directives import split_words

    line = PBS().header(job(output=output))[-1].removeprefix("#PBS")
    assert split_words(line, escapes=False) == (["-o", f"{output}.^array_index^"], "")


def test_submission() -> None:
    """-f leaves no process behind; -C so that PBS_DPREFIX does not change what a directive is. The
    script is a file: behind -- it would be a command."""
    assert PBS().submission("/runs/1.sh") == ["qsub", "-f", "-C", "#PBS", "/runs/1.sh"]


# Search -------------------------------------------------------------------------------------------


@pytest.fixture
def qselect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a qselect on the path: a shell script."""

    def put(body: str) -> None:
        program = tmp_path / "qselect"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


def search(name: str) -> Answer:
    argv = PBS().search(name)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return Answer(argv, done.returncode, done.stdout, done.stderr)


def test_search(qselect: Callable[[str], None]) -> None:
    """Jobs are looked for among those that live and, where they are kept, those that have ended:
    those that live come first, each once."""
    qselect(
        'case "$*" in *-x*) printf "7[].pbshost\\n12[].pbshost\\n";; *) echo "12[].pbshost";; esac'
    )
    assert PBS().found(search("pi-4f2a")) == ["12[].pbshost", "7[].pbshost"]


def test_search_without_history(qselect: Callable[[str], None]) -> None:
    """Where no history is kept, -x lists nothing at all: what lives is found all the same."""
    qselect('case "$*" in *-x*) echo "qselect: PBS is not ..." >&2;; *) echo 12.pbshost;; esac')
    assert PBS().found(search("pi-4f2a")) == ["12.pbshost"]


def test_search_is_for_own_jobs(qselect: Callable[[str], None], tmp_path: Path) -> None:
    """S21: only this user's jobs, by the whole name, which no shell reads."""
    qselect('printf "%s\\n" "$@" >&2')
    name = "$(touch CANARY); touch 'CANARY' \"`touch CANARY`\" *"
    words = search(name).err.split("\n")[:4]
    me = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert words == ["-u", me, "-N", name]
    assert not Path("CANARY").exists()


def test_nothing_found(qselect: Callable[[str], None]) -> None:
    """A search that finds nothing is no error."""
    qselect("exit 0")
    assert PBS().found(search("pi-4f2a")) == []


def test_search_fails(qselect: Callable[[str], None]) -> None:
    """S01: a search that failed, in either half, does not count as one that found nothing."""
    (refused,) = [answer for line, answer in commands("92-server-down.txt", "qselect")]
    for half in ("*-x*", "*"):
        qselect(f'case "$*" in {half}) echo "Connection refused" >&2; exit {refused.code};; esac')
        with pytest.raises(SchedulerDown, match="Connection refused"):
            PBS().found(search("pi-4f2a"))
    with pytest.raises(SchedulerDown, match="errno=15010"):
        PBS().found(refused)


@pytest.mark.parametrize("out", ["12[].pbs", "12.pbshost\n13.pb", "\x1b[31m%&$ \ufffd\n"])
def test_search_is_garbled(out: str) -> None:
    """S05: an answer that is cut off, or nonsense, does not count as nothing found."""
    with pytest.raises(SchedulerDown):
        PBS().found(Answer(["sh"], 0, out, ""))
    with pytest.raises(SchedulerDown):
        PBS().found(Answer(["sh"], None, "", ""))


def test_no_qselect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PBS is not installed that is said."""
    with pytest.raises(UsageError, match="no qselect here"):
        PBS().found(search("pi-4f2a"))


# Watching -----------------------------------------------------------------------------------------


def test_one_command_for_all_jobs() -> None:
    """One qstat tells of all jobs and their elements, by their ids, brackets and all: nothing of
    anybody else's jobs can spoil it. Ended ones are there with -x only."""
    jobs = ["12[].pbshost", "13.pbshost", "14[]"]
    assert PBS().watch(jobs) == ["qstat", "-t", "-f", "-F", "json", *jobs]
    assert PBS().history(jobs) == ["qstat", "-x", "-t", "-f", "-F", "json", *jobs]


@pytest.mark.parametrize("job", ["", "workq", "-x", "@pbshost", "12[1,2]", "12[]; rm", "12 13"])
def test_no_ids(job: str) -> None:
    """What is no id is not asked: qstat takes it for a queue, or lists everything."""
    for ask in (
        lambda: PBS().watch([job]),
        lambda: PBS().history([job]),
        lambda: PBS().cancel(job),
    ):
        with pytest.raises(UsageError, match="no id of a PBS job"):
            ask()


# Limits -------------------------------------------------------------------------------------------


def limits(out: str) -> Limits:
    return PBS().read_limits(Answer(PBS().limits(), 0, out, ""))


def test_limits() -> None:
    """S15: max_array_size limits the number of elements, whatever their indices."""
    (first, *_) = [
        answer for line, answer in commands("00-server-settings.txt", "qstat") if "-B -f" in line
    ]
    assert limits(first.out) == Limits(10_000, 2_147_483_647, None)
    assert PBS().limits() == ["qstat", "-B", "-f"]


def test_limits_of_queued_jobs() -> None:
    """max_queued counts each element; it may be for all users together, and for each of them, and
    be folded anywhere."""
    told = "    max_array_size = 500\n    max_queued = [o:PBS_ALL=9000],[u:PBS_GENER\n\tIC=300]\n"
    assert limits(told) == Limits(500, 2_147_483_647, 300)


@pytest.mark.parametrize("out", ["", "garbage", "    max_array_size = many\n", "max_queued = 5"])
def test_usual_limits(out: str) -> None:
    """Where limits are not told they are the usual ones."""
    assert limits(out) == Limits(highest_index=2_147_483_647)


# Cancelling ---------------------------------------------------------------------------------------


def test_cancel_whole_jobs() -> None:
    """A job is deleted by its id; one without elements has no ranges of them."""
    assert PBS().cancel("12[].pbshost") == [["qdel", "12[].pbshost"]]
    assert PBS().cancel("12.pbshost", [0]) == [["qdel", "12.pbshost"]]


@pytest.mark.parametrize(
    ("indices", "ranges"),
    [
        ([4], ["12[4].pbshost"]),
        ([4, 5], ["12[4-5].pbshost"]),
        ([5, 7, 9], ["12[5-9:2].pbshost"]),
        ([5, 7], ["12[5].pbshost", "12[7].pbshost"]),
        ([9, 1, 2, 3, 3, 20], ["12[1-3].pbshost", "12[9].pbshost", "12[20].pbshost"]),
        ([0, 1, 3], ["12[0-1].pbshost", "12[3].pbshost"]),
    ],
)
def test_cancel_elements(indices: list[int], ranges: list[str]) -> None:
    """Elements are deleted as ranges, which keeps the records of the others; there are no lists."""
    assert PBS().cancel("12[].pbshost", indices) == [["qdel", *ranges]]


@given(st.sets(st.integers(0, 400)))
def test_ranges_hold_the_indices(indices: set[int]) -> None:
    """The ranges are of these indices, and of no others, in commands of bounded length."""
    named: list[int] = []
    for program, *ids in PBS().cancel("12[]", sorted(indices)):
        assert program == "qdel"
        assert 0 < len(ids) <= 100
        for text in ids:
            first, last, step = re.fullmatch(r"12\[(\d+)(?:-(\d+))?(?::(\d+))?\]", text).groups()
            named += range(int(first), int(last or first) + 1, int(step or 1))
    assert sorted(named) == sorted(indices)


def test_every_qdel_of_the_transcripts() -> None:
    """S24: what is gone or going is no error: 35, 55, 153 and 156 are of what has ended."""
    for line, answer in commands("40-qdel.txt", "qdel"):
        if answer.code in (0, 35, 55, 153, 156):
            PBS().cancelled(answer)
            continue
        with pytest.raises(SchedulerError) as caught:
            PBS().cancelled(answer)
        assert not isinstance(caught.value, SchedulerDown), line
        somebody_else = "somebody else" in str(caught.value)
        assert somebody_else == (answer.code == 159), line


def test_cancel_while_down() -> None:
    """Where nobody answers it was not cancelled, and may be later."""
    ((_, answer),) = commands("92-server-down.txt", "qdel")
    assert answer.code == 162
    for silent in (answer, answer._replace(code=None, err=""), answer._replace(code=-15)):
        with pytest.raises(SchedulerDown):
            PBS().cancelled(silent)


# Shells -------------------------------------------------------------------------------------------


def test_shell() -> None:
    """An interactive job asks for the same as a script."""
    asked = Resources(cores=4, walltime="1h", queue="long", extra=["-v 'A=x y'"])
    assert PBS().shell(asked) == [
        "qsub", "-I", "-l", "select=1:ncpus=4", "-l", "walltime=01:00:00", "-q", "long",
        "-v", "A=x y",
    ]  # fmt: skip


def test_variables() -> None:
    """An element finds its index, and the id that qsub printed, in these variables."""
    assert PBS.variables == {"index": "PBS_ARRAY_INDEX", "job": "PBS_ARRAY_ID"}
