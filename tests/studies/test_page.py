"""The page and the picture of a study hold what its JSON says."""

from __future__ import annotations

import html
import re
from itertools import pairwise

import pytest

from fanfold.errors import UsageError

TIMES = {
    1: [10.0, 10.4, 9.7], 2: [5.4, 5.5, 5.6], 4: [3.3, 3.2, 3.4], 8: [2.6, 2.7, 2.5],
}  # fmt: skip
PROFILES = {
    2: {"work": 10.2}, 4: {"work": 11.0, "cpu": 10.8, "idle": 0.6}, 8: {"work": 14.0, "idle": 2.0},
}  # fmt: skip

CHART = """
[...document.querySelectorAll('figure.curves')].map(figure => {
  const box = element => { const r = element.getBoundingClientRect();
    return {x: r.x + r.width / 2, y: r.y + r.height / 2, left: r.left, right: r.right,
            top: r.top, bottom: r.bottom} };
  const label = (selector, text) => box([...figure.querySelectorAll(selector)].find(
    found => found.textContent.trim() === text));
  const line = figure.querySelector('polyline.law');
  return {
    dots: [...figure.querySelectorAll('circle.dot title')].map(
      title => ({told: title.textContent, ...box(title.parentElement)})),
    one: label('.plot .grid text', '1').x, most: label('.plot .grid text', '8').x,
    lines: [...figure.querySelectorAll('.grid line')].filter(
      line => line.getAttribute('x2') === '100%').map(line => box(line).y),
    highest: figure.querySelector('svg[aria-hidden] text:last-of-type').textContent.trim(),
    law: line && [...line.points].map(point => [point.x, point.y]),
    band: line && [...figure.querySelector('polygon.band').points].map(point => [point.x, point.y])
  };
})
"""

STACKS = """
[...document.querySelectorAll('figure.stacks .plot g')].map(stack =>
  [...stack.querySelectorAll('rect')].map(part => ({
    kind: +part.classList[1].slice(5), width: part.getBoundingClientRect().width})))
"""


@pytest.fixture(autouse=True)
def nothing_left():
    """Not watched here: a browser's own processes come and go."""


@pytest.fixture(scope="module")
def study(study_of):
    return study_of(TIMES, profiles=PROFILES)


@pytest.fixture(scope="module")
def page(study, browser, tmp_path_factory):
    """The page, opened: quiet in the console, and nothing asked for but itself."""
    path = tmp_path_factory.mktemp("pages") / "scaling.html"
    browser.show(study.html(), path)
    assert browser.named("Log.entryAdded") == []
    assert browser.named("Runtime.exceptionThrown") == []
    asked = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
    assert asked == [path.as_uri()]
    return browser


@pytest.mark.parametrize("number", [0, 1], ids=["speed-up", "efficiency"])
def test_dots_are_the_runs(page, study, number):
    """Each run is a dot, at its number of workers and as high as its speed-up (efficiency)."""
    chart = page.evaluate(CHART)[number]
    rows = study.to_json()["workers"]
    base = rows[0]["seconds"]
    values = [
        (row["workers"], base / time / (1 if number == 0 else row["workers"]))
        for row in rows
        for time in row["times"]
    ]
    across = (chart["most"] - chart["one"]) / 7
    bottom, *_, top = chart["lines"]
    highest = float(chart["highest"]) if number == 0 else 1  # 100 %
    assert len(chart["dots"]) == len(values) == 12
    for dot, (workers, value) in zip(chart["dots"], values, strict=True):
        assert dot["x"] == pytest.approx(chart["one"] + (workers - 1) * across, abs=1)
        assert bottom - dot["y"] == pytest.approx((bottom - top) * value / highest, abs=1)


def test_law_and_band_are_the_json(page, study):
    """The curve and its band go through what the JSON tells of the law."""
    chart = page.evaluate(CHART)[0]
    record = study.to_json()
    end, most = float(chart["highest"]), 8
    half = len(chart["law"])
    low = {round(x, 4): y for x, y in chart["band"][half:]}
    high = {round(x, 4): y for x, y in chart["band"][:half]}
    for row in (record["workers"][0], record["workers"][-1]):
        at = row["workers"] / most
        ends = {round(x, 4): y for x, y in chart["law"]}
        assert (1 - ends[at]) * end == pytest.approx(row["law"]["speedup"], abs=0.01)
        assert (1 - low[at]) * end == pytest.approx(row["law"]["band"][0], abs=0.01)
        assert (1 - high[at]) * end == pytest.approx(min(end, row["law"]["band"][1]), abs=0.01)


def test_stacks_are_the_shares(page, study):
    """Each bar is as long as the worker-seconds, and divided as the JSON says."""
    stacks = page.evaluate(STACKS)
    rows = study.to_json()["workers"]
    whole = [row["workers"] * row["seconds"] for row in rows]
    widths = [sum(part["width"] for part in stack) for stack in stacks]
    for stack, row, seconds, width in zip(stacks, rows, whole, widths, strict=True):
        assert width == pytest.approx(max(widths) * seconds / max(whole), abs=1)
        shares = list(row["shares"].values())
        for part in stack:
            assert part["width"] == pytest.approx(width * shares[part["kind"]], abs=1)
    assert len(stacks[-1]) >= 4


def test_sentences_are_on_the_page(page, study):
    """All that is said stands on the page, and the table has a row for each number of workers."""
    text = " ".join(page.evaluate("document.querySelector('main').innerText").split())
    for sentence in study.to_json()["sentences"]:
        assert sentence in text
    rows = page.evaluate("document.querySelectorAll('section:last-of-type tbody tr').length")
    assert rows == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [320, 700, 1600])
def test_any_window(browser, study_of, tmp_path, window, scheme):
    """Nothing needs scrolling across, in small windows and with many numbers of workers, and the
    marks of an axis do not lie on one another."""
    times = {n: [10 / n**0.7, 10.2 / n**0.7, 9.9 / n**0.7] for n in (1, 2, 3, 4, 8, 16, 32, 64)}
    browser.show(study_of(times).html(), tmp_path / "page.html", width=window, scheme=scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") <= window
    marks = browser.evaluate(
        "[...document.querySelectorAll('figure.curves')].map(figure => "
        "[...figure.querySelectorAll('.plot .grid text')].map(text => { "
        "const box = text.getBoundingClientRect(); return [box.left, box.right]; }))"
    )
    for row in marks:
        for (_, right), (left, _) in pairwise(row):
            assert right < left


def test_markup_in_a_name_does_nothing(browser, study_of, tmp_path):
    """X08: a name with markup in it stays a name."""
    name = "</title><script>window.harmed = 1</script>"
    browser.show(study_of(TIMES, target=name).html(), tmp_path / "page.html")
    assert browser.evaluate("window.harmed") is None
    assert name in browser.evaluate("document.querySelector('h1').textContent")


def test_notebook(study):
    """A notebook shows the page in a frame of its own, where it may run nothing."""
    frame = study._repr_html_()
    (page,) = re.findall(r'^<iframe srcdoc="([^"]*)" sandbox ', frame)
    assert html.unescape(page) == study.html()


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_picture(study, tmp_path, kind):
    """The picture is a file of the kind its name says, and the same for the same study."""
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    paths = [study.plot(tmp_path / f"{name}.{kind}") for name in ("one", "two")]
    one, two = (path.read_bytes() for path in paths)
    assert one.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[kind])
    assert one == two
    if kind == "svg":
        assert "Scaling of work.f" in one.decode()


def test_picture_of_another_kind(study, tmp_path):
    """A picture of an unknown kind is refused with the kinds there are, and nothing is written."""
    with pytest.raises(UsageError, match=r"\.svg, \.png or \.pdf"):
        study.plot(tmp_path / "speed-up.bmp")
    assert list(tmp_path.iterdir()) == []
