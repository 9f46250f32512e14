"""The curves and stacks of a document as a picture, drawn by matplotlib (the extra ``plot``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanfold.errors import UsageError
from fanfold.extras import need
from fanfold.reports.document import Curves, Document, Item, Stacks
from fanfold.reports.words import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_picture", "draw"]

_KINDS = (".svg", ".png", ".pdf")
_PARTS = ("#1f77b4", "#e0a100", "#c2410c", "#8a5fbf", "#7f8b98")  # as in page.css
_LINES = {"ideal": ("#5a6675", "--"), "law": ("#c2410c", "-")}
# A picture of the same study is the same file.
_UNDATED: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_SIZE = (3.7, 3.2)  # inches of one chart
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "fanfold", "font.size": 9}


def check_picture(path: str | os.PathLike[str]) -> None:
    """Refuse, before any work, a picture that could not be drawn.

    >>> check_picture("speed-up.jpg")
    Traceback (most recent call last):
    fanfold.errors.UsageError: a picture is a .svg, .png or .pdf file, not speed-up.jpg
    """
    if Path(path).suffix.lower() not in _KINDS:
        raise UsageError(f"a picture is a .svg, .png or .pdf file, not {os.fspath(path)}")
    need("matplotlib", "plot", "drawing a picture")


def draw(document: Document, path: Path) -> Path:
    """Write the charts, one beside the other. Raises `UsageError` as `check_picture` does."""
    check_picture(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    charts = [item for item in _items(document) if isinstance(item, Curves | Stacks)]
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(_SIZE[0] * len(charts), _SIZE[1]), layout="constrained")
        figure.suptitle(_text(document.title))
        row = figure.subplots(1, len(charts), squeeze=False)[0]
        for axes, chart in zip(row, charts, strict=True):
            axes.set_title(_text(chart.title), fontsize=9)
            _DRAWERS[type(chart)](axes, chart)
        figure.savefig(path, metadata=_UNDATED.get(path.suffix.lower()))
    return path


def _items(document: Document) -> Iterator[Item]:
    for section in document.sections:
        yield from section.items


def _text(text: str) -> str:
    """Inert for matplotlib, which reads what is between dollars as mathematics."""
    return visible(text).replace("$", r"\$")


def _curves(axes: Axes, chart: Curves) -> None:
    for line in chart.lines:
        across, up = zip(*line.points, strict=True)
        colour, style = _LINES[line.role]
        axes.plot(across, up, color=colour, linestyle=style, label=_text(line.label))
        if line.band:
            low, high = zip(*line.band, strict=True)
            axes.fill_between(across, low, high, color=colour, alpha=0.15, linewidth=0)
    dots = [(dot.x, dot.y) for dot in chart.dots]
    axes.plot(*zip(*dots, strict=True), "o", color=_PARTS[0], alpha=0.7, ms=4, label="a run")
    axes.set_xticks([tick.at for tick in chart.across.ticks], _labels(chart.across.ticks))
    axes.set_yticks([tick.at for tick in chart.up.ticks], _labels(chart.up.ticks))
    axes.set(xlim=(0, 1.04), ylim=(0, 1.04), xlabel=_text(chart.across.label))
    axes.set_ylabel(_text(chart.up.label))
    axes.grid(axis="y", color="#dfe3e8")
    axes.legend(frameon=False, fontsize=8)


def _stacks(axes: Axes, chart: Stacks) -> None:
    rows = range(len(chart.stacks))
    left = [0.0] * len(chart.stacks)
    for number, name in enumerate(chart.names):
        widths = [stack.parts[number] for stack in chart.stacks]
        axes.barh(rows, widths, 0.7, left, color=_PARTS[number], label=_text(name))
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    labels = [_text(f"{stack.label}\n{stack.whole}") for stack in chart.stacks]
    axes.set_yticks(rows, labels)
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2)


def _labels(ticks: tuple[Any, ...]) -> list[str]:
    return [_text(tick.label) for tick in ticks]


_DRAWERS: dict[type, Callable[[Axes, Any], None]] = {Curves: _curves, Stacks: _stacks}
