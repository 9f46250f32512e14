"""What the scripts of a scheduler are to fanfold: tables and pure functions, in one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Dialect", "Directive", "Layout", "Note", "Option", "Setting", "Settings"]


class Note(NamedTuple):
    """What a user must know of a line: ``lost`` when it has no twin, else how the twin differs.

    Lines count from 1; 0 is the script as a whole.
    """

    line: int
    text: str
    lost: bool


class Option(NamedTuple):
    """One option of a directive, such as ``-N demo``, ``-l walltime=1:00`` or ``--time=60``.

    ``key`` is what a table knows it by: ``-N``, ``-l walltime``, ``--time``.
    """

    key: str
    value: str
    line: int

    def spelled(self, quote: Callable[[str], str] = str) -> str:
        """The option as a directive says it, the value passed through ``quote``."""
        if not self.value:
            return self.key.replace(" ", "=") if self.key.startswith("--") else self.key
        joint = "=" if self.key.startswith("--") or " " in self.key else " "
        return f"{self.key}{joint}{quote(self.value)}"


class Setting(NamedTuple):
    """What a script asks for, in fanfold's own words, and the line and option that say so."""

    value: Any
    line: int
    option: str = ""


class Directive(NamedTuple):
    """A row of a scheduler's table: the field it sets, how it is spelled, read and written.

    The first key is the one that is written. ``read`` and ``write`` raise `UsageError` for what
    this scheduler cannot mean.
    """

    field: str
    keys: tuple[str, ...]
    read: Callable[[str], Any]
    write: Callable[[Any], str]


class Layout(NamedTuple):
    """How many cores, where: ``chunks`` equal pieces, each of them on one node.

    Each has ``ncpus`` cores for ``mpiprocs`` processes of ``ompthreads`` threads, ``memory`` bytes
    and ``gpus``. ``place`` is ``"scatter"`` (each on a node of its own), ``"pack"`` (all on one) or
    ``"free"``. ``sized`` is False when nothing but the placement was asked for.
    """

    chunks: int = 1
    ncpus: int = 1
    mpiprocs: int = 1
    ompthreads: int | None = None
    memory: int | None = None
    gpus: int | None = None
    place: str = "free"
    exclusive: bool = False
    sized: bool = True


Settings = dict[str, Setting]


class Dialect(NamedTuple):
    """A scheduler, as its scripts are written.

    ``options`` splits the words of a directive; ``arrive`` and ``depart`` settle, after reading and
    before writing, what takes more than one option to say; ``hints`` tell what to do about an
    option that has no row, with the value for ``{value}``.
    """

    name: str
    prefix: str
    escapes: bool
    options: Callable[[list[str], int], list[Option]]
    rows: tuple[Directive, ...]
    layout: frozenset[str]
    read_layout: Callable[[Mapping[str, Option]], tuple[Layout, list[Note]]]
    write_layout: Callable[[Setting], tuple[list[str], list[Note]]]
    arrive: Callable[[Settings], list[Note]]
    depart: Callable[[Settings], list[Note]]
    hints: Mapping[str, str]
    quote: Callable[[str], str]
