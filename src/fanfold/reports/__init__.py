"""Reports: what is told of a run, from its `History`, as text for a terminal or as one web page.

document.py     what a report is made of, without any format
one file a subject: outcomes, advice, failures, timeline, times, memory, asked
formats/        one file a format: text, html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fanfold.history import History

__all__ = ["render_html", "render_text"]


def render_text(history: History, width: int = 100, *, ascii_only: bool = False) -> str:
    """The report of a run for a terminal of ``width`` columns.

    ``ascii_only`` is for a terminal that shows nothing else: bars become ``#``, and characters that
    are not ASCII are written as escapes.

    >>> from fanfold.history import History
    >>> history = History("demo-1", "fanfold-runs/demo-1", "demo.py:work", 3, 2, 0.0, done=2)
    >>> print(render_text(history, 60, ascii_only=True).splitlines()[0])
    demo-1: unfinished
    """
    from fanfold.reports.formats import text
    from fanfold.reports.report import report

    return text.render(report(history), width, ascii_only=ascii_only)


def render_html(history: History) -> str:
    """The report of a run as one web page: it needs no network, no script and no other file.

    >>> from fanfold.history import History
    >>> history = History("<demo>", "fanfold-runs/demo", "demo.py:work", 3, 2, 0.0, done=3)
    >>> "<title>&lt;demo&gt;: done</title>" in render_html(history)
    True
    """
    from fanfold.reports.formats import html
    from fanfold.reports.report import report

    return html.render(report(history))
