"""From what is asked for to the directives of a scheduler."""

from __future__ import annotations

from collections.abc import Iterator

from fanfold.errors import UsageError
from fanfold.resources import Resources
from fanfold.schedulers.scripts.dialect import Dialect, Layout, Note, Option, Setting, Settings
from fanfold.schedulers.scripts.pbs import PBS
from fanfold.schedulers.scripts.slurm import SLURM

__all__ = ["DIALECTS", "directives", "write"]

DIALECTS = {"pbs": PBS, "slurm": SLURM}


def write(settings: Settings, target: Dialect) -> tuple[list[Option], list[Note]]:
    """The directives that ask for it, each at the line that asked, and what could not be said."""
    written: list[Option] = []
    asked = dict(settings)
    notes = target.depart(asked)
    rows = {row.field: row for row in target.rows}
    for field, setting in asked.items():
        try:
            if field == "layout":
                texts, more = target.write_layout(setting)
                notes += more
            else:
                option = Option(rows[field].keys[0], rows[field].write(setting.value), setting.line)
                texts = [option.spelled(target.quote)]
        except UsageError as error:
            notes.append(Note(setting.line, f"{setting.option}: {error}", lost=True))
            continue
        written += [Option(text, "", setting.line) for text in texts]
    return written, notes


def directives(resources: Resources, scheduler: str) -> list[str]:
    """The lines that ask the scheduler, ``"pbs"`` or ``"slurm"``, for these resources.

    >>> asked = Resources(cores=4, memory="8GB", walltime="1h", queue="long")
    >>> print("\\n".join(directives(asked, "pbs")))
    #PBS -l select=1:ncpus=4:mem=8gb
    #PBS -l walltime=01:00:00
    #PBS -q long
    >>> print("\\n".join(directives(asked, "slurm")))
    #SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --mem=8G
    #SBATCH --time=01:00:00
    #SBATCH --partition=long
    """
    target = DIALECTS[scheduler]
    settings = {field: Setting(value, 0, field) for field, value in _settings(resources)}
    written, _ = write(settings, target)  # resources hold nothing that has no twin
    texts = [option.key for option in written]
    if resources.constraint and target is PBS:
        texts[0] += f":{resources.constraint}"  # a resource of each chunk
    elif resources.constraint:
        texts.append(f"--constraint={target.quote(resources.constraint)}")
    return [f"{target.prefix} {text}" for text in (*texts, *resources.extra)]


def _settings(resources: Resources) -> Iterator[tuple[str, object]]:
    """The fields of the tables that resources set; the layout comes first."""
    yield (
        "layout",
        Layout(
            chunks=resources.nodes,
            ncpus=resources.cores,
            memory=resources.memory,
            gpus=resources.gpus or None,
            place="scatter" if resources.nodes > 1 else "free",
        ),
    )
    for field in ("walltime", "queue", "account", "mail"):
        if getattr(resources, field) is not None:
            yield field, getattr(resources, field)
    if resources.mail is not None:
        events = resources.mail_events
        yield (
            "mail_events",
            "".join(word[0] for word in ("abort", "begin", "end") if word in events) or "n",
        )
