"""What a real Slurm (22.05.8) answered, command by command: the files in transcripts/slurm.

The form of a file: ``$ command``, its stdout, ``[stderr]`` and its stderr where there was any, and
``[exit N]``. What fanfold asks itself is in 80 and 81; the others were recorded without it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from fanfold.schedulers.base import Answer, Seen
from fanfold.schedulers.slurm import Slurm

SLURM = Slurm()
FOLDER = Path(__file__).parent / "transcripts" / "slurm"
ASKED = "80-fanfold-asks"
TRANSCRIPTS = sorted(path.stem for path in FOLDER.glob("[0-9]*.txt"))


class Said(NamedTuple):
    command: str
    answer: Answer


@functools.cache
def transcript(name: str) -> list[Said]:
    """The commands of a transcript and their answers; one that was stopped has no exit status."""
    said = []
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    for block in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, rest = block.partition("\n")
        printed, mark, end = re.split(r"^(\[exit |\[still)", rest, maxsplit=1, flags=re.M)
        out, *err = re.split(r"^\[stderr\]\n", printed, maxsplit=1, flags=re.M)
        code = int(end.split("]")[0]) if mark == "[exit " else None
        said.append(Said(command, Answer(command.split(), code, out, "".join(err))))
    return said


def answer(name: str, command: str, nth: int = 0) -> Answer:
    """What was answered in a transcript to the nth of the commands that end so."""
    found = [said.answer for said in transcript(name) if said.command.endswith(command)]
    return found[nth]


def asked(program: str, jobs: str, nth: int = 0) -> Answer:
    """What was answered to fanfold's nth question after these jobs."""
    pattern = re.compile(rf".* {program} .*--jobs={re.escape(jobs)} ")
    return [said.answer for said in transcript(ASKED) if pattern.match(said.command)][nth]


def ends(told: list[Seen]) -> dict[tuple[str, int | None], str]:
    """States with the exit status, or the signal as a negative number."""
    shown = {}
    for seen in told:
        how = seen.exit_status if seen.signal is None else -seen.signal
        shown[seen.job, seen.index] = seen.state + ("" if how is None else f" {how}")
    assert len(shown) == len(told), "an element was told twice"
    return shown


def queue(*rows: str) -> Answer:
    """An answer of the queue with other rows than were recorded."""
    said = asked("squeue", "98,99")
    return said._replace(out="".join(f"{row}\n" for row in (said.out.partition("\n")[0], *rows)))


def sacct(*rows: str) -> Answer:
    """An answer of the records with other rows: only the first fields need to be told."""
    said = asked("sacct", "98,99")
    header = said.out.partition("\n")[0]
    filled = [row + "|" * (header.count("|") - row.count("|")) for row in rows]
    return said._replace(out="".join(f"{row}\n" for row in (header, *filled)))


def converted(name: str, command: str, nth: int = 0) -> Answer:
    """An answer of sacct in a transcript, with the columns that fanfold asks for; the partition,
    which only complete rows of jobs have, is said to be there."""
    header, *rows = answer(name, command, nth).out.splitlines()
    columns = header.split("|")
    fields = [dict(zip(columns, row.split("|"), strict=True)) for row in rows]
    wanted = SLURM.history(["1"])[-1].partition("=")[2].split(",")
    lines = [
        "".join(f"{row.get(name, 'debug' if name == 'Partition' else '')}|" for name in wanted)
        for row in fields
    ]
    return sacct(*lines)
