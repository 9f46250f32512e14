"""The exercises of the course, read from the table in docs/learn/index.md, and what pages show.

A *session* is a block of a page that begins with ``$``: commands, and what they print. It belongs
to the exercise whose example file it runs. ``pytest tests/learn --write-pages`` runs all of them,
and writes into the pages what they print, figures included.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fanfold.resources import cores

ROOT = Path(__file__).parents[2]
LEARN = ROOT / "docs" / "learn"

_ROW = re.compile(r"^\| (E\d+) \|[^|]*\| \[.*?\]\((.*?)\) \| \[.*?\]\((.*?)\) \| ?(\w*) ?\|$", re.M)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EXCUSED = re.compile(r"^<!-- not run: [^\n]+ -->\n+```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """One row of the table; ``needs`` names the fixture that it runs in, ``laptop`` by default."""

    name: str
    page: Path
    example: Path
    needs: str

    def __str__(self) -> str:
        return self.name

    def sessions(self) -> list[str]:
        """The blocks of the page that run the example, or a job script of its name."""
        named = str(self.example.relative_to(ROOT).with_suffix(""))
        shown = [text for _, text in blocks(self.page) if text not in excused(self.page)]
        return [text for text in shown if text.startswith("$ ") and named in text]

    def sources(self) -> list[str]:
        """The example, and the job scripts and plain versions that have its name."""
        paths = self.example.parent.glob(f"{self.example.stem}[._]*")
        return [path.read_text() for path in paths]


def exercises() -> list[Exercise]:
    """The rows of the table, in the order of the course."""
    rows = _ROW.findall((LEARN / "index.md").read_text())
    return [
        Exercise(name, LEARN / page, (LEARN / example).resolve(), needs or "laptop")
        for name, page, example, needs in rows
    ]


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: (language, text)."""
    return _BLOCK.findall(page.read_text()) if page.exists() else []


def excused(page: Path) -> list[str]:
    """The blocks of a page that tell why they are not run."""
    return _EXCUSED.findall(page.read_text()) if page.exists() else []


def commands(session: str) -> list[tuple[str, str]]:
    """The commands of a session, each with what it prints."""
    return _COMMAND.findall(session)


def write_machine() -> None:
    """Say in the index what the figures were measured on."""
    index = LEARN / "index.md"
    told = (
        f"Measured on {int(cores())} cores of {platform.system()} on {platform.machine()}, "
        f"Python {platform.python_version()}, NumPy {version('numpy')}, "
        f"{datetime.now(UTC):%d %B %Y}."
    )
    index.write_text(re.sub(r"Measured on [^.]*?(\.\d[^.]*?)*\.(?=\s)", told, index.read_text()))
