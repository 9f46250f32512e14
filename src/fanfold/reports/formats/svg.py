"""The charts of the web page as SVG.

Across, everything is placed in percent and down in pixels, so that a chart is as wide as its window
while its letters keep their size. ``text`` makes a string inert (see `html`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fanfold.reports.document import Axis, Bar, Bin, Histogram, Lane, Proportion, Timeline

__all__ = [
    "DEFINITIONS",
    "HEIGHTS",
    "SOLID",
    "histogram",
    "lane_height",
    "proportion",
    "scale",
    "swatch",
    "timeline",
]

Text = Callable[[str], str]

SOLID = 0.95  # the share of work from which a bar is drawn in full colour
HEIGHTS = {28: "tall", 20: "middle", 15: "low"}  # of a lane, and its class in page.css

# What failed is hatched, so that it differs by more than its colour.
DEFINITIONS = (
    '<svg class="definitions" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="failed" class="hatch" width="5" height="5" patternUnits="userSpaceOnUse">'
    '<rect width="5" height="5"/><path d="M-1 1l2-2M0 5l5-5M4 6l2-2"/></pattern></defs></svg>'
)

# Percent: what is shorter is drawn so, to be seen at all; what failed must not be overlooked.
_THINNEST = {False: 0.1, True: 0.25}
_SEPARATE = 0.5  # percent: from this width there is a line between tasks, and room for a hatching
_HEIGHT = 170  # of a histogram, without its labels
_ABOVE = 22
_BELOW = 22


def _percent(share: float) -> str:
    """
    >>> _percent(0.125), _percent(1.0)
    ('12.5%', '100%')
    """
    return f"{100 * share:.3f}".rstrip("0").rstrip(".") + "%"


def swatch(kind: str) -> str:
    """A sample of a colour for a legend."""
    pale = ' fill-opacity="0.45"' if kind == "pale" else ""
    role = "done" if kind == "pale" else kind
    return (
        '<svg width="14" height="12" aria-hidden="true">'
        f'<rect class="{role}" width="14" height="12" rx="2"{pale}/></svg>'
    )


def proportion(chart: Proportion, text: Text) -> Iterator[str]:
    """One bar, divided."""
    total = sum(part.value for part in chart.parts if part.value > 0)
    told = ", ".join(f"{part.value:,} {part.label}" for part in chart.parts)
    yield f'<svg class="plot" height="18" role="img" aria-label="{text(told)}">'
    yield '<rect class="track" width="100%" height="18" rx="3"/>'
    left = 0.0
    for part in chart.parts:
        if part.value > 0:
            share = part.value / total
            yield (
                f'<rect class="{part.role} wide" x="{_percent(left)}" '
                f'width="{_percent(max(share, 0.004))}" height="18" data-value="{part.value}"/>'
            )
            left += share
    yield "</svg>"


def lane_height(chart: Timeline) -> int:
    """Pixels for a lane: the more there are, the lower."""
    lanes = len(chart.lanes)
    return 28 if lanes <= 8 else 20 if lanes <= 24 else 15


def timeline(chart: Timeline, text: Text) -> Iterator[str]:
    """A lane of bars for each worker, over a common axis."""
    pitch = lane_height(chart)
    bottom = pitch * len(chart.lanes)
    label = text(f"Timeline. {chart.title}")
    yield f'<svg class="plot" height="{bottom + _BELOW}" role="img" aria-label="{label}">'
    for position, lane in enumerate(chart.lanes):
        yield from _lane(lane, position, pitch, text)
    yield from _grid(chart.axis, 0, bottom, text, over=True)
    yield "</svg>"


def _lane(lane: Lane, position: int, pitch: int, text: Text) -> Iterator[str]:
    margin = pitch // 7
    top, height = position * pitch + margin, pitch - 2 * margin
    yield f'<g data-lane="{position}">'
    yield f'<rect class="track" y="{top}" width="100%" height="{height}" rx="2"/>'
    for bar in lane.bars:
        yield _bar(bar, top, height, text)
    yield "</g>"


def _bar(bar: Bar, top: int, height: int, text: Text) -> str:
    width = max(100 * (bar.end - bar.start), _THINNEST[bar.failed]) / 100
    kind = "failed" if bar.failed else "done"
    if 100 * width < _SEPARATE:
        kind += " thin"
    elif bar.tasks == 1:
        kind += " wide"
    pale = f' fill-opacity="{0.25 + 0.75 * bar.busy:.2f}"' if bar.busy < SOLID else ""
    if bar.failed and bar.busy < SOLID:  # a stripe, so that what went well in between is seen
        top, height = top + height - height // 3, height // 3
    return (
        f'<rect class="bar {kind}" x="{_percent(min(bar.start, 1 - width))}" '
        f'width="{_percent(width)}" y="{top}" height="{height}"{pale} '
        f'data-first="{bar.first}" data-tasks="{bar.tasks}"><title>{text(bar.told)}</title></rect>'
    )


def _grid(axis: Axis, top: int, bottom: int, text: Text, *, over: bool = False) -> Iterator[str]:
    """The marks of an axis as lines, with their labels below."""
    kind = "grid over" if over else "grid"
    yield f'<g class="{kind}" pointer-events="none">'
    for position, tick in enumerate(axis.ticks):
        at = _percent(tick.at)
        minor = ' class="minor"' if position % 2 else ""
        yield f'<line x1="{at}" x2="{at}" y1="{top}" y2="{bottom + 4}"/>'
        yield (
            f'<text x="{at}" y="{bottom + 17}" text-anchor="{_anchor(tick.at)}"{minor}>'
            f"{text(tick.label)}</text>"
        )
    yield "</g>"


def _anchor(at: float) -> str:
    """Labels at the ends of an axis stay within it."""
    return "start" if at < 0.03 else "end" if at > 0.97 else "middle"


def scale(chart: Histogram, text: Text) -> Iterator[str]:
    """The vertical axis of a histogram."""
    yield f'<svg width="38" height="{_ABOVE + _HEIGHT + _BELOW}" aria-hidden="true">'
    for tick in chart.counts.ticks:
        y = _ABOVE + _HEIGHT * (1 - tick.at) + 4
        yield f'<text x="100%" y="{y:.1f}" text-anchor="end">{text(tick.label)}</text>'
    yield "</svg>"


def histogram(chart: Histogram, text: Text) -> Iterator[str]:
    """A column for each bin: what failed stands on what went well."""
    bottom = _ABOVE + _HEIGHT
    yield (
        f'<svg class="plot" height="{bottom + _BELOW}" role="img" '
        f'aria-label="{text(f"Histogram. {chart.title}")}">'
    )
    yield '<g class="grid">'
    for tick in chart.counts.ticks:
        y = f"{_ABOVE + _HEIGHT * (1 - tick.at):.1f}"
        yield f'<line x1="0" x2="100%" y1="{y}" y2="{y}"/>'
    yield "</g>"
    yield from _grid(chart.axis, bottom, bottom, text)
    for bin_ in chart.bins:
        yield from _column(bin_, chart.highest, text)
    yield '<g class="mark" pointer-events="none">'
    for mark in chart.marks:
        at, side = _percent(mark.at), mark.at > 0.5
        anchor, shift = ("end", -5) if side else ("start", 5)
        yield f'<line x1="{at}" x2="{at}" y1="2" y2="{bottom}"/>'
        yield f'<text x="{at}" dx="{shift}" y="12" text-anchor="{anchor}">{text(mark.label)}</text>'
    yield "</g></svg>"


def _column(bin_: Bin, highest: int, text: Text) -> Iterator[str]:
    place = f'x="{_percent(bin_.start)}" width="{_percent(bin_.end - bin_.start)}"'
    top = float(_ABOVE + _HEIGHT)
    for role, count in (("done", bin_.done), ("failed", bin_.failed)):
        if count:
            height = max(2.0, _HEIGHT * count / highest)
            top -= height
            yield (
                f'<rect class="bar {role} wide" {place} y="{top:.1f}" height="{height:.1f}" '
                f'data-count="{count}"><title>{text(bin_.told)}</title></rect>'
            )
