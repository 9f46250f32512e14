"""A report as one web page, which needs nothing else: no network, no script, no other file.

Every string of the document passes through `_text`, which makes it inert; and the page forbids
whatever is not its own style sheet, so that even markup that came through could do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from typing import Any

from fanfold.reports.document import (
    Advice,
    Code,
    Curves,
    Document,
    Facts,
    Group,
    Histogram,
    Item,
    Paragraph,
    Proportion,
    Section,
    Stacks,
    Table,
    Timeline,
)
from fanfold.reports.formats import curves, svg
from fanfold.reports.words import visible

__all__ = ["frame", "render"]


def render(document: Document) -> str:
    """The whole page."""
    return "\n".join(_page(document)) + "\n"


def frame(page: str) -> str:
    """The page in a frame of its own, for a notebook."""
    inside = html.escape(page)
    return f'<iframe srcdoc="{inside}" sandbox width="100%" height="900" frameborder="0"></iframe>'


def _text(text: str) -> str:
    """The text as it may stand anywhere in the page, between tags and in quoted attributes."""
    return html.escape(visible(text))


def _page(document: Document) -> Iterator[str]:
    style = files("fanfold.reports.formats").joinpath("page.css").read_text("utf-8")
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(style)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield '<meta name="referrer" content="no-referrer">'
    yield f"<title>{_text(document.title)}: {_text(document.state)}</title>"
    yield f"<style>{style}</style>"
    yield "</head>"
    yield "<body>"
    yield svg.DEFINITIONS
    yield "<main>"
    yield from _header(document)
    for section in document.sections:
        yield from _section(section)
    yield "</main>"
    yield "</body>"
    yield "</html>"


def _policy(style: str) -> str:
    """What the page may do: nothing, but to be dressed in this style."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


_STATES = {"done": "✓", "failed": "✕", "unfinished": "◐", "running": "▶"}


def _header(document: Document) -> Iterator[str]:
    sign = _STATES.get(document.state, "")
    kind = document.state if sign else "unfinished"
    yield "<header>"
    yield (
        f'<h1><span class="name">{_text(document.title)}</span> '
        f'<span class="state {kind}">{sign} {_text(document.state)}</span></h1>'
    )
    yield from (f"<p>{_text(line)}</p>" for line in document.about)
    yield "</header>"


def _section(section: Section) -> Iterator[str]:
    yield "<section>"
    yield f"<h2>{_text(section.title)}</h2>"
    yield from _items(section.items)
    yield "</section>"


def _items(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        yield from _WRITERS[type(item)](item)


def _paragraph(paragraph: Paragraph) -> Iterator[str]:
    kind = "note warning" if paragraph.warning else "note"
    yield f'<p class="{kind}">{_text(paragraph.text)}</p>'


def _facts(facts: Facts) -> Iterator[str]:
    yield f'<dl class="{"figures" if facts.short else "facts"}">'
    for name, value in facts.rows:
        pair = f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>"
        yield f"<div>{pair}</div>" if facts.short else pair
    yield "</dl>"


def _table(table: Table) -> Iterator[str]:
    kinds = [' class="figure"' if name in table.figures else "" for name in table.columns]
    head = zip(table.columns, kinds, strict=True)
    yield '<div class="scroll"><table>'
    if table.title:
        yield f"<caption>{_text(table.title)}</caption>"
    names = "".join(f'<th scope="col"{kind}>{_text(name)}</th>' for name, kind in head)
    yield f"<thead><tr>{names}</tr></thead><tbody>"
    for row in table.rows:
        cells = zip(row, kinds, strict=True)
        yield f"<tr>{''.join(f'<td{kind}>{_text(cell)}</td>' for cell, kind in cells)}</tr>"
    yield "</tbody></table></div>"


def _code(code: Code) -> Iterator[str]:
    yield f"<figure><figcaption>{_text(code.title)}</figcaption>"
    yield f'<pre tabindex="0">{_text(code.text)}</pre></figure>'


def _advice(advice: Advice) -> Iterator[str]:
    yield f'<div class="advice"><p><strong>{_text(advice.text)}</strong></p>'
    yield f'<p class="basis">{_text(advice.basis)}</p></div>'


def _group(group: Group) -> Iterator[str]:
    yield f"<details{' open' if group.open else ''}><summary>{_text(group.title)}</summary>"
    yield from _items(group.items)
    yield "</details>"


def _proportion(proportion: Proportion) -> Iterator[str]:
    yield f'<figure class="proportion"><figcaption>{_text(proportion.title)}</figcaption>'
    yield from svg.proportion(proportion, _text)
    yield from _legend((part.role, f"{part.value:,} {part.label}") for part in proportion.parts)
    yield "</figure>"


def _legend(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield '<ul class="legend">'
    for kind, label in entries:
        yield f"<li>{svg.swatch(kind)}{_text(label)}</li>"
    yield "</ul>"


def _as_table(table: Table) -> Iterator[str]:
    """What a chart shows, for those who read rather than look."""
    yield '<details class="table"><summary>as a table</summary>'
    yield from _table(table)
    yield "</details>"


def _histogram(histogram: Histogram) -> Iterator[str]:
    yield f'<figure class="histogram"><figcaption>{_text(histogram.title)}</figcaption>'
    yield '<div class="frame">'
    yield from svg.scale(histogram, _text)
    yield from svg.histogram(histogram, _text)
    yield f'<p class="axis-label">{_text(histogram.axis.label)}</p>'
    yield "</div>"
    if any(bin_.failed for bin_ in histogram.bins):
        yield from _legend(
            [("done", "attempts that went well"), ("failed", "attempts that failed")]
        )
    yield from _as_table(histogram.table)
    yield "</figure>"


def _timeline(timeline: Timeline) -> Iterator[str]:
    height = svg.lane_height(timeline)
    names = "".join(
        f'<li title="{_text(lane.label)}">{_text(lane.label)}</li>' for lane in timeline.lanes
    )
    shares = "".join(f"<li>{_text(lane.share)}</li>" for lane in timeline.lanes)
    yield f'<figure class="timeline"><figcaption>{_text(timeline.title)}</figcaption>'
    yield f'<div class="frame {svg.HEIGHTS[height]}">'
    yield f'<ol class="names">{names}</ol>'
    yield from svg.timeline(timeline, _text)
    yield f'<ol class="shares">{shares}</ol>'
    yield f'<p class="axis-label">{_text(timeline.axis.label)}</p>'
    yield "</div>"
    yield from _legend(_timeline_legend(timeline))
    yield from _as_table(timeline.table)
    yield "</figure>"


def _timeline_legend(timeline: Timeline) -> Iterator[tuple[str, str]]:
    bars = [bar for lane in timeline.lanes for bar in lane.bars]
    merged = any(bar.tasks > 1 for bar in bars)
    yield "done", "at work; what is framed is one task" if merged else "at work"
    if any(bar.busy < svg.SOLID and not bar.failed for bar in bars):
        yield "pale", "many short tasks with pauses, the paler the longer"
    if any(bar.failed for bar in bars):
        yield "failed", "an attempt that failed"
    yield "track", "idle"


def _curves(chart: Curves) -> Iterator[str]:
    yield f'<figure class="curves"><figcaption>{_text(chart.title)}</figcaption>'
    yield '<div class="frame">'
    yield from curves.scale(chart.up, _text)
    yield from curves.curves(chart, _text)
    yield f'<p class="axis-label">{_text(chart.across.label)}</p>'
    yield "</div>"
    yield from _samples([("dot", "a run"), *((line.role, line.label) for line in chart.lines)])
    yield from _as_table(chart.table)
    yield "</figure>"


def _samples(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield '<ul class="legend">'
    for kind, label in entries:
        yield f"<li>{curves.sample(kind)}{_text(label)}</li>"
    yield "</ul>"


def _stacks(chart: Stacks) -> Iterator[str]:
    names = "".join(f"<li>{_text(stack.label)}</li>" for stack in chart.stacks)
    wholes = "".join(f"<li>{_text(stack.whole)}</li>" for stack in chart.stacks)
    yield f'<figure class="stacks"><figcaption>{_text(chart.title)}</figcaption>'
    yield f'<div class="frame {svg.HEIGHTS[curves.STACK]}">'
    yield f'<ol class="names">{names}</ol>'
    yield from curves.stacks(chart, _text)
    yield f'<ol class="shares">{wholes}</ol>'
    yield "</div>"
    yield from _legend((f"part-{number}", name) for number, name in enumerate(chart.names))
    yield from _as_table(chart.table)
    yield "</figure>"


_WRITERS: dict[type, Callable[[Any], Iterator[str]]] = {
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
