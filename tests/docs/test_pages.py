"""The pages as they lie in the repository: links, and what goes with them."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import textwrap
from pathlib import Path

import click
import pytest

import fanfold as ff
from fanfold.cli import fanfold as command_line

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/notes/*.md")]
CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]+)\)")


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def anchors(page: Path) -> set[str]:
    """Those of the headings, made as forges that show Markdown make them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.S | re.M), re.M
    )
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_links_of_the_repository_lead_somewhere():
    """A relative link of a page is a file or a folder beside it, and its anchor a heading there."""
    assert len(PAGES) > 40
    broken = []
    for page in PAGES:
        for link in LINK.findall(CODE.sub("", text_of(page))):
            where, _, anchor = link.partition("#")
            target = (page.parent / where).resolve() if where else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_page_has_a_title():
    """A page begins with a heading, which is its name in the navigation, and has no second one."""
    for page in ROOT.glob("docs/**/*.md"):
        text = CODE.sub("", text_of(page))
        assert text.startswith("# "), page
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1, page


# Blocks that do not run, for what they need is not everywhere: a cluster, a GPU ------------------

BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$|\n\n((?: {4}.*\n)+)", re.DOTALL | re.MULTILINE)


def blocks(page):
    """The blocks of a page: the language, nothing where none is said, and the text."""
    return [(found[1] or "", found[2] or found[3]) for found in BLOCK.finditer(text_of(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_that_is_only_shown_could_run(page):
    """A block of Python that is no session compiles, and each `ff.name` in it is public."""
    for language, text in blocks(page):
        if language == "python" and ">>> " not in text:
            source = re.sub(r":$", ": ...", textwrap.dedent(text).rstrip())  # an excerpt may stop
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ff":
                    assert node.attr in ff.__all__, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_are_only_shown_could_run(page):
    """A command of fanfold that a page shows exists, with each of the options that it is given."""
    for language, text in blocks(page):
        commands = re.findall(r"^ *(?:\$ )?fanfold ([a-z]+.*)$", text, re.MULTILINE)
        for line in commands if language != "console" else ():
            tokens = shlex.shlex(line.split("   ")[0], posix=True, punctuation_chars=True)
            tokens.whitespace_split = True
            name, *words = itertools.takewhile(lambda word: not set(word) <= set("|>&;<"), tokens)
            command = command_line.commands[name]
            context = click.Context(command, **command.context_settings)
            command.make_parser(context).parse_args(words)


def test_the_citation_is_of_this_version():
    """CITATION.cff has what its schema (1.2.0) requires, and the version that is here."""
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra docs")
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(about)
    assert about["cff-version"] == "1.2.0"
    assert about["version"] == ff.__version__
    assert about["license"] == "MIT"


def test_the_changelog_tells_of_this_version():
    """The version that is here has its section, with a date, and the citation has the same."""
    found = re.search(rf"^## \[{re.escape(ff.__version__)}\] - (\d{{4}}-\d\d-\d\d)$",
                      text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)  # fmt: skip
    assert found
    assert f'date-released: "{found[1]}"' in (ROOT / "CITATION.cff").read_text()


def test_every_command_of_make_is_told():
    """Each target of the Makefile that `make help` lists is in CONTRIBUTING.md, and no other."""
    listed = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told = re.findall(r"^\| `make ([a-z]+)`", text_of(ROOT / "CONTRIBUTING.md"), re.MULTILINE)
    assert sorted(told) == sorted(set(listed) - {"help"})
