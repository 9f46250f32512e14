"""``fanfold doctor``: what works here, and what to do where something does not."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from fanfold import __version__
from fanfold.cli.options import duration, folder_option, json_option
from fanfold.doctor.findings import Finding, State

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["doctor_command", "doctor_lines"]

_WORDS: dict[State, str] = {"works": "works", "absent": "not here", "broken": "BROKEN"}
_COLOURS: dict[State, str] = {"works": "green", "broken": "red", "warning": "yellow"}
_NARROWEST, _WIDEST = 40, 100  # columns


@click.command("doctor")
@click.option("--place", "places", multiple=True, metavar="NAME", help="Try this one alone.")
@click.option(
    "--timeout", metavar="TIME", callback=duration, default="30s", help="For each place. [30s]"
)
@folder_option
@click.option("--queue", metavar="NAME", help="Of the job that tries a scheduler.")
@click.option("--account", metavar="NAME", help="Who pays for that job.")
@json_option
def doctor_command(
    places: tuple[str, ...],
    timeout: float,
    folder: str,
    queue: str | None,
    account: str | None,
    as_json: bool,
) -> int:
    """Tell which places work here, and why the others do not.

    Nothing is guessed: in every place a few tasks are run, and on a scheduler that is here a job
    of one core, which is cancelled when it has to wait too long. Then come the things of this
    machine that runs depend on. After $ stands the command that would mend what is above it.

    Exit status: 0 all that is here works, 1 something is broken.
    """
    from rich.console import Console  # late: other commands need neither

    from fanfold.doctor.examine import examine

    if sys.stderr.isatty():
        tried = " and ".join(places) or "every place"
        click.echo(f"fanfold: trying {tried}, {timeout:g} s at most ...", err=True)
    findings = examine(places, folder=folder, limit=timeout, queue=queue, account=account)
    if as_json:
        told = [finding._asdict() for finding in findings]
        click.echo(json.dumps({"fanfold": __version__, "findings": told}))
    else:
        width = min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)
        console = Console(highlight=False)
        for line in doctor_lines(findings, width):
            console.print(line, soft_wrap=True)
    return int(any(finding.state == "broken" for finding in findings))


def doctor_lines(findings: Sequence[Finding], width: int) -> Iterator[Text]:
    """The page; no line but a command is wider than ``width``."""
    from rich.text import Text

    places = [finding for finding in findings if finding.kind == "place"]
    machine = [finding for finding in findings if finding.kind == "machine"]
    yield Text("Places where tasks can run")
    yield from _table(places, width)
    if machine:
        yield Text()
        yield Text("This machine")
        yield from _table(machine, width)
    yield Text()
    yield from map(Text, textwrap.wrap(_verdict(places, machine), width))


def _table(findings: Sequence[Finding], width: int) -> Iterator[Text]:
    """A line for each, or a few: a sign, the name, the state in a word, what there is to say."""
    from rich.text import Text

    names = max(len(finding.name) for finding in findings)
    states = max(len(_WORDS.get(finding.state, "")) for finding in findings)
    for finding in findings:
        sign = "!" if finding.state in ("broken", "warning") else " "
        label = f"{sign} {finding.name:<{names}}  "
        if states:
            label += f"{_WORDS.get(finding.state, ''):<{states}}  "
        gap = " " * len(label)
        first, *rest = textwrap.wrap(
            finding.what, width - len(gap), break_on_hyphens=False, break_long_words=False
        ) or [""]
        yield Text.assemble((label, _COLOURS.get(finding.state, "")), first)
        yield from (Text(f"{gap}{line}") for line in rest)
        if finding.remedy:
            yield Text(f"{gap}$ {finding.remedy}")


def _verdict(places: Sequence[Finding], machine: Sequence[Finding]) -> str:
    working = sum(finding.state == "works" for finding in places)
    said = [f"{working} of {len(places)} places {'works' if working == 1 else 'work'} here"]
    broken = [finding.name for finding in (*places, *machine) if finding.state == "broken"]
    if broken:
        said.append(f"broken: {', '.join(broken)}")
    warned = [finding.name for finding in machine if finding.state == "warning"]
    if warned:
        said.append(f"worth a look: {', '.join(warned)}")
    return "; ".join(said)
