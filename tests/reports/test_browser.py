"""The page in a real browser: the picture holds what the history says."""

from __future__ import annotations

import time

import pytest

import fanfold as ff
from fanfold.history import History, Piece, Session
from fanfold.reports import render_html

BEGAN = 1_790_000_000.0

LANES = """
[...document.querySelectorAll('figure.timeline')].map(figure => {
  const plot = figure.querySelector('svg.plot').getBoundingClientRect();
  return {
    names: [...figure.querySelectorAll('.names li')].map(item => ({
      text: item.textContent, y: item.getBoundingClientRect().y})),
    shares: [...figure.querySelectorAll('.shares li')].map(item => item.textContent),
    left: plot.left, width: plot.width,
    lanes: [...figure.querySelectorAll('g[data-lane]')].map(lane =>
      [...lane.querySelectorAll('.bar')].map(bar => {
        const box = bar.getBoundingClientRect();
        return {left: box.left, right: box.right, top: box.top, bottom: box.bottom,
                first: +bar.dataset.first, tasks: +bar.dataset.tasks,
                failed: bar.classList.contains('failed'),
                fill: getComputedStyle(bar).fill};
      }))
  };
})
"""

# Every piece of text that can be seen, with the box it is seen in: what overflow hides is cut off.
TEXTS = """
(() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(), of = 0; node; node = walker.nextNode(), of++) {
    const parent = node.parentElement;
    if (!node.textContent.trim() || parent.closest('title') || !parent.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const line of range.getClientRects()) {
      const box = {left: line.left, right: line.right, top: line.top, bottom: line.bottom};
      for (let up = parent; up; up = up.parentElement) {
        const overflow = getComputedStyle(up).overflowX;
        if (overflow === 'hidden' || overflow === 'auto') {
          const clip = up.getBoundingClientRect();
          box.left = Math.max(box.left, clip.left);
          box.right = Math.min(box.right, clip.right);
        }
      }
      if (box.right - box.left > 0.5) found.push({text: node.textContent.trim(), of, ...box});
    }
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def show(browser, tmp_path_factory):
    """Opens the page of a history, and holds what is true of every page.

    It is quiet in the console, asks for nothing but itself, needs no scrolling across, and no text
    lies on another or outside the window.
    """
    path = tmp_path_factory.mktemp("pages") / "report.html"

    def show(history, **window):
        browser.show(render_html(history), path, **window)
        assert browser.named("Log.entryAdded") == []
        assert browser.named("Runtime.consoleAPICalled") == []
        assert browser.named("Runtime.exceptionThrown") == []
        asked = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
        assert asked == [path.as_uri()]
        width = browser.evaluate("innerWidth")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        texts = browser.evaluate(TEXTS)
        assert texts
        for text in texts:
            assert text["left"] >= 0, text
            assert text["right"] <= width + 0.5, text
        assert overlapping(texts) == []
        return browser

    return show


def overlapping(texts):
    """Pairs of texts that lie on one another by more than a pixel."""
    found = []
    ordered = sorted(texts, key=lambda text: text["top"])
    for position, one in enumerate(ordered):
        for other in ordered[position + 1 :]:
            if other["top"] >= one["bottom"] - 3:  # letters do not fill the height of their line
                break
            across = min(one["right"], other["right"]) - max(one["left"], other["left"])
            if across > 1 and one["of"] != other["of"]:  # an ellipsis divides a text in two
                found.append((one, other))
    return found


def test_overlap_is_found(browser, tmp_path):
    """The check for texts on one another finds one."""
    page = "<p>one</p><p style='margin-top:-40px'>two</p>"
    browser.show(page, tmp_path / "page.html")
    assert len(overlapping(browser.evaluate(TEXTS))) == 1


def pieces_by_lane(history):
    """The pieces of each worker in the order of their begin, workers by number."""
    lanes = {}
    for piece in sorted(history.pieces, key=lambda piece: piece.began):
        lanes.setdefault(int(piece.worker.split()[1]), []).append(piece)
    return [lanes[number] for number in sorted(lanes)]


@pytest.mark.parametrize("window", [1200, 380], ids=["wide", "narrow"])
@pytest.mark.parametrize(
    ("tasks", "workers", "seconds"),
    [(1, 1, 5.0), (3, 2, 0.001), (20, 2, 1.0), (40, 8, 7200.0), (128, 64, 86400.0)],
)
def test_timeline_is_the_history(show, simulate, tasks, workers, seconds, window):
    """Each worker has its bars in order, where and as long as its tasks were, and idle between."""
    history = simulate(5, tasks=tasks, workers=workers, seconds=seconds, pause=0.5)
    (chart,) = show(history, width=window).evaluate(LANES)
    expected = pieces_by_lane(history)
    began, ended = history.sessions[0].began, history.sessions[0].ended
    assert [name["text"] for name in chart["names"]] == [lane[0].worker for lane in expected]
    assert [len(lane) for lane in chart["lanes"]] == [len(lane) for lane in expected]
    for name, lane, pieces in zip(chart["names"], chart["lanes"], expected, strict=True):
        for bar, piece in zip(lane, pieces, strict=True):
            left = chart["left"] + chart["width"] * (piece.began - began) / (ended - began)
            length = chart["width"] * piece.seconds / (ended - began)
            assert bar["first"] == piece.first
            assert bar["left"] == pytest.approx(left, abs=1)
            assert bar["right"] - bar["left"] == pytest.approx(length, abs=1)
            assert name["y"] <= bar["top"] < bar["bottom"] <= name["y"] + 28
        for bar, after, piece, later in zip(lane, lane[1:], pieces, pieces[1:], strict=False):
            idle = chart["width"] * (later.began - piece.began - piece.seconds) / (ended - began)
            assert after["left"] - bar["right"] == pytest.approx(idle, abs=1)


def nap(seconds):
    time.sleep(seconds)


def test_picture_of_a_real_run(show, tmp_path):
    """The bars of a run that has really been are what its journal says."""
    naps = [0.05, 0.3, 0.1, 0.2, 0.15, 0.25]
    run = ff.run(nap, naps, name="naps", folder=tmp_path, on="threads", workers=2).wait()
    history = run.history()
    page = show(history)
    (chart,) = page.evaluate(LANES)
    bars = {bar["first"]: bar for lane in chart["lanes"] for bar in lane}
    assert sorted(bars) == list(range(6))
    (session,) = history.sessions
    pixels = chart["width"] / (session.ended - session.began)
    for piece in history.pieces:
        bar = bars[piece.first]
        assert piece.seconds >= naps[piece.first]
        assert bar["right"] - bar["left"] == pytest.approx(pixels * piece.seconds, abs=1)
        assert bar["left"] - chart["left"] == pytest.approx(
            pixels * (piece.began - session.began), abs=1
        )
    assert page.evaluate("document.querySelector('.state').textContent") == "✓ done"


def test_failed_tasks_look_different(show, simulate):
    """A failed attempt is hatched, not only coloured, and counted on its bar."""
    history = simulate(6, tasks=40, workers=3, failing=0.3, retries=1)
    (chart,) = show(history).evaluate(LANES)
    bars = [bar for lane in chart["lanes"] for bar in lane]
    shown = {bar["first"] for bar in bars if bar["failed"]}
    assert shown == {piece.first for piece in history.pieces if not piece.ok}
    assert sum(bar["tasks"] for bar in bars) == len(history.pieces)
    assert all(bar["right"] - bar["left"] > 2 for bar in bars if bar["failed"])
    wide = [bar for bar in bars if bar["right"] - bar["left"] > 6]
    assert all(bar["failed"] == ("url" in bar["fill"]) for bar in wide)


def test_columns_are_the_distribution(show, simulate):
    """The columns of the histogram hold every attempt, and are as high as their counts."""
    history = simulate(7, tasks=1000, workers=8, failing=0.1)
    columns = show(history).evaluate(
        "[...document.querySelectorAll('figure.histogram')].map(figure => "
        "[...figure.querySelectorAll('.bar')].map(bar => "
        "[+bar.dataset.count, bar.getBoundingClientRect().height]))"
    )
    assert len(columns) == 2  # times and memory
    for bars in columns:
        assert sum(count for count, _ in bars) == len(history.pieces)
        highest, height = max(bars)
        for count, pixels in bars:
            assert pixels == pytest.approx(max(2, height * count / highest), abs=1)


def test_proportion_is_the_states(show, simulate):
    """The bar of the states is divided as the tasks are, and its legend sums to the total."""
    history = simulate(8, tasks=100, workers=4, failing=0.2, stop=70, why="interrupted")
    parts = show(history).evaluate(
        "[...document.querySelectorAll('.proportion rect[data-value]')].map(part => "
        "[+part.dataset.value, part.getBoundingClientRect().width])"
    )
    assert [value for value, _ in parts] == [history.done, history.failed, history.missing]
    whole = sum(width for _, width in parts)
    for value, width in parts:
        assert width == pytest.approx(whole * value / history.total, abs=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [320, 700, 1600])
def test_every_kind_of_run(show, simulate, scheme, window):
    """Small, large, failing, running and empty runs are legible in any window and scheme."""
    for history in (
        simulate(1, tasks=0),
        simulate(2, tasks=3, workers=1, seconds=0.001),
        simulate(3, tasks=1000, workers=8, failing=0.2, retries=2),
        simulate(4, tasks=300, workers=64, seconds=40_000, stop=200, why="running"),
        simulate(5, tasks=50_000, workers=4, seconds=0.0002, together=50),
    ):
        show(history, width=window, scheme=scheme)


def test_contrast(show, simulate):
    """Letters stand out from what is behind them by 4.5 to 1, in both schemes (WCAG AA)."""
    history = simulate(3, tasks=30, failing=0.3)
    history.damage.append("line 17 is damaged: 1 record is lost")
    for scheme in ("light", "dark"):
        worst = show(history, scheme=scheme).evaluate(CONTRAST)
        assert worst["ratio"] >= 4.5, worst


CONTRAST = """
(() => {
  const parse = colour => colour.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(
    c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
  ).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  let worst = {ratio: 21};
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest('title')) continue;
    const style = getComputedStyle(element);
    let up = element;
    while (parse(getComputedStyle(up).backgroundColor)[3] === 0) up = up.parentElement;
    const ink = light(parse(element.closest('svg') ? style.fill : style.color));
    const page = light(parse(getComputedStyle(up).backgroundColor));
    const ratio = (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
    if (ratio < worst.ratio) worst = {ratio, text: element.textContent.trim().slice(0, 60)};
  }
  return worst;
})()
"""


def test_print(show, simulate):
    """Printed, what is folded away on the screen is there, and the charts keep their size."""
    history = simulate(9, tasks=200, workers=4, failing=0.3)
    browser = show(history, media="print", width=760)
    hidden = browser.evaluate(
        "[...document.querySelectorAll('details:not(.table) pre')]"
        ".filter(code => !code.checkVisibility()).length"
    )
    assert hidden == 0
    unfolded = show(history).evaluate(
        "[...document.querySelectorAll('details:not(.table) pre')]"
        ".filter(code => code.checkVisibility()).length"
    )
    assert unfolded == 1
    browser = show(history, media="print", width=760)
    assert browser.call("Page.printToPDF")["data"].startswith("JVBERi")


def test_hostile_strings_do_nothing(show):
    """X08: markup in names, inputs, errors and logs neither runs nor becomes part of the page."""
    text = (
        "<script>window.harmed=1</script><img src=x onerror=window.harmed=1>"
        "\"'><svg onload=window.harmed=1></title></style></pre>"
    )
    pieces = [
        Piece(n, 1, text, f"{text}{n}", 1, BEGAN + n, 0.5, 0.1, 1 << 20, True) for n in range(6)
    ]
    history = History(
        text, text, text, 6, 2, BEGAN, 6, 0, 0, {text: text}, pieces, [],
        [Session(text, text, 1, BEGAN, BEGAN + 20, text)], [text],
    )  # fmt: skip
    page = show(history)
    assert page.evaluate("window.harmed") is None
    assert page.evaluate("document.querySelectorAll('script, img, iframe').length") == 0
    assert page.evaluate("document.querySelector('h1 .name').textContent").startswith("<script>")


def test_script_would_not_run(browser, tmp_path, simulate):
    """Were markup to come through nevertheless, the page's policy would stop it."""
    page = render_html(simulate(1))
    harm = "<script>window.harmed=1</script><img src=x onerror='window.harmed=1'>"
    assert "</main>" in page
    browser.show(page.replace("</main>", f"{harm}</main>"), tmp_path / "page.html")
    assert browser.evaluate("document.querySelectorAll('script').length") == 1
    assert browser.evaluate("window.harmed") is None
    assert len(browser.named("Log.entryAdded")) >= 2


def test_charts_have_a_table(show, simulate):
    """Each chart has a name for those who hear the page, and its facts as a table."""
    page = show(simulate(2, tasks=40, failing=0.1))
    charts = page.evaluate(
        "[...document.querySelectorAll('figure:has(svg[role=img])')].map(figure => "
        "[figure.querySelector('svg[role=img]').getAttribute('aria-label'), "
        "figure.matches('.proportion') || figure.querySelectorAll('details table').length === 1])"
    )
    assert len(charts) == 4
    assert all(label and table for label, table in charts)
