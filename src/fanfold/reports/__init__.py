"""Reports: what is told of a run, from its `History`, as text for a terminal or as one web page.

document.py     what a report is made of, without any format
one file a subject: outcomes, advice, failures, usage, timeline, times, memory, asked
used.py         what elements used, in lines for a log and in warnings
next_time.py    what to ask a scheduler for next time; sizing.py has its rules
formats/        one file a format: text, html, picture
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fanfold.history import Element, History

__all__ = ["render_html", "render_summary", "render_text", "render_usage", "usage_warnings"]

_USAGE_WIDTH = 140  # columns of a file with a line for each element


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


def render_usage(history: History) -> str:
    """What each element of a run's job arrays asked for and used, as text for a file.

    >>> from fanfold.history import Element, History
    >>> element = Element(1, "12", 0, "n1", "done", 3, cores=2, memory=None, walltime=3600)
    >>> history = History("demo-1", "fanfold-runs/demo-1", "demo.py:work", 3, 2, 0.0, done=3)
    >>> history.elements = [element._replace(seconds=60.0, cpu_time=90.0)]
    >>> print(render_usage(history).splitlines()[-1])
    1  12  0  n1  done  3  1.5 of 2  1m30s  unknown  1m00s (2 %)
    """
    from fanfold.reports.document import Document
    from fanfold.reports.formats import text
    from fanfold.reports.pieces import Pieces
    from fanfold.reports.usage import elements, usage
    from fanfold.reports.words import one_line

    pieces = Pieces(history.pieces)
    parts = usage(history, pieces), elements(history, pieces)
    sections = tuple(part for part in parts if part is not None)
    title = one_line(history.name, 120)
    return text.render(Document(title, history.state, (), sections), _USAGE_WIDTH)


def render_summary(element: Element, run: str, account: str | None, status: int) -> str:
    """What one element of a run asked for and used, as lines for its log; no other file is read.

    ``account`` is the project that it asked for, ``status`` its exit status.

    >>> from fanfold.history import Element
    >>> element = Element(1, "12", 0, "n1", "done", 3, cores=2, memory=None, walltime=3600)
    >>> element = element._replace(seconds=540.0, cpu_time=900.0)
    >>> print(render_summary(element, "demo", "physics", 0))
      job       12, index 0: element 1 of demo
      project   physics
      ended     done, exit status 0, 3 tasks
      ran on    n1, from unknown
      walltime  9m00s of 1h00m00s (15 %)
      cores     1.7 of 2 (83 %)
      memory    unknown, none asked for
      Walltime: 15 % used of the 1h00m00s asked for: with 14m00s a job starts sooner.
    """
    from fanfold.reports.used import summary

    return summary(element, run, account, status)


def usage_warnings(elements: Iterable[Element]) -> list[str]:
    """What is worth a word of elements that have ended: they asked for far too much, or hardly
    enough.

    >>> from fanfold.history import Element
    >>> element = Element(1, "12", 0, "n1", "done", 3, cores=2, memory=None, walltime=3600)
    >>> usage_warnings([element._replace(seconds=540.0)])
    ['Walltime: 15 % used of the 1h00m00s asked for: with 14m00s a job starts sooner.']
    """
    from fanfold.reports.used import warnings

    return warnings(elements)
