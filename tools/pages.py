"""Hooks of mkdocs: what the site shows beyond the pages in docs/ (see mkdocs.yml).

A page may link to any file of the repository, as `[pi.py](../examples/pi.py)`. Such a file becomes
a page under source/, and the link leads there. So one link serves readers of both.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/<])([^)#\s]+)(?=[#)])")
CODE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
WIDTH = 86  # columns of a page
LANGUAGES = {".py": "python", ".pbs": "bash", ".sh": "bash", ".json": "json", ".toml": "toml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let "folder/" in the navigation stand for the pages in it."""
    config.nav = [_expanded(entry, Path(config.docs_dir)) for entry in config.nav or []]
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(below, docs) for title, below in entry.items()}
    if isinstance(entry, list):
        return [_expanded(below, docs) for below in entry]
    if entry.endswith("/"):
        pages = (path.relative_to(docs).as_posix() for path in (docs / entry).glob("*.md"))
        return sorted(pages, key=lambda page: (not page.endswith("/index.md"), page))
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the commands, and the files of the repository that pages link to."""
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    names = ["CONTRIBUTING.md", "CHANGELOG.md"]
    names += [name for file in files.documentation_pages() for name in _linked(file)]
    while names:
        name = names.pop()
        if files.get_file_from_path(_uri(name)) is None and (ROOT / name).is_file():
            files.append(file := _source(name, config))
            names += _linked(file)
    return files


def _linked(file: File) -> Iterator[str]:
    """The files of the repository, outside of docs/, that a page links to."""
    for match in LINK.finditer(CODE.sub("", file.content_string)):
        name = _name(file.src_uri, match[0])
        if not name.startswith("docs/"):
            yield name


def _source(name: str, config: MkDocsConfig) -> File:
    """The page of a file of the repository."""
    text = (ROOT / name).read_text()
    if name.endswith(".ipynb"):
        text = "\n\n".join(_cells(text))
    elif not name.endswith(".md"):
        text = f"# {name}\n\n````{LANGUAGES.get(Path(name).suffix, 'text')}\n{text}````\n"
    return File.generated(config, _uri(name), content=text, inclusion=InclusionLevel.NOT_IN_NAV)


def _cells(notebook: str) -> Iterator[str]:
    """The cells of a notebook: text as it is, code and what it printed as blocks."""
    for cell in json.loads(notebook)["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"````python\n{source}\n````"
        for output in cell.get("outputs", ()):
            printed = output.get("text") or output.get("data", {}).get("text/plain", "")
            if text := "".join(printed).rstrip():
                yield f"````text\n{text}\n````"


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Lead links to where the site has the file, and colour sessions as such."""
    here = page.file.src_uri

    def led(match: re.Match[str]) -> str:
        return posixpath.relpath(_uri(_name(here, match[0])), posixpath.dirname(here) or ".")

    return re.sub(r"^```python(?=\n>>> )", "```pycon", LINK.sub(led, markdown), flags=re.MULTILINE)


def _name(page: str, link: str) -> str:
    """Where in the repository a link of a page of the site leads."""
    own = page.removeprefix("source/") if page.startswith("source/") else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(own), link))


def _uri(name: str) -> str:
    """Where on the site a file of the repository is."""
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return f"source/{name}" if name.endswith(".md") else f"source/{name}.md"


def commands() -> str:
    """The page of the commands, from what each says for --help."""
    import click

    from fanfold.cli import fanfold

    parts = ["# The command line", "What `fanfold COMMAND --help` prints, for every command."]
    with click.Context(fanfold, info_name="fanfold", **fanfold.context_settings) as whole:
        for name, command in sorted(fanfold.commands.items()):
            asked = click.Context(command, whole, name, terminal_width=WIDTH)
            parts += [f"## fanfold {name}", f"```text\n{command.get_help(asked)}\n```"]
    return "\n\n".join([*parts, ""])
