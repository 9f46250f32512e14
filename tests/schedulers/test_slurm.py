"""Slurm, as one who asks it must know it: every answer here was given by a real one (22.05.8)."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.schedulers.slurm_transcripts import SLURM, TRANSCRIPTS, answer, transcript

from fanfold.errors import (
    SchedulerDown,
    SchedulerFull,
    SubmitRefused,
    SubmitUnknown,
    UsageError,
)
from fanfold.resources import Resources
from fanfold.schedulers.base import Answer, Job
from fanfold.schedulers.scripts.directives import split_words


def submitted(code: int | None, out: str = "", err: str = "") -> str:
    return SLURM.submitted(Answer(["sbatch"], code, out, err))


# Submitting ---------------------------------------------------------------------------------------

REFUSED = [
    ("26-refused-requests", "sbatch -p nosuch task.sh", "invalid partition specified", "--queue"),
    ("26-refused-requests", "-c 5 task.sh", "CPU count per node", "--cores"),
    ("26-refused-requests", "-N1 -n5 task.sh", "node configuration is not available", "sinfo"),
    ("26-refused-requests", "--mem=5000 task.sh", "Memory specification", "--memory"),
    ("26-refused-requests", "--gres=gpu:1 task.sh", "generic resource", "--gpus"),
    ("26-refused-requests", "-C nosuch task.sh", "Invalid feature", "constraint"),
    ("26-refused-requests", "-w n9 task.sh", "Invalid node name", "sinfo -N"),
    ("26-refused-requests", "-L matlab task.sh", "Invalid license", "scontrol show licenses"),
    ("26-refused-requests", "--reservation=nope task.sh", "reservation is invalid", "scontrol"),
    ("26-refused-requests", "-N abc task.sh", '"abc" is not a valid node count', "fewer nodes"),
    ("26-refused-requests", "-n 0 task.sh", 'Invalid numeric value "0"', "at least 1"),
    ("26-refused-requests", "--nosuch-option task.sh", "unrecognized option", "--help"),
    ("26-refused-requests", "--begin=nonsense task.sh", "Invalid --begin", "man sbatch"),
    ("26-refused-requests", "--nice=-100 task.sh", "Invalid --nice", "administrator"),
    ("26-refused-requests", 'tr "\\0" x)" task.sh', "too long", "shorter"),
    ("26-refused-requests", "--clusters=nosuch task.sh", "No cluster 'nosuch'", "sacctmgr"),
    ("06-array-too-large", "--array=1001 task.sh", "job array specification", "--elements"),
    ("07-array-bad-text", "--array='1.5' task.sh", "job array specification", "--elements"),
    ("16-timeout", "--time='5m' plain.sh", "Invalid --time", "HH:MM:SS"),
    ("15-memory", "--mem=1.5G eat.py 1 0", "Invalid --mem", "4G"),
    ("15-memory", "--mem-per-cpu=100 eat.py 1 0", "mutually exclusive", "once"),
    ("17-signal", "--signal=BOGUS@5 task.py x", "Invalid --signal", "man sbatch"),
    ("25-mail", "--mail-type=BOGUS task.sh", "Invalid --mail-type", "man sbatch"),
    ("23-environment", "sbatch noshebang.sh", "does not look like a batch script", "#!/bin/sh"),
    ("23-environment", "sbatch crlf.sh", "DOS line breaks", "sed"),
    ("23-environment", "sbatch empty.sh", "script is empty", "commands"),
    ("23-environment", "sbatch big.sh", "too long", "shorter"),
    ("23-environment", "sbatch nosuch.sh", "Unable to open file", "can be read"),
    ("33-enforced-limits", "sbatch -A nosuch task.sh", "Invalid account", "--account"),
    ("33-enforced-limits", "sbatch -q nosuch task.sh", "Invalid qos", "--qos"),
    ("33-enforced-limits", "--time=2-0 task.sh", "time limit is invalid", "--walltime"),
    ("33-enforced-limits", "-N5 task.sh", "Node count", "fewer nodes"),
]


@pytest.mark.parametrize(("name", "command", "words", "remedy"), REFUSED)
def test_a_refusal_is_told_with_its_words_and_a_remedy(name, command, words, remedy):
    """S20. What sbatch or the controller refuses, with exit 1 or 255, in one line or two, is
    `SubmitRefused`: the scheduler's own words, and what to do."""
    with pytest.raises(SubmitRefused, match=re.escape(words)) as caught:
        SLURM.submitted(answer(name, command))
    assert remedy in str(caught.value).partition(words)[2]


def test_every_failed_submission_on_record_is_understood():
    """What was refused has a remedy in words; nothing on record leaves in doubt whether the job was
    taken, but what was cut off."""
    sbatch = re.compile(r"\S* ?sbatch (?!.*(?:--test-only|--wait|--version))")
    failed = [
        said
        for command, said in itertools.chain.from_iterable(map(transcript, TRANSCRIPTS))
        if sbatch.match(command) and said.code
    ]
    assert len(failed) > 80
    for said in failed:
        with pytest.raises((SubmitRefused, SchedulerDown, SchedulerFull)) as caught:
            SLURM.submitted(said)
        assert not isinstance(caught.value, SubmitRefused) or "): " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "command", "nth"),
    [
        ("28-controller-down", "sbatch task.sh", 0),
        ("28-controller-down", "--parsable --array=1-3 task.sh", 0),
        ("29-munge-down", "sbatch task.sh", 0),
        ("30-slurmdbd-down", "sbatch -M fan task.sh", 0),
        ("31-no-accounting", "sbatch -M fan task.sh", 0),
        ("71-no-configuration", "sbatch task.sh", 0),
        ("71-no-configuration", "SLURM_CONF=/no/such/slurm.conf sbatch task.sh", 0),
        ("81-nobody-answers", "sbatch --parsable -- sleep.sh", 0),
    ],
)
def test_a_submission_that_could_not_be_sent(name, command, nth):
    """S03. Controller, munge or database down, or no configuration: nothing was submitted, and it
    may be later."""
    with pytest.raises(SchedulerDown):
        SLURM.submitted(answer(name, command, nth))


@pytest.mark.parametrize(
    ("name", "command", "nth"),
    [
        ("33-enforced-limits", "sbatch --array=1-6 task.sh", 0),
        ("33-enforced-limits", "sbatch task.sh", 2),
        ("34-controller-full", "sbatch --array=1-15 task.sh", 0),
        ("34-controller-full", "sbatch --hold task.sh", 0),
    ],
)
def test_a_queue_that_is_full(name, command, nth):
    """S16. A limit on how many jobs there are, of this user or at all, is `SchedulerFull`: sbatch
    itself has waited 120 s for room under MaxJobCount, and exits 1."""
    with pytest.raises(SchedulerFull):
        SLURM.submitted(answer(name, command, nth))


def test_a_submission_that_was_ended_while_it_waited_for_room():
    """sbatch hangs where the queue is full; who ends it cannot know whether it got through."""
    said = answer("34-controller-full", "time sbatch --array=1-8 task.sh")
    assert "unable to accept job" in said.err
    for code in (None, -9, 1, 137):
        with pytest.raises(SubmitUnknown):
            SLURM.submitted(said._replace(code=code))


@pytest.mark.parametrize(
    ("code", "out", "err"),
    [
        (None, "", ""),
        (0, "", ""),
        (0, "57", ""),  # the line is not whole: it may be 571
        (0, "57\n58\n", ""),
        (0, "Submitted batch\n", ""),
        (0, "\x1b[31m%&$ \ufffd\n", ""),
        (0, "٥٧\n", ""),  # noqa: RUF001 - digits, but not of ids
        (0, "57;\n", ""),
        (1, "", ""),
        (1, "", "something else failed\n"),
        (-9, "", "sbatch: error: AssocMaxSubmitJobLimit\n"),  # and what else it would have said
        (2, "", "Killed\n"),
        (1, "", "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"),
        *(
            (1, "", f"sbatch: error: Batch job submission failed: {reason}\n")
            for reason in (
                "Socket timed out on send/recv operation",
                "Zero Bytes were transmitted or received",
                "Unable to contact slurm controller (receive failure)",
                "Unable to contact slurm controller (shutdown failure)",
                "Unexpected message received",
                "Message receive failure",
                "Protocol authentication error",  # without auth_g_create it is of the answer
                "Transport endpoint is not connected",
            )
        ),
    ],
)
def test_a_reply_that_does_not_say_whether_the_job_was_taken(code, out, err):
    """S01. No reply, a cut or senseless one, or a connection that broke: it may have been taken."""
    with pytest.raises(SubmitUnknown):
        submitted(code, out, err)


def test_the_id_of_a_job_that_was_taken():
    """S22: `--parsable` prints ``ID``, or ``ID;cluster``; what is said beside it does not matter,
    nor the exit status, where the id is there (`sbatch --wait` exits as the job)."""
    said = [each.answer for each in transcript("08-parsable") if "--parsable" in each.command]
    assert [SLURM.submitted(each) for each in said] == ["55", "56", "57;fan", "59", "61", "62"]
    assert submitted(0, "WARNING: the disk is full\n57\nbye\n", "sbatch: warning\n") == "57"
    assert SLURM.submitted(answer("24-wait", "--parsable task.sh 0 4")) == "37"
    assert submitted(None, "57;a-b.c\r\n") == "57;a-b.c"


@given(st.none() | st.integers(-20, 255), st.text(), st.text())
def test_whatever_sbatch_says_is_an_id_or_one_of_four_errors(code, out, err):
    """S05. Any text and any exit status is an answer."""
    try:
        assert re.fullmatch(r"[0-9]+(;[\w.-]+)?", submitted(code, out, err))
    except (SubmitRefused, SchedulerFull, SchedulerDown, SubmitUnknown) as error:
        assert code is not None or isinstance(error, SubmitUnknown)  # noqa: PT017


def test_what_the_environment_must_not_say_of_a_submission():
    """The environment stands above directives, and goes into the job: the indices and the number of
    restarts of a job that we are in are not those of the job we submit."""
    argv = SLURM.submission("/run/arrays/1.sh")
    unset = [name for flag, name in itertools.pairwise(argv) if flag == "-u"]
    assert argv[0] == "env"
    assert argv[-4:] == ["sbatch", "--parsable", "--", "/run/arrays/1.sh"]
    assert {*SLURM.variables.values(), "SBATCH_ARRAY_INX", "SBATCH_WAIT"} <= set(unset)


def test_what_is_asked_for_counts_for_more_than_the_environment():
    """sbatch believes SBATCH_TIMELIMIT more than the script; what is not asked for stays."""
    argv = SLURM.submission("/run/arrays/1.sh", Resources(walltime="1h", queue="short"))
    unset = {name for flag, name in itertools.pairwise(argv) if flag == "-u"}
    assert {"SBATCH_TIMELIMIT", "SBATCH_PARTITION"} <= unset
    assert not {"SBATCH_ACCOUNT", "SBATCH_MEM_PER_NODE"} & unset


def test_where_an_element_learns_who_it_is():
    """S22. SLURM_JOB_ID is another number in each element; the number of restarts is unset in the
    first run, and so are both numbers of the array in a job that is none."""
    lines = answer("23-environment", "cat slurm-10_5.out").out.splitlines()
    environment = dict(line.split("=", 1) for line in lines if line.startswith("SLURM_"))
    told = {name: environment.get(variable) for name, variable in SLURM.variables.items()}
    assert told == {"index": "5", "job": "10", "restarts": None}
    assert environment["SLURM_JOB_ID"] == "11"


# The header ---------------------------------------------------------------------------------------


def job(first=0, last=9, resources=None, output="/run/logs/array-1", **more) -> Job:
    return Job("name-1a2b", first, last, resources or Resources(), output, **more)


def options(header: list[str]) -> dict[str, str]:
    """The options of a header as sbatch reads them: of two that are the same the last one."""
    lines = [line.removeprefix("#SBATCH") for line in header]
    words = [word for line in lines for word in split_words(line, escapes=True)[0]]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def path_of(pattern: str, index: int) -> str:
    """The file that slurmstepd makes of a pattern: a backslash switches all fields off."""
    if "\\" in pattern:
        return re.sub(r"\\(.)", r"\1", pattern)
    return re.sub("%([a%])", lambda match: "%" if match[1] == "%" else str(index), pattern)


def test_the_header_of_an_array():
    """Everything that an array is found, read and begun again by is in its script."""
    asked = Resources(cores=4, memory="8GB", walltime="1h", queue="long", extra=["--qos=high"])
    assert SLURM.header(job(resources=asked, at_once=3, after=["12", "13_4", "14;fan"])) == [
        "#SBATCH --requeue",
        "#SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --mem=8G",
        "#SBATCH --time=01:00:00",
        "#SBATCH --partition=long",
        "#SBATCH --qos=high",
        "#SBATCH --job-name=name-1a2b",
        "#SBATCH --array=0-9%3",
        "#SBATCH --output=/run/logs/array-1.%a",
        "#SBATCH --open-mode=append",
        "#SBATCH --dependency=afterok:12:13_4:14",
        "#SBATCH --kill-on-invalid-dep=yes",
    ]


def test_a_job_alone_is_no_array_and_its_file_has_its_index():
    """``%a`` outside an array is 4294967294: there the index is written out."""
    asked = options(SLURM.header(job(0, 0)))
    assert "--array" not in asked
    assert asked["--output"] == "/run/logs/array-1.0"


def test_a_job_that_begins_again_does_not_wipe_its_log_out():
    """S12. A requeued job truncates its file unless it is opened to append; it may be requeued,
    unless the user says otherwise: of two directives the last one counts."""
    header = SLURM.header(job(resources=Resources(extra=["--no-requeue"])))
    assert options(header)["--open-mode"] == "append"
    assert header.index("#SBATCH --requeue") < header.index("#SBATCH --no-requeue")


def test_a_job_whose_predecessor_failed_does_not_wait_for_ever():
    """S25: ``afterok`` on a failed job leaves the other pending for ever, unless it is killed."""
    assert options(SLURM.header(job(after=["12"])))["--kill-on-invalid-dep"] == "yes"
    assert "--dependency" not in options(SLURM.header(job()))


PATHS = st.one_of(
    st.text("%a4j\\\"'# $(;é", max_size=30),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), max_size=30),
)


@given(PATHS, st.integers(0, 5), st.booleans())
def test_the_log_is_where_the_job_says_whatever_its_path(path, index, array):
    """S21, X10. Blanks, quotes, ``$()``, ``#`` and ``%`` in a path stay what they are: in the
    directive, and in the pattern that Slurm reads in it."""
    output = f"/logs/{path}"
    if array and "\\" in path:
        with pytest.raises(UsageError, match="backslash"):
            SLURM.header(job(output=output))
        return
    first, last = (0, 9) if array else (index, index)
    pattern = options(SLURM.header(job(first, last, output=output)))["--output"]
    assert path_of(pattern, index) == f"{output}.{index}"


@pytest.mark.parametrize("end", ["\n", "\r", "\0"])
def test_a_path_with_a_line_end_is_refused(end):
    """A directive is a line."""
    with pytest.raises(UsageError, match="line end"):
        SLURM.header(job(output=f"/logs/a{end}b"))


@pytest.mark.parametrize(
    "extra",
    ["--array=1-3", "-a 1-3", "--job-name=x", "-Jx", "--output=x", "-o x", "--error x", "-e x",
     "--open-mode=truncate", "--wait", "-W", "--test-only", "-Q", "--qos=a --array=1",
     "--arr=1", "-M other"],
)  # fmt: skip
def test_a_directive_of_the_user_that_would_lose_the_job_is_refused(extra):
    """A job that was submitted must be found by its name, told by its indices and read by its
    files: nobody else sets these."""
    with pytest.raises(UsageError, match="for fanfold to say"):
        SLURM.header(job(resources=Resources(extra=[extra])))


def test_a_dependency_of_the_user_stays_where_fanfold_has_none():
    """Only what would be lost is refused."""
    asked = Resources(extra=["--dependency=singleton"])
    assert options(SLURM.header(job(resources=asked)))["--dependency"] == "singleton"
    with pytest.raises(UsageError, match="--dependency"):
        SLURM.header(job(resources=asked, after=["12"]))


@pytest.mark.parametrize(
    "strange", ["", "abc", "-v", "12_[1-2]", "12;", "12;a b", "1 2", "١٢", "12\n"]
)
def test_what_is_no_id_goes_into_no_command(strange):
    """S22. sacct ends with "Bad job array element" for ``12_[1-2]``, and ``-v`` is an option."""
    for ask in (
        lambda: SLURM.watch([strange]),
        lambda: SLURM.history([strange]),
        lambda: SLURM.cancel(strange),
        lambda: SLURM.header(job(after=[strange])),
    ):
        with pytest.raises(UsageError, match="no id"):
            ask()
