"""A report as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from fanfold.reports.document import (
    Advice,
    Bar,
    Bin,
    Code,
    Curves,
    Document,
    Facts,
    Group,
    Histogram,
    Item,
    Lane,
    Level,
    Paragraph,
    Proportion,
    Section,
    Stacks,
    Table,
    Timeline,
)
from fanfold.reports.words import visible

__all__ = ["render"]

NARROWEST = 40
MOST_LANES = 20
MOST_BINS = 15
_TIED = "\xa0"  # a space at which no line ends
_LABEL = 20  # columns for the name of a worker

_SIGNS = {"done": "█", "failed": "x", "missing": "·"}
_PARTS = "█▒x·o"  # of a whole, in their order
_IDEAL, _LAW = "│", "◆"
_ASCII = str.maketrans(
    {"█": "#", "▓": "=", "▒": "-", "░": "-", "·": ".", "─": "-", "│": "|", "◆": "+"}
)


def render(document: Document, width: int, *, ascii_only: bool = False) -> str:
    """The whole report; no line is wider than ``width`` columns (at least 40)."""
    width = max(width, NARROWEST)
    lines = visible("\n".join(_document(document, width)))
    if ascii_only:
        lines = lines.translate(_ASCII).encode("ascii", "backslashreplace").decode()
    return "\n".join(_fit(line, width) for line in lines.splitlines()) + "\n"


def _fit(line: str, width: int) -> str:
    """The line without what does not fit."""
    line = line.rstrip()
    return line if cell_len(line) <= width else set_cell_size(line, width - 3).rstrip() + "..."


def _document(document: Document, width: int) -> Iterator[str]:
    yield f"{document.title}: {document.state}"
    for line in document.about:
        yield from _wrapped(line, width)
    for section in document.sections:
        yield from _section(section, width)


def _section(section: Section, width: int) -> Iterator[str]:
    yield ""
    yield section.title
    yield "─" * cell_len(section.title)
    yield from _items(section.items, width)


def _items(items: Sequence[Item], width: int) -> Iterator[str]:
    before: Item | None = None
    for item in items:
        if isinstance(item, Curves) and not item.levels:
            continue
        together = isinstance(item, Advice | Paragraph) and isinstance(before, Advice | Paragraph)
        if before is not None and not together:
            yield ""
        yield from _WRITERS[type(item)](item, width)
        before = item


def _wrapped(text: str, width: int, first: str = "", indent: str = "") -> list[str]:
    return textwrap.wrap(
        visible(text), width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )


def _paragraph(paragraph: Paragraph, width: int) -> Iterator[str]:
    sign = "! " if paragraph.warning else ""
    yield from _wrapped(paragraph.text, width, sign, " " * len(sign))


def _facts(facts: Facts, width: int) -> Iterator[str]:
    if facts.short:
        pairs = (f"{name} {value}".replace(" ", _TIED) for name, value in facts.rows)
        yield from (line.replace(_TIED, " ") for line in _wrapped(", ".join(pairs), width))
        return
    gutter = min(max((cell_len(name) for name, _ in facts.rows), default=0) + 2, width // 3)
    for name, value in facts.rows:
        label = _padded(name, gutter - 1) + " "
        yield from _wrapped(value, width, label, " " * gutter) or [label]


def _padded(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly ``width`` columns."""
    text = visible(text)
    if cell_len(text) > width:
        text = set_cell_size(text, width - 2) + ".." if width > 4 else set_cell_size(text, width)
    gap = " " * (width - cell_len(text))
    return gap + text if right else text + gap


def _table(table: Table, width: int) -> Iterator[str]:
    if table.title:
        yield table.title
    rows = [table.columns, *table.rows]
    widths = [max(cell_len(visible(row[index])) for row in rows) for index in range(len(rows[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 6:
        widths[widths.index(max(widths))] -= 1
    right = [column in table.figures for column in table.columns]
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        yield "  ".join(_padded(cell, columns, right=side) for cell, columns, side in cells)


def _code(code: Code, width: int) -> Iterator[str]:
    yield code.title
    mark = "" if code.copied else "  │ "
    for line in visible(code.text).expandtabs(4).splitlines():
        yield f"{mark}{line}"


def _advice(advice: Advice, width: int) -> Iterator[str]:
    yield from _wrapped(advice.text, width, "* ", "  ")
    yield from _wrapped(advice.basis, width, "  ", "  ")


def _group(group: Group, width: int) -> Iterator[str]:
    yield from _wrapped(group.title, width, "* ", "  ")
    yield from (f"  {line}".rstrip() for line in _items(group.items, width - 2))


def _proportion(proportion: Proportion, width: int) -> Iterator[str]:
    shown = [part for part in proportion.parts if part.value > 0]
    total = sum(part.value for part in shown)
    words = (f"{part.value:,} {part.label}" for part in proportion.parts)
    yield from _wrapped(f"{proportion.title}: {', '.join(words)}", width)
    if total:
        yield "".join(
            _SIGNS[part.role] * columns
            for part, columns in zip(shown, _columns([p.value for p in shown], width), strict=True)
        )


def _columns(values: Sequence[int], width: int) -> list[int]:
    """``width`` columns divided in proportion to values above 0, with one for each at least."""
    total = sum(values)
    columns = [max(1, width * value // total) for value in values]
    columns[columns.index(max(columns))] += width - sum(columns)
    return columns


def _histogram(histogram: Histogram, width: int) -> Iterator[str]:
    yield histogram.title
    bins = _coarser(histogram.bins)
    low, high = max(len(bin_.low) for bin_ in bins), max(len(bin_.high) for bin_ in bins)
    highest = max(bin_.done + bin_.failed for bin_ in bins)
    count = len(f"{highest:,}")
    room = width - low - high - count - 8
    for bin_ in bins:
        total = bin_.done + bin_.failed
        done, failed = (_length(part, highest, room) for part in (bin_.done, bin_.failed))
        bar = _SIGNS["done"] * min(done, room - failed) + _SIGNS["failed"] * failed
        yield f"{bin_.low:>{low}} to {bin_.high:>{high}}  {total:>{count},}  {bar}".rstrip()
    yield ", ".join(mark.label for mark in histogram.marks)


def _coarser(bins: Sequence[Bin]) -> list[Bin]:
    """Some neighbours as one bin, so that there are at most ``MOST_BINS``."""
    size = -(-len(bins) // MOST_BINS)
    parts = [bins[index : index + size] for index in range(0, len(bins), size)]
    return [
        Bin(
            part[0].start,
            part[-1].end,
            part[0].low,
            part[-1].high,
            sum(bin_.done for bin_ in part),
            sum(bin_.failed for bin_ in part),
        )
        for part in parts
    ]


def _length(value: float, highest: float, room: int) -> int:
    """Columns for a value: at least one for what is there."""
    return max(1, round(value / highest * room)) if value else 0


def _timeline(timeline: Timeline, width: int) -> Iterator[str]:
    yield timeline.title
    lanes = timeline.lanes[:MOST_LANES]
    gutter = min(_LABEL, max(cell_len(visible(lane.label)) for lane in lanes)) + 1
    room = width - gutter - 6
    for lane in lanes:
        yield f"{_padded(lane.label, gutter - 1)} {_strip(lane, room)} {lane.share:>5}"
    if len(lanes) < len(timeline.lanes):
        yield f"... {len(timeline.lanes) - len(lanes)} more workers not shown"
    yield " " * gutter + _marks(timeline, room)
    yield from _wrapped(f"{timeline.axis.label}; █ busy, ▒ partly, x failed, · idle", width)


def _strip(lane: Lane, room: int) -> str:
    """The lane in ``room`` characters, each for an equal part of the time."""
    busy = [0.0] * room
    failed = [False] * room
    for bar in lane.bars:
        for cell, share in _covered(bar, room):
            busy[cell] += share * bar.busy
            failed[cell] |= bar.failed
    return "".join(
        "x" if bad else "█" if share > 0.75 else "▒" if share > 0 else "·"
        for share, bad in zip(busy, failed, strict=True)
    )


def _covered(bar: Bar, room: int) -> Iterator[tuple[int, float]]:
    """The characters that a bar lies on, and the share of each that it covers."""
    left, right = bar.start * room, bar.end * room
    for cell in range(min(int(left), room - 1), min(int(right), room - 1) + 1):
        yield cell, max(0.0, min(right, cell + 1) - max(left, cell))


def _marks(timeline: Timeline, room: int) -> str:
    """The labels of the axis, each beginning where it belongs, as far as there is room."""
    line = ""
    for tick in timeline.axis.ticks:
        at = round(tick.at * room)
        if (at >= len(line) + 1 or not line) and at + len(tick.label) <= room + 6:
            line = line.ljust(at) + tick.label
    return line


def _curves(chart: Curves, width: int) -> Iterator[str]:
    """A bar for each level, with marks where the lines are."""
    yield chart.title
    label = max(cell_len(level.label) for level in chart.levels)
    shown = max(len(level.shown) for level in chart.levels)
    room = width - label - shown - 5
    for level in chart.levels:
        bar = _marked(level, chart, room)
        yield f"{level.label:>{label}}  {level.shown:>{shown}}  {bar}".rstrip()
    signs = ", ".join(f"{_sign(line.role)} {line.label}" for line in chart.lines)
    yield from _wrapped(f"{_SIGNS['done']} measured, {signs}", width)


def _marked(level: Level, chart: Curves, room: int) -> str:
    cells = list((_SIGNS["done"] * _length(level.y, 1, room)).ljust(room + 1))
    for line, y in zip(chart.lines, level.lines, strict=False):
        if y <= 1:
            cells[max(0, round(y * room) - 1)] = _sign(line.role)
    return "".join(cells)


def _sign(role: str) -> str:
    return _IDEAL if role == "ideal" else _LAW


def _stacks(chart: Stacks, width: int) -> Iterator[str]:
    yield chart.title
    label = max(cell_len(stack.label) for stack in chart.stacks)
    whole = max(cell_len(stack.whole) for stack in chart.stacks)
    room = width - label - whole - 4
    for stack in chart.stacks:
        ends = [round(sum(stack.parts[: count + 1]) * room) for count in range(len(stack.parts))]
        begins = [0, *ends]
        bar = "".join(
            sign * (end - begin) for sign, begin, end in zip(_PARTS, begins, ends, strict=False)
        )
        yield f"{stack.label:>{label}}  {stack.whole:>{whole}}  {bar}"
    signs = zip(_PARTS, chart.names, strict=False)
    yield from _wrapped(", ".join(f"{sign} {name}" for sign, name in signs), width)


_WRITERS: dict[type, Callable[[Any, int], Iterator[str]]] = {
    Paragraph: _paragraph,
    Facts: _facts,
    Table: _table,
    Code: _code,
    Advice: _advice,
    Group: _group,
    Proportion: _proportion,
    Histogram: _histogram,
    Timeline: _timeline,
    Curves: _curves,
    Stacks: _stacks,
}
