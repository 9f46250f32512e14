"""The commands that take job scripts: translate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fanfold.errors import UsageError

if TYPE_CHECKING:
    from fanfold.schedulers.scripts.dialect import Note

__all__ = ["note_line", "read_script", "shown_path", "translate_command"]

_LARGEST = 4 << 20  # bytes; Slurm takes no larger script


@click.command("translate")
@click.argument("script")
@click.option("--to", type=click.Choice(["slurm", "pbs"]), help="By default the other one.")
@click.option("--strict", is_flag=True, help="End with 1 if anything has no twin.")
def translate_command(script: str, to: str | None, strict: bool) -> int:
    """Print a #PBS script for Slurm, or an #SBATCH script for PBS.

    What has no twin, and what differs, is listed on standard error. Nothing of the script is run.

    Exit status: 0, 1 with --strict if anything has no twin, 2 it is no job script.
    """
    from fanfold.schedulers.scripts.translate import (
        translate,  # late: the other commands do without
    )

    text = read_script(script)
    try:
        translation = translate(text, to)
    except UsageError as error:
        raise UsageError(f"{shown_path(script)}: {error}") from error
    click.echo(translation.text.encode("utf-8", "surrogateescape"), nl=False)
    for note in translation.notes:
        click.echo(note_line(script, note), err=True)
    return int(strict and any(note.lost for note in translation.notes))


def read_script(path: str) -> str:
    """The script, every byte of it: what is no UTF-8 comes back out as it was."""
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"cannot read {shown_path(path)}: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise UsageError(f"{shown_path(path)} is no job script: it is larger than 4 MB")
    return content.decode("utf-8", "surrogateescape")


def note_line(script: str, note: Note) -> str:
    """A note of a translation, with its place in the script."""
    where = f"{shown_path(script)}:{note.line}" if note.line else shown_path(script)
    return f"{where}: {'no twin' if note.lost else 'differs'}: {note.text}"


def shown_path(path: str) -> str:
    """A path for a terminal, which must not obey what is in it."""
    return path if path.isprintable() else repr(path)
