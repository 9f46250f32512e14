"""The site of the documentation, built once, and the browser of the reports."""

from __future__ import annotations

import html.parser
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.reports.conftest import browser  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]

# Whoever looks up a name, or connects to an address, ends with an error.
BUILD = """
import sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        raise OSError(f"the build wants the network: {event} {arguments}")

sys.addaudithook(refuse)
from mkdocs.__main__ import cli
cli(["build", "--strict", "--config-file", sys.argv[1], "--site-dir", sys.argv[2]])
"""


@dataclass
class Site:
    """The built site: its folder, and what the build said."""

    folder: Path
    said: str

    def pages(self) -> list[Path]:
        """Every page but the one for addresses that do not exist: its links are absolute."""
        return sorted(set(self.folder.rglob("*.html")) - {self.folder / "404.html"})


@dataclass
class Page(html.parser.HTMLParser):
    """What a page refers to: its links, what it loads, and the anchors it has."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text("utf-8"))
    return page


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Built as `make docs` builds it, with the network refused."""
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, ROOT / "mkdocs.yml", folder],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},  # as in the Makefile: news of its makers
    )
    assert done.returncode == 0, done.stderr
    return Site(folder, done.stderr)
