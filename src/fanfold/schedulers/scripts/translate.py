"""A job script of one scheduler as one of the other, and what a user must know of the change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from fanfold.errors import UsageError
from fanfold.schedulers.scripts.dialect import Layout, Note, Option, Settings
from fanfold.schedulers.scripts.directives import quote_slurm
from fanfold.schedulers.scripts.lines import Line, Script, parse
from fanfold.schedulers.scripts.reading import Asked, read
from fanfold.schedulers.scripts.variables import in_line, renamed
from fanfold.schedulers.scripts.writing import DIALECTS, write

__all__ = ["Translation", "translate"]

_OTHER = {"pbs": "slurm", "slurm": "pbs"}
_HIGHEST_INDEX = 1000  # of a Slurm whose MaxArraySize was not changed
_MOST_ELEMENTS = 10_000  # of a PBS whose max_array_size was not changed
_SOMEWHERE = re.compile(r"\s*cd\s+[\"']?[/$~]")  # wherever the job starts


class Translation(NamedTuple):
    """A translated script, and what must be known of it, in the order of the lines."""

    text: str
    notes: tuple[Note, ...]


def translate(text: str, to: str | None = None) -> Translation:
    """The script for the scheduler ``to``, ``"slurm"`` or ``"pbs"``; by default for the other one.

    Nothing in it is run or evaluated. A script that is of that scheduler already comes back as it
    is. Raises `UsageError` for what is no job script.

    >>> print(translate("#!/bin/sh\\n#PBS -J 1-9:2\\necho $PBS_ARRAY_INDEX\\n", "slurm").text)
    #!/bin/sh
    #SBATCH --array=1-9:2
    echo $SLURM_ARRAY_TASK_ID
    """
    script = parse(text)
    target = _target(script, to)
    if script.schedulers() == [target]:
        return Translation(text, ())
    source = _OTHER[target]
    asked = read(script.directives(source), DIALECTS[source])
    notes = [*asked.notes, *_about_script(script, source, target)]
    notes += _about_running(script, asked.settings, target)
    notes += _about_body(script, asked.settings, target)
    written, more = write(asked.settings, DIALECTS[target])
    notes = [note._replace(text=_printable(note.text)) for note in [*notes, *more]]
    lines = _assemble(script, target, Asked(asked.settings, notes, asked.comments), written)
    notes.sort(key=lambda note: (note.line == 0, note.line, not note.lost))
    return Translation("".join(lines), tuple(dict.fromkeys(notes)))


def _target(script: Script, to: str | None) -> str:
    found = script.schedulers()
    if not found:
        raise UsageError("it is no job script: no line begins with #PBS or #SBATCH")
    if to is None and len(found) == 2:
        raise UsageError("it has directives of both schedulers: say --to slurm or --to pbs")
    return to or _OTHER[found[0]]


def _printable(text: str) -> str:
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


# What must be known -------------------------------------------------------------------------------


def _about_script(script: Script, source: str, target: str) -> Iterator[Note]:
    """Lines that no scheduler would take as they are meant."""
    for line in script.lines:
        if line.scheduler == source and line.late:
            said = f"{line.words}: a directive after the first command, in line "
            yield Note(line.number, f"{said}{script.first_command}, is not obeyed", lost=False)
        elif line.scheduler == target and not line.late:
            said = f"{line.words}: was there already, and stays; of two that differ the last counts"
            yield Note(line.number, said, lost=False)
    if any(line.end == "\r\n" for line in script.lines):
        said = (
            "lines end as on Windows, and neither scheduler runs that: sed -i 's/\\r$//' mends it"
        )
        yield Note(0, said, lost=True)
    if target == "slurm" and not _has_interpreter(script):
        said = "Slurm refuses a script without a #! line: #!/bin/bash was put first"
        yield Note(1, said, lost=False)


def _has_interpreter(script: Script) -> bool:
    return script.lines[0].text.startswith("#!")


def _code(script: Script) -> Iterator[Line]:
    """The lines that are neither directives nor comments."""
    return (line for line in script.lines if not line.text.lstrip().startswith("#"))


def _about_body(script: Script, settings: Settings, target: str) -> Iterator[Note]:
    """Names in the commands; each is told where it comes first."""
    told = {"NCPUS"} if _one_process_has_all(settings) else set()
    for line in _code(script):
        for name, remark in in_line(line.text, target):
            if name not in told:
                told.add(name)
                yield Note(line.number, remark.text, remark.lost)


def _one_process_has_all(settings: Settings) -> bool:
    """Whether NCPUS and SLURM_CPUS_PER_TASK are the same number."""
    if "layout" not in settings:
        return False
    layout: Layout = settings["layout"].value
    return (layout.ompthreads or layout.ncpus) * layout.mpiprocs == layout.ncpus


def _about_running(script: Script, settings: Settings, target: str) -> Iterator[Note]:
    about = _about_slurm if target == "slurm" else _about_pbs
    moves = any(_SOMEWHERE.match(line.text) for line in _code(script))
    return (Note(0, said, lost=False) for said in about(settings, moves))


def _about_slurm(settings: Settings, moves: bool) -> Iterator[str]:
    """How a job on Slurm runs otherwise than on PBS."""
    if not moves:
        yield 'Slurm starts in the folder of sbatch, PBS in the home folder: add cd "$HOME"'
    if not {"everything", "variables"} & set(settings):
        yield "Slurm passes the environment of sbatch, PBS does not: add #SBATCH --export=NONE"
    name = settings["name"].value if "name" in settings else "%x"
    number = "%A.%a" if "array" in settings else "%j"
    if "output" not in settings:
        default = "slurm-%A_%a.out" if "array" in settings else "slurm-%j.out"
        yield (
            f"Slurm writes {default}, PBS NAME.oID{'.INDEX' if 'array' in settings else ''}: "
            f"add #SBATCH --output={quote_slurm(f'{name}.o{number}')}"
        )
    if not {"join", "error"} & set(settings):
        yield (
            "Slurm writes errors into the file of the output, PBS into their own: "
            f"add #SBATCH --error={quote_slurm(f'{name}.e{number}')}"
        )
    if "array" in settings and settings["array"].value[1] > _HIGHEST_INDEX:
        yield f"Slurm takes indices up to {_HIGHEST_INDEX} unless its MaxArraySize was raised"
    yield from _about_both(settings)


def _about_pbs(settings: Settings, moves: bool) -> Iterator[str]:
    """How a job on PBS runs otherwise than on Slurm."""
    if not moves:
        yield 'PBS starts in the home folder, Slurm in that of sbatch: add cd "$PBS_O_WORKDIR"'
    if "everything" in settings:
        yield "-V passes nothing in OpenPBS 23.06: name what the script needs with -v"
    elif not {"variables", "nothing"} & set(settings):
        yield "PBS does not pass the environment of qsub: name what the script needs with -v"
    if "output" not in settings:
        yield "PBS writes NAME.oID (NAME.oID.INDEX in arrays) where Slurm writes slurm-ID.out"
    yield "PBS puts output files in place when the job ends, Slurm while it runs"
    array = settings["array"].value if "array" in settings else (0, 0, 1, 0)
    if (array[1] - array[0]) // array[2] >= _MOST_ELEMENTS:
        yield f"PBS takes {_MOST_ELEMENTS} elements unless its max_array_size was raised"
    yield from _about_both(settings)


def _about_both(settings: Settings) -> Iterator[str]:
    if "queue" in settings:
        name = settings["queue"].value
        yield f"queues have names of their own on each cluster: is there one called {name}?"
    if "depend" in settings:
        yield "job ids are those of one scheduler: those of the dependency must be written anew"


# Writing ------------------------------------------------------------------------------------------


def _assemble(script: Script, target: str, asked: Asked, written: list[Option]) -> Iterator[str]:
    source = _OTHER[target]
    last = max((line.number for line in script.directives(source)), default=0)
    if target == "slurm" and not _has_interpreter(script):
        yield f"#!/bin/bash{script.lines[0].end or chr(10)}"
    for line in script.lines:
        if line.scheduler == source and not line.late:
            here = {line.number, 0} if line.number == last else {line.number}
            for text in _twins(line.number, here, target, asked, written):
                yield text + (line.end or "\n")
        elif line.text.lstrip().startswith("#"):
            yield line.text
        else:
            yield renamed(line.text, target)


def _twins(
    number: int, here: set[int], target: str, asked: Asked, written: list[Option]
) -> Iterator[str]:
    """What stands for a directive: its comment, what is lost of it, and its twins."""
    if number in asked.comments:
        yield asked.comments[number]
    for note in asked.notes:
        if note.lost and note.line == number:
            yield f"# no twin on {DIALECTS[target].name}: {note.text}"
    for option in written:
        if option.line in here:
            yield f"{DIALECTS[target].prefix} {option.key}"
