"""The site of the documentation: it builds clean, needs no network, and no link is broken."""

from __future__ import annotations

import re
from urllib.parse import unquote, urldefrag

import pytest
from tests.docs.conftest import read

import fanfold as ff
from fanfold.cli import fanfold as command_line

ELSEWHERE = re.compile(r"[a-z]+:|//")


@pytest.fixture
def nothing_left() -> None:
    """Not watched here: a browser's own processes come and go."""


def test_the_build_is_clean(site):
    """The site is built without a warning and without a network: no name is asked for."""
    assert "WARNING" not in site.said
    assert "not included in the" not in site.said


def test_every_page_is_in_the_navigation(site):
    """Every page of docs/, and each generated one, can be reached from any page by the menu.

    Files of the repository that pages link to are no part of it.
    """
    listed = {urldefrag(link).url for link in read(site.folder / "index.html").links}
    there = {page.relative_to(site.folder).as_posix() for page in site.pages()}
    pages = {page for page in there if not page.startswith("source/")}
    assert len(pages) > 30
    assert pages <= listed


def test_no_link_is_broken(site):
    """Every link within the site leads to a file of it, and to an anchor that the file has."""
    pages = {page: read(page) for page in site.pages()}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if ELSEWHERE.match(link):
                continue
            where, anchor = urldefrag(unquote(link))
            target = (path.parent / where).resolve() if where else path
            found = target.is_file() and (not anchor or anchor in pages[target].anchors)
            if not found:
                broken.append((path.name, link))
    assert broken == []


def test_pages_load_nothing_from_elsewhere(site):
    """No script, style, letter or picture comes from another host."""
    for path in site.pages():
        page = read(path)
        assert page.loads
        assert [load for load in page.loads if ELSEWHERE.match(load)] == [], path
    for style in site.folder.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", style.read_text("utf-8")), style


@pytest.mark.parametrize("name", ["index.html", "reference/python.html", "design/pool.html"])
def test_a_page_opens_quietly(site, browser, name):
    """In a browser a page has no error in the console, and asks for nothing but files beside it."""
    path = site.folder / name
    browser.show(path.read_text("utf-8"), path)
    for told in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        assert browser.named(told) == []
    asked = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
    assert path.as_uri() in asked
    assert all(url.startswith((site.folder.as_uri(), "data:")) for url in asked), asked
    assert browser.evaluate("document.querySelector('h1').textContent")


def test_the_reference_has_every_public_name(site):
    """Each public name has its entry in the reference, once, with what its docstring says."""
    page = (site.folder / "reference/python.html").read_text("utf-8")
    names = set(ff.__all__) - {"__version__"}
    anchors = re.findall(r'<h\d id="([^"]+)"', page)
    for name in names:
        entries = anchors.count(f"fanfold.{name}") + anchors.count(f"fanfold.errors.{name}")
        assert entries == 1, f"{name} has {entries} entries in docs/reference/python.md"
    assert "on many workers: results in the order of the inputs" in page


def test_doctests_are_shown_as_sessions(site):
    """A doctest of a docstring is a block of code on the page, and not a quotation."""
    page = (site.folder / "reference/python.html").read_text("utf-8")
    assert "<blockquote>" not in page
    assert page.count('<span class="gp">&gt;&gt;&gt;') >= 20


def test_the_reference_has_every_command(site):
    """Each command of the shell has its --help on the page of the commands."""
    page = (site.folder / "reference/commands.html").read_text("utf-8")
    for name in command_line.commands:
        assert f"Usage: fanfold {name}" in page
    assert page.count("-h, --help") == len(command_line.commands)


def test_a_file_of_the_repository_is_a_page_too(site):
    """A link to an example leads, on the site, to a page with its text."""
    page = (site.folder / "source/examples/pi.py.html").read_text("utf-8")
    assert "throw" in page
    assert "../source/examples/pi.py.html" in read(site.folder / "guides/scaling-study.html").links
