"""What a report is made of: text, facts, tables, and charts as data, without any format.

A chart holds positions as shares of its axis (0 is its begin, 1 its end), so that a format needs
to know nothing of what is measured; and it holds the same facts as a table, for those who cannot
see it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from fanfold.reports.words import number, plural

__all__ = [
    "Advice",
    "Axis",
    "Bar",
    "Bin",
    "Code",
    "Curves",
    "Document",
    "Dot",
    "Facts",
    "Group",
    "Histogram",
    "Item",
    "Lane",
    "Level",
    "Line",
    "Paragraph",
    "Part",
    "Proportion",
    "Role",
    "Section",
    "Stack",
    "Stacks",
    "Table",
    "Tick",
    "Timeline",
]

Role = Literal["done", "failed", "missing"]


class Paragraph(NamedTuple):
    """Sentences; a ``warning`` tells of something that is not as it should be."""

    text: str
    warning: bool = False


class Facts(NamedTuple):
    """Names and values; ``short`` ones are figures to be seen at a glance."""

    rows: tuple[tuple[str, str], ...]
    short: bool = False


class Table(NamedTuple):
    """Rows of text under ``columns``; those named in ``figures`` hold numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: frozenset[str] = frozenset()


class Code(NamedTuple):
    """Lines as they were written, such as a traceback; ``copied`` are those made to be copied."""

    title: str
    text: str
    copied: bool = False


class Advice(NamedTuple):
    """A finding in numbers, and how these were made."""

    text: str
    basis: str


class Tick(NamedTuple):
    """A mark on an axis."""

    at: float
    label: str


class Axis(NamedTuple):
    """A scale that begins at 0 and ends at 1, with round marks."""

    ticks: tuple[Tick, ...]
    label: str


class Part(NamedTuple):
    """One of the values that make up a whole."""

    label: str
    value: int
    role: Role


class Proportion(NamedTuple):
    """How a whole is divided."""

    title: str
    parts: tuple[Part, ...]


class Bin(NamedTuple):
    """How many attempts lie between ``start`` and ``end``: that went well, and that failed."""

    start: float
    end: float
    low: str
    high: str
    done: int
    failed: int

    @property
    def told(self) -> str:
        """The bin in words."""
        told = f"{self.low} to {self.high}: {plural(self.done + self.failed, 'attempt')}"
        return f"{told}, {number(self.failed)} failed" if self.failed else told


class Histogram(NamedTuple):
    """A distribution; ``marks`` are values worth to be seen in it."""

    title: str
    axis: Axis
    counts: Axis
    highest: int
    bins: tuple[Bin, ...]
    marks: tuple[Tick, ...]
    table: Table


class Bar(NamedTuple):
    """A time in which a lane was busy with ``tasks``, which all ended well or all ``failed``.

    ``first`` is the lowest index of them. ``busy`` is the share of that time with work in it: less
    than 1 where tasks too short to be drawn apart are one bar.
    """

    start: float
    end: float
    first: int
    tasks: int
    failed: bool
    busy: float
    told: str


class Lane(NamedTuple):
    """What one worker did: the bars that went well in order, then those that failed."""

    label: str
    share: str
    bars: tuple[Bar, ...]


class Timeline(NamedTuple):
    """Who did what when."""

    title: str
    axis: Axis
    lanes: tuple[Lane, ...]
    table: Table


class Dot(NamedTuple):
    """Something measured, as a place on both axes of its chart."""

    x: float
    y: float
    told: str


class Line(NamedTuple):
    """What should be: ``points`` on both axes, and for each of them the ``band`` (low, high) in
    which it lies, where that is known."""

    label: str
    role: Literal["ideal", "law"]
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float], ...] = ()


class Level(NamedTuple):
    """What is at one place across, for a format that draws it as a bar: the value as it is shown,
    how high it is, and how high the first lines are there; those that do not reach it are last."""

    label: str
    shown: str
    y: float
    lines: tuple[float, ...]


class Curves(NamedTuple):
    """Dots and lines over two axes; without ``levels`` it is for formats with round dots only."""

    title: str
    across: Axis
    up: Axis
    dots: tuple[Dot, ...]
    lines: tuple[Line, ...]
    levels: tuple[Level, ...]
    table: Table


class Stack(NamedTuple):
    """A whole, as parts of the longest one, and in words."""

    label: str
    parts: tuple[float, ...]
    whole: str


class Stacks(NamedTuple):
    """How several wholes are divided into the parts of these names."""

    title: str
    names: tuple[str, ...]
    stacks: tuple[Stack, ...]
    table: Table


class Group(NamedTuple):
    """Items under a title that may be folded away; ``open`` says whether they are seen at first."""

    title: str
    items: tuple[Item, ...]
    open: bool = False


Item = (
    Paragraph
    | Facts
    | Table
    | Code
    | Advice
    | Proportion
    | Histogram
    | Timeline
    | Curves
    | Stacks
    | Group
)


class Section(NamedTuple):
    """A subject of a report."""

    title: str
    items: tuple[Item, ...]


class Document(NamedTuple):
    """A report: ``state`` is that of the run, ``about`` says in a line or two which run it is."""

    title: str
    state: str
    about: tuple[str, ...]
    sections: tuple[Section, ...]
