"""Curves and stacks of the web page as SVG (see `svg`).

Lines lie in a picture of their own, one unit wide and high, which the browser stretches over the
chart: a path knows no percent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fanfold.reports.document import Axis, Curves, Line, Stack, Stacks

__all__ = ["STACK", "curves", "sample", "scale", "stacks"]

Text = Callable[[str], str]

STACK = 28  # pixels for a whole
_HEIGHT = 300  # of curves, without the labels
_ABOVE = 10
_BELOW = 22


def scale(axis: Axis, text: Text) -> Iterator[str]:
    """The vertical axis."""
    yield f'<svg width="44" height="{_ABOVE + _HEIGHT + _BELOW}" aria-hidden="true">'
    for tick in axis.ticks:
        yield f'<text x="100%" y="{_down(tick.at) + 4:.1f}" text-anchor="end">'
        yield f"{text(tick.label)}</text>"
    yield "</svg>"


def _down(y: float) -> float:
    return _ABOVE + _HEIGHT * (1 - y)


def curves(chart: Curves, text: Text) -> Iterator[str]:
    """Lines with their bands, and a dot for each thing measured."""
    height, label = _ABOVE + _HEIGHT + _BELOW, text(f"Chart. {chart.title}")
    yield f'<svg class="plot" height="{height}" role="img" aria-label="{label}">'
    yield from _grid(chart, text)
    yield (
        f'<svg y="{_ABOVE}" width="100%" height="{_HEIGHT}" viewBox="0 0 1 1" '
        'preserveAspectRatio="none">'
    )
    for line in chart.lines:
        yield from _line(line)
    yield "</svg>"
    for dot in chart.dots:
        yield f'<circle class="dot" cx="{100 * dot.x:.3f}%" cy="{_down(dot.y):.2f}" r="4">'
        yield f"<title>{text(dot.told)}</title></circle>"
    yield "</svg>"


def _grid(chart: Curves, text: Text) -> Iterator[str]:
    yield '<g class="grid">'
    for tick in chart.up.ticks:
        y = f"{_down(tick.at):.1f}"
        yield f'<line x1="0" x2="100%" y1="{y}" y2="{y}"/>'
    for tick in chart.across.ticks:
        x = f"{100 * tick.at:.3f}%"
        yield f'<line x1="{x}" x2="{x}" y1="{_down(0)}" y2="{_down(0) + 4}"/>'
        yield f'<text x="{x}" y="{_down(0) + 17}" text-anchor="middle">{text(tick.label)}</text>'
    yield "</g>"


def _line(line: Line) -> Iterator[str]:
    if line.band:
        across = [x for x, _ in line.points]
        low, high = zip(*line.band, strict=True)
        around = [*zip(across, high, strict=True), *reversed([*zip(across, low, strict=True)])]
        yield f'<polygon class="band" points="{_points(around)}"/>'
    yield (
        f'<polyline class="line {line.role}" points="{_points(line.points)}" '
        'vector-effect="non-scaling-stroke"/>'
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    """
    >>> _points([(0, 0), (0.5, 1)])
    '0.0000,1.0000 0.5000,0.0000'
    """
    return " ".join(f"{x:.4f},{1 - y:.4f}" for x, y in points)


def sample(kind: str) -> str:
    """A dot or a line for a legend."""
    drawn = f'<path class="line {kind}" d="M0 6h22"/>'
    if kind == "dot":
        drawn = '<circle class="dot" cx="11" cy="6" r="4"/>'
    band = '<rect class="band" width="22" height="12"/>' if kind == "law" else ""
    return f'<svg width="22" height="12" aria-hidden="true">{band}{drawn}</svg>'


def stacks(chart: Stacks, text: Text) -> Iterator[str]:
    """A bar for each whole, divided."""
    height, label = STACK * len(chart.stacks), text(f"Bars. {chart.title}")
    yield f'<svg class="plot" height="{height}" role="img" aria-label="{label}">'
    for position, stack in enumerate(chart.stacks):
        yield from _stack(stack, chart.names, STACK * position + 4, text)
    yield "</svg>"


def _stack(stack: Stack, names: Sequence[str], top: int, text: Text) -> Iterator[str]:
    whole, left = sum(stack.parts) or 1.0, 0.0
    yield "<g>"
    for number, (name, part) in enumerate(zip(names, stack.parts, strict=True)):
        if part > 0:
            yield (
                f'<rect class="bar part-{number}" x="{100 * left:.3f}%" '
                f'width="{100 * part:.3f}%" y="{top}" height="{STACK - 8}">'
                f"<title>{text(f'{name}: {part / whole:.0%}')}</title></rect>"
            )
        left += part
    yield "</g>"
