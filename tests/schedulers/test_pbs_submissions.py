"""PBS: what qsub says, and what that means, from transcripts of 23.06.06."""

import re
from pathlib import Path

import pytest

from fanfold.errors import (
    SchedulerDown,
    SchedulerError,
    SchedulerFull,
    SubmitRefused,
    SubmitUnknown,
)
from fanfold.schedulers.base import Answer
from fanfold.schedulers.pbs import PBS

TRANSCRIPTS = Path(__file__).parent / "transcripts" / "pbs"
COMMAND = re.compile(
    r"^(?:\$|root#) (?P<line>[^\n]*)\n(?P<said>.*?)^\[exit (?P<code>\d+)\]$", re.M | re.S
)
USAGE = "usage: qsub [-a date_time] [-A account_string] [-c interval]\n       qsub --version\n"


def qsubs() -> list[tuple[str, Answer]]:
    """Every call of qsub in the transcripts, and what it said."""
    found = []
    for path in sorted(TRANSCRIPTS.glob("*.txt")):
        for match in COMMAND.finditer(path.read_text(errors="replace")):
            out, _, err = match["said"].partition("[stderr]\n")
            if re.search(r"(?:^|[|&] |PBS_\w+=\w+ )qsub\b(?!.*[|;])", match["line"]):
                found.append((match["line"], Answer(["qsub"], int(match["code"]), out, err)))
    return found


def submitted(code: int | None, out: str = "", err: str = "") -> str:
    return PBS().submitted(Answer(["qsub"], code, out, err))


def test_every_qsub_of_the_transcripts() -> None:
    """What was accepted has its id; what was not is refused, full or down, in qsub's own words."""
    seen = {"accepted": 0, "refused": 0, "full": 0, "down": 0, "silent": 0}
    for line, answer in qsubs():
        printed = [
            word for word in answer.out.split("\n") if re.fullmatch(r"[0-9]+(\[\])?\.pbshost", word)
        ]
        if answer.code == 0 and printed:
            assert PBS().submitted(answer) == printed[0], line
            seen["accepted"] += 1
            continue
        with pytest.raises(SchedulerError) as caught:
            PBS().submitted(answer)
        error, said = caught.value, answer.err.split("\n")[0].strip()
        kinds = {
            "down": (SchedulerDown, answer.code in (160, 162)),
            "full": (SchedulerFull, answer.code == 38),
            "silent": (SubmitUnknown, answer.code == 0),
            "refused": (SubmitRefused, True),
        }
        kind = next(name for name, (_, fits) in kinds.items() if fits)
        assert type(error) is kinds[kind][0], line
        assert said in str(error) or said.startswith("usage"), line
        seen[kind] += 1
    assert seen == {"accepted": 238, "refused": 86, "full": 2, "down": 4, "silent": 2}


REMEDIES = {
    "-h -J 1-10001 ": "--elements",
    "-h -J 5-5 ": "X-Y",
    "-h -J 1,3,5 ": "X-Y:STEP%MAX",
    "-h -J 1-10% ": "",
    "-h -J 2147483646-2147483648 ": "correct the directive",
    "-h -r n -J 1-3 ": "leave -r n out",
    "-l walltime='1-00:00:00'": "HH:MM:SS",
    "-q nosuch ": "qstat -Q lists",
    "-q defaultQ -l walltime=02:00:00": "resources_max",
    "-l select=1:mem=1.5gb": "without fractions",
    "-l select=1:ncpus=abc": "whole number of cores",
    "-l select=1:ncpus=1 -l mem=2gb": "put it into the select",
    "-l select=1:ngpus=1": "pbsnodes -a",
    "-l nosuch=3": "name a resource",
    "-P 'a/b'": "name a project",
    "-N 'a b'": "letters, digits",
    "-o 'a:b.log'": "ASCII",
    "-p 1024": "-1024 to 1023",
    "-W depend=afterok:'238[2]'": "not of elements",
    "--nosuch": "man qsub",
}


@pytest.mark.parametrize("words", sorted(REMEDIES))
def test_remedies(words: str) -> None:
    """S20: a refusal says in qsub's own words what was wrong, and what to do."""
    answer = next(answer for line, answer in qsubs() if words in f"{line} " and answer.code)
    with pytest.raises(SubmitRefused) as caught:
        PBS().submitted(answer)
    assert REMEDIES[words] in str(caught.value)
    assert "[-c interval]" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "err", "remedy"),
    [
        (175, "qsub: Bad UID for job execution\n", "submit it as yourself"),
        (159, "qsub: Unauthorized Request \n", "a queue that is yours"),
        (173, "qsub: Queue is not enabled\n", "name another queue"),
        (1, "qsub: directive error: -N x # a comment \n", "without a comment"),
        (1, "qsub: cannot send environment with the job\n", "in the script"),
        (1, "qsub: script file:: No such file or directory\n", "can be read"),
        (2, USAGE, "usage: qsub"),
    ],
)
def test_more_remedies(code: int, err: str, remedy: str) -> None:
    """The errors that have to do with who submits, where to, and what is in the script."""
    with pytest.raises(SubmitRefused, match=remedy):
        submitted(code, err=err)


def test_limits_of_users_are_temporary() -> None:
    """S16: what is over a limit on queued jobs may be taken later, in smaller pieces at once."""
    with pytest.raises(SchedulerFull, match=r"per-user limit.*--elements"):
        submitted(38, err="qsub: would exceed queue generic's per-user limit\n")


def test_limits_of_resources_are_not() -> None:
    """What is over the limits of a queue will never be taken: 188 is a refusal."""
    with pytest.raises(SubmitRefused, match="ask for less"):
        submitted(188, err="qsub: Job violates queue and/or server resource limits\n")


@pytest.mark.parametrize(
    ("code", "out", "err"),
    [
        (0, "", ""),
        (0, "\x1b[31m%&$ \ufffd\n", ""),
        (0, "12[].pbsh", ""),  # cut off
        (0, "12.pbshost\n13.pbshost\n", ""),
        (None, "", ""),
        (-9, "", ""),
        (1, "", "Segmentation fault\n"),
        (1, "", "something went wrong\n"),
        (146, "", "qsub: End of File\n"),
        (183, "", "qsub: Error (15031) submitting job\n"),
        (1, "", "qsub: Connection timed out\n"),
    ],
)
def test_lost_replies(code: int | None, out: str, err: str) -> None:
    """S01: where the reply is lost, or makes no sense, nobody knows whether the job was taken."""
    with pytest.raises(SubmitUnknown):
        submitted(code, out, err)


def test_id_among_noise() -> None:
    """S05: warnings around the id, of a login or a hook, do not hide it; nor does a late kill."""
    noise = "WARNING: the file system is 97% full, 12.5 TB are left\n"
    assert submitted(0, f"{noise}12[].pbshost\n{noise}", noise) == "12[].pbshost"
    assert submitted(None, "12[].pbs-host.example.org\r\n") == "12[].pbs-host.example.org"


@pytest.mark.parametrize(
    ("code", "out", "err"),
    [
        (0, "9\n", ""),
        (2, "", "Unknown option: f\nUsage:\n    qsub [-a start_time] [-A account]\n"),
        (2, "", "Can't locate Slurm.pm in @INC (you may need to install the Slurm module)\n"),
    ],
)
def test_qsub_of_slurm(code: int, out: str, err: str) -> None:
    """A qsub that is Slurm's own knows no -f, and prints a bare number: it is told apart."""
    with pytest.raises(SubmitRefused, match=r"Slurm's own.*--on slurm"):
        submitted(code, out, err)


def test_qsub_of_slurm_has_taken_it() -> None:
    """Where it has taken the job all the same, the way to end that is told."""
    with pytest.raises(SubmitRefused, match="scancel 9"):
        submitted(0, "9\n")
