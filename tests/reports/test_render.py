"""Any history renders, as text and as a page: whole, safe, and in time."""

from __future__ import annotations

import hashlib
import html
import re
import time
from base64 import b64encode
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from fanfold.history import Death, Failure, History, Piece, Session
from fanfold.reports import render_html, render_text
from fanfold.reports.document import (
    Advice,
    Axis,
    Bar,
    Bin,
    Code,
    Document,
    Facts,
    Group,
    Histogram,
    Lane,
    Paragraph,
    Part,
    Proportion,
    Section,
    Table,
    Tick,
    Timeline,
)
from fanfold.reports.formats import html as html_format
from fanfold.reports.formats import text as text_format
from fanfold.reports.report import report

BEGAN = 1_790_000_000.0

XSS = (
    "<script>window.harmed = 1</script>",
    "\"><img src=x onerror='window.harmed = 1'>",
    "'><svg onload=window.harmed=1>",
    "</title><script>window.harmed = 1</script>",
    "</style><script>window.harmed = 1</script>",
    "</pre></details></section><iframe src='javascript:window.harmed=1'></iframe>",
    "<a href=javascript:window.harmed=1>x</a>",
    "<style>*{display:none}</style>",
    "<base href=//evil.example/><link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<form action=//evil.example><input autofocus onfocus=window.harmed=1>",
    "<!--", "-->", "]]>", "&lt;script&gt;", "{{7*7}}", "${7*7}", "\\u003cscript\\u003e",
    "\0<\0script>", "\x1b[2J\x1b]0;harmed\x07", "\u202egnp.exe",
    "\ud800", "x\u2028y\u2029", "\ufeff",
    "`onmouseover=window.harmed=1 x=`", "' onmouseover='window.harmed=1", "url(//evil.example/x)",
)  # fmt: skip


def hostile(text):
    """A run in which every string is this one."""
    failed = Failure(
        0, text, text, text, f"Traceback\n{text}\n", True, 1, text, text,
        Death(1, text, 1, text, 1, None), (text, text),
    )  # fmt: skip
    pieces = [
        Piece(n, 1, text, f"{text}{n % 3}", 1, BEGAN + n, 0.5 + n, 0.1, 1 << 20, n > 0)
        for n in range(9)
    ]
    return History(
        text, text, text, 9, 2, BEGAN, 8, 1, 0, {text: text, "list": [text, {text: text}]}, pieces,
        [failed], [Session(text, text, 1, BEGAN, BEGAN + 20, text)], [text],
    )  # fmt: skip


words = st.one_of(st.text(max_size=30), st.sampled_from(XSS))
moments = st.one_of(st.floats(BEGAN, BEGAN + 1e6), st.floats(allow_nan=True, allow_infinity=True))
spans = st.one_of(st.floats(0, 1e6), st.floats(allow_nan=True, allow_infinity=True))
writers = st.sampled_from(["e0-a1", "e0-a2", "e1-a1"])
names = st.one_of(st.sampled_from([f"worker {n}" for n in range(5)]), words)
indices = st.integers(0, 2**40)
pieces = st.builds(
    Piece, indices, st.integers(0, 10**6), writers, names, st.integers(1, 5),
    st.none() | moments, spans, st.none() | spans, st.none() | st.integers(0, 2**45), st.booleans(),
)  # fmt: skip
deaths = st.builds(
    Death, st.none() | indices, st.none() | words, st.none() | st.integers(-64, 255), words,
    st.none() | indices, st.none() | st.booleans(),
)  # fmt: skip
failed = st.builds(
    Failure, indices, words, words, words, words, st.booleans(), st.integers(1, 5), writers, names,
    st.none() | deaths, st.lists(words, max_size=3).map(tuple),
)  # fmt: skip
ends = st.sampled_from(["done", "failed", "interrupted", "superseded", "running", "died", "?"])
driven = st.builds(
    Session, writers, words, st.integers(0, 2**22), moments, st.none() | moments, ends
)
told = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)


@st.composite
def histories(draw):
    """Any history whose counts can be: what has ended is not more than the total."""
    done, failures, missing = (draw(st.integers(0, 10**9)) for _ in range(3))
    return History(
        draw(words), draw(words), draw(words), done + failures + missing,
        draw(st.integers(0, 10**4)), draw(moments), done, failures, draw(st.integers(0, 9)),
        draw(st.dictionaries(words, told, max_size=4)), draw(st.lists(pieces, max_size=12)),
        draw(st.lists(failed, max_size=6)), draw(st.lists(driven, max_size=4)),
        draw(st.lists(words, max_size=3)),
    )  # fmt: skip


class Page(HTMLParser):
    """What a page is made of; every element but ``meta`` must be closed where it belongs."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.open = [], set(), []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


TAGS = """
    html head meta title style body main header h1 h2 section p span strong div dl dt dd ul ol li
    table caption thead tbody tr th td figure figcaption pre details summary svg defs pattern rect
    path line text g
"""
ATTRIBUTES = """
    lang charset http-equiv content name class id width height x y x1 x2 y1 y2 dx d rx title role
    scope open tabindex aria-label aria-hidden text-anchor fill-opacity pointer-events patternunits
    data-lane data-first data-tasks data-value data-count
"""


def check_page(page):
    """The page is well-formed UTF-8 and holds nothing but what a report is made of."""
    page.encode("utf-8")
    parsed = Page(page)
    assert set(parsed.tags) <= set(TAGS.split())
    assert parsed.attributes <= set(ATTRIBUTES.split())
    return parsed


@pytest.mark.parametrize("text", XSS)
def test_hostile_strings_are_inert(text):
    """X08: markup in names, inputs, errors and logs is text; control characters are escapes."""
    parsed = check_page(render_html(hostile(text)))
    plain = Page(render_html(hostile("plain")))
    assert parsed.tags == plain.tags
    shown = render_text(hostile(text))
    assert not re.search(r"[^\n -~\xa0-\ufffd\U00010000-\U0010ffff]|[\ud800-\udfff\u202e]", shown)


@pytest.mark.parametrize("render", [html_format.render, lambda made: text_format.render(made, 80)])
def test_formats_trust_no_string(render):
    """A format makes every string of a document inert itself, whoever made the document."""
    bad = "<b>\x1b[31m\u202e\ud800"
    table = Table(bad, (bad,), ((bad,),))
    axis = Axis((Tick(0.5, bad),), bad)
    items = (
        Paragraph(bad), Facts(((bad, bad),)), table, Code(bad, bad), Advice(bad, bad),
        Group(bad, (Paragraph(bad),)), Proportion(bad, (Part(bad, 1, "done"),)),
        Histogram(bad, axis, axis, 1, (Bin(0, 1, bad, bad, 1, 0),), (Tick(0.5, bad),), table),
        Timeline(bad, axis, (Lane(bad, bad, (Bar(0, 1, 0, 1, False, 1, bad),)),), table),
    )  # fmt: skip
    shown = render(Document(bad, bad, (bad,), (Section(bad, items),)))
    assert not set(shown) & {"\x1b", "\u202e", "\ud800"}
    if shown.startswith("<!doctype"):
        assert "<b>" not in shown


def test_page_forbids_everything_else():
    """The policy lets nothing load or run but the page's own style sheet, by its digest."""
    page = render_html(hostile("x"))
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)[1]
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert html.unescape(policy) == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in style.replace("url(#failed)", "")
    assert "@import" not in style


@settings(max_examples=200, deadline=None)
@given(histories(), st.integers(1, 300), st.booleans())
def test_any_history_renders(history, width, ascii_only):
    """R24: any history has a page and a text that keeps its width; the states sum to the total."""
    document = report(history)
    (whole,) = [i for i in document.sections[0].items if isinstance(i, Proportion)]
    assert sum(part.value for part in whole.parts) == history.total
    check_page(render_html(history))
    text = render_text(history, width, ascii_only=ascii_only)
    assert max(map(cell_len, text.splitlines())) <= max(width, 40)
    assert text.isascii() or not ascii_only


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({}, "done"),
        ({"failing": 0.3}, "failed"),
        ({"why": "running", "stop": 12}, "running"),
        ({"why": "died", "stop": 12}, "unfinished"),
        ({"tasks": 0}, "done"),
    ],
)
def test_states(simulate, given, state):
    """A run that is done, failed, running, crashed, or empty says so first."""
    history = simulate(3, **given)
    assert render_text(history).splitlines()[0] == f"{history.name}: {state}"
    assert f"<title>{history.name}: {state}</title>" in render_html(history)


@pytest.fixture
def utc(monkeypatch):
    """The clock on the wall shows UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_text_of_a_small_run(utc):
    """The whole report of a small run, as a terminal shows it."""
    pieces = [
        Piece(0, 1, "e0-a1", "worker 0", 1, BEGAN, 2.0, 1.9, 30 << 20, True),
        Piece(1, 1, "e0-a1", "worker 1", 1, BEGAN, 4.0, 3.9, 40 << 20, True),
    ]
    history = History(
        "pi.throw-1", "fanfold-runs/pi.throw-1", "pi.throw", 2, 2, BEGAN, 2, 0,
        asked={"seed": 1}, pieces=pieces,
        sessions=[Session("e0-a1", "here", 4711, BEGAN, BEGAN + 4, "done")],
    )  # fmt: skip
    assert render_text(history, 72, ascii_only=True) == SMALL


SMALL = """\
pi.throw-1: done
pi.throw, 2 tasks on 2 workers
begun 2026-09-21 14:13:20 UTC

Outcome
-------
2 tasks: 2 done, 0 failed, 0 not finished
########################################################################

wall time 4.00s, work time 6.00s, speed-up 1.50, workers busy 75 %,
peak memory 40.0 MB

What the numbers say
--------------------
* Peak memory 40.0 MB a task; 2 workers at once need up to 80.0 MB
  The largest of 2 measured attempts: task 1.
* 2 workers kept busy 75 %
  6.00s of work in 2 x 4.00s.
* The run cannot be shorter than task 1: divide it; more workers will
  not help
  It took 4.00s of 4.00s.

Timeline
--------
e0-a1: 2 workers busy 75 % of 4.00s
worker 0 ############################-............................  50 %
worker 1 ######################################################### 100 %
         0             1s            2s             3s            4s
time since 2026-09-21 14:13:20 UTC; # busy, - partly, x failed, . idle

Run times
---------
The slowest
task    run time  CPU time  peak memory  worker    attempt  ended
task 1     4.00s     3.90s      40.0 MB  worker 1        1  done
task 0     2.00s     1.90s      30.0 MB  worker 0        1  done

Memory
------
The largest
task    peak memory  run time  worker    ended
task 1      40.0 MB     4.00s  worker 1  done
task 0      30.0 MB     2.00s  worker 0  done

Sessions
--------
session  host  process  began                lasted  how it ended
e0-a1    here     4711  2026-09-21 14:13:20   4.00s  all tasks done

What was asked
--------------
run     pi.throw-1
folder  fanfold-runs/pi.throw-1
target  pi.throw
seed    1
"""


def test_bars_tell_how_many(simulate):
    """In the text, the columns of a histogram are as long as their counts."""
    text = render_text(simulate(2, tasks=300, workers=4), 100)
    block = text.partition("Run times of 300 attempts\n")[2].partition("median")[0]
    rows = re.findall(r"(\d+)  (█*)$", block, re.MULTILINE)
    counts = [int(count) for count, _ in rows]
    assert sum(counts) == 300
    longest = max(len(bar) for _, bar in rows)
    assert all(
        abs(len(bar) - longest * n / max(counts)) <= 1
        for n, (_, bar) in zip(counts, rows, strict=True)
    )


def test_narrow_and_wide(simulate):
    """Widths from 20 to 300: nothing wider than asked, the least being 40."""
    history = simulate(4, tasks=60, workers=3, failing=0.2, retries=1)
    for width in (20, 40, 79, 100, 300):
        lines = render_text(history, width).splitlines()
        assert max(map(cell_len, lines)) <= max(width, 40)


def million(tasks=1_000_000, workers=64):
    """Many tasks, each a piece of its own, one in a thousand failed."""
    made = [
        Piece(
            n, 1, "e0-a1", f"worker {n % workers}", 1, BEGAN + n / workers * 0.01,
            0.009 - n % 7 / 1000, 0.008, (30 << 20) + n % 1000 * 4096, n % 1000 != 0,
        )
        for n in range(tasks)
    ]  # fmt: skip
    failures = [
        Failure(n, str(n), "ValueError", f"bad {n}", "T\n", True, 1, "e0-a1", "worker 0")
        for n in range(0, tasks, 1000)
    ]
    end = Session("e0-a1", "here", 1, BEGAN, BEGAN + tasks / workers * 0.01, "failed")
    return History(
        "million", "runs/million", "m.py:f", tasks, workers, BEGAN, tasks - len(failures),
        len(failures), pieces=made, failures=failures, sessions=[end],
    )  # fmt: skip


def test_million_tasks():
    """R18: a page of a million tasks holds less than 2 MB."""
    page = render_html(million())
    assert len(page.encode()) < 2_000_000
    assert page.count('class="bar') < 3200


def test_page_stays_small():
    """Long names, messages, tracebacks and logs are cut: a page stays below 2 MB."""
    long = "<&\x01" * 20_000
    failures = [
        Failure(
            n, long, f"E{n}{long}", long, "\n".join([long] * 50), True, 1, "w", long, None,
            (long,) * 50,
        )
        for n in range(30)
    ]  # fmt: skip
    history = hostile(long)
    history.failures = failures
    history.asked = {str(n): long for n in range(500)}
    history.damage = [long] * 500
    assert len(render_html(history).encode()) < 2_000_000
