"""A job script as lines: which are directives, of which scheduler, and which come too late."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from fanfold.errors import UsageError

__all__ = ["Line", "Script", "parse"]

_PBS = re.compile(r"[ \t]*#PBS")
_SLURM = re.compile(r"#SBATCH")


class Line(NamedTuple):
    """A line of a script, its end included.

    ``scheduler`` is ``"pbs"`` or ``"slurm"`` for a directive and ``""`` for any other line;
    ``late`` says that it stands after the first command, where schedulers read no more.
    """

    number: int
    text: str
    scheduler: str = ""
    late: bool = False

    @property
    def end(self) -> str:
        """The line end: ``"\\n"``, ``"\\r\\n"``, or nothing at the end of the file."""
        return self.text[len(self.text.rstrip("\r\n")) :]

    @property
    def words(self) -> str:
        """What a directive says after its prefix; a continued one in one line."""
        marker = _PBS if self.scheduler == "pbs" else _SLURM
        found = marker.match(self.text)
        rest = self.text[found.end() :] if found else self.text
        return re.sub(r"\\\r?\n", "", rest).strip()


class Script(NamedTuple):
    """The lines of a job script; joined, they are the script again."""

    lines: tuple[Line, ...]

    @property
    def first_command(self) -> int:
        """The number of the first line that is a command; 0 when there is none."""
        commands = (line.number for line in self.lines if _is_command(line.text))
        return next(commands, 0)

    def directives(self, scheduler: str) -> list[Line]:
        """The directives that the scheduler obeys."""
        return [line for line in self.lines if line.scheduler == scheduler and not line.late]

    def schedulers(self) -> list[str]:
        """Whose directives there are; those that come too late count where there are no others.

        >>> parse("#!/bin/sh\\n#PBS -N a\\ntrue\\n#SBATCH -J b\\n").schedulers()
        ['pbs']
        """
        obeyed = {line.scheduler for line in self.lines if line.scheduler and not line.late}
        late = {line.scheduler for line in self.lines if line.scheduler}
        return sorted(obeyed or late)


def parse(text: str) -> Script:
    """The lines of a script. Nothing in it is run or evaluated.

    A ``#PBS`` line may be indented and be continued by a backslash at its end; a ``#SBATCH`` line
    begins in the first column. Raises `UsageError` for what is no text.

    >>> [line.scheduler for line in parse("#!/bin/sh\\n #PBS -N a\\n##PBS -N b\\ntrue\\n").lines]
    ['', 'pbs', '', '']
    """
    if "\0" in text:
        raise UsageError("it is no script: it holds NUL bytes")
    pieces = deque(re.findall(r"[^\n]*\n|[^\n]+", text))
    lines: list[Line] = []
    late = False
    number = 1
    while pieces:
        piece = pieces.popleft()
        scheduler = _scheduler(piece)
        while scheduler == "pbs" and pieces and re.search(r"\\\r?\n$", piece):
            piece += pieces.popleft()
        late = late or _is_command(piece)
        lines.append(Line(number, piece, scheduler, late))
        number += piece.count("\n")
    return Script(tuple(lines))


def _scheduler(text: str) -> str:
    if _SLURM.match(text):
        return "slurm"
    return "pbs" if _PBS.match(text) else ""


def _is_command(text: str) -> bool:
    stripped = text.strip()
    return bool(stripped) and not stripped.startswith("#")
