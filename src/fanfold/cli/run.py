"""``fanfold run``: one task an input."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shlex import quote as quoted
from time import perf_counter
from typing import Any

import click

from fanfold.cli.inputs import Inputs, collect_inputs
from fanfold.cli.options import duration, whole_number
from fanfold.cli.results import (
    JsonLines,
    check_out,
    print_table,
    results_only,
    tabulate,
    write_out,
)
from fanfold.cli.summary import failure_lines, shown_name, summary_lines
from fanfold.cli.target import check_arguments, load_target
from fanfold.dispatch import Event
from fanfold.errors import RunChanged
from fanfold.runs.identity import FilePolicy
from fanfold.runs.prepare import Request, Resume
from fanfold.runs.run import FOLDER, Run, begin
from fanfold.tasks import Outcome, Report

__all__ = ["run_command"]

PLACES = ("auto", "local", "serial", "threads", "processes")


@click.command("run")
@click.argument("target")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option("--range", "range_text", metavar="A-B:STEP", help="Numbers: 1-100:3 or 1,4,7-9.")
@click.option("--over", metavar="FILE", help="A task for each row of a .csv or .jsonl table.")
@click.option("--param", "params", multiple=True, metavar="NAME=V,V", help="Values of a keyword.")
@click.option("--str", "as_text", multiple=True, metavar="COLUMN", help="Keep a column as text.")
@click.option("--on", type=click.Choice(PLACES), default="auto", help="Where the tasks run.")
@click.option("--workers", metavar="N", callback=whole_number(1), help="Tasks at once. [all cores]")
@click.option("--retries", metavar="N", callback=whole_number(0), default="0", help="More tries.")
@click.option("--timeout", metavar="TIME", callback=duration, help="Longest task: 60s, 1h30m.")
@click.option("--seed", metavar="N", callback=whole_number(0), help="Makes ff.rng() repeatable.")
@click.option(
    "--errors",
    type=click.Choice(["return", "raise"]),
    default="return",
    help="After a failure go on (return, the default) or stop (raise).",
)
@click.option("--out", metavar="FILE", help="Write the results: .csv, .jsonl or .json.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines instead of a table.")
@click.option("--quiet", is_flag=True, help="No progress and no summary; failures are still told.")
@click.option("--progress/--no-progress", default=None, help="Tell progress. [when it takes long]")
@click.option("--name", help="Of the run: the same name goes on where it stands.")
@click.option("--dir", "folder", default=FOLDER, metavar="FOLDER", help=f"Of the runs. [{FOLDER}]")
@click.option(
    "--resume",
    type=click.Choice(["ask", "anyway", "fresh"]),
    default="ask",
    help="When the function has changed: keep what is done (anyway), or run all (fresh).",
)
@click.option(
    "--files",
    type=click.Choice(["stat", "hash", "ignore"]),
    default="stat",
    help="How files among the inputs are seen to change: time and size, content, not at all.",
)
@click.option("--package", "packages", multiple=True, help="Its version is part of the function.")
@click.option("--steal", is_flag=True, help="Take a run over from a driver on another host.")
@click.option("--trust", is_flag=True, help="Go on with a run that others could have written.")
def run_command(
    target: str,
    inputs: tuple[str, ...],
    range_text: str | None,
    over: str | None,
    params: tuple[str, ...],
    as_text: tuple[str, ...],
    errors: str,
    out: str | None,
    as_json: bool,
    quiet: bool,
    progress: bool | None,
    seed: int | None,
    name: str | None,
    folder: str,
    resume: Resume,
    files: FilePolicy,
    packages: tuple[str, ...],
    steal: bool,
    trust: bool,
    **options: Any,
) -> int:
    """Run a function over many inputs, a task each, on all cores.

    TARGET is file.py:function or package.module:function.

    \b
      fanfold run pi.py:count_inside --range 1-100 --seed 7
      fanfold run flights.py:longest_delay data/*.csv
      fanfold run model.py:fit --over table.csv --out results.csv
      fanfold run model.py:fit --param rate=0.1,0.2 --param depth=1,2,3

    The function gets an INPUT as its one argument, and the row of a table or a combination of
    --param values as keyword arguments. Text becomes whole numbers, numbers or true/false where
    the whole column allows it; 007 is no number. INPUTs are one column, named input, and stay
    text unless all of them are numbers; --str input keeps them as they are. Put -- before inputs
    that begin with a dash.

    Everything is kept in a folder, fanfold-runs/NAME: whatever dies meanwhile, the same command
    goes on where it stands. What tasks print is there too: fanfold logs NAME.

    Results go to standard output, everything else to standard error. Exit status: 0 all done,
    1 a task failed, 2 the command was wrong, 130 interrupted.
    """
    given = collect_inputs(inputs, range_text, over, params, as_text)
    if out is not None:
        check_out(out)
    with results_only() as output:
        function = load_target(target)
        check_arguments(function, target, given)
        place, _, attribute = target.rpartition(":")
        on = "processes" if options["on"] in ("auto", "local") else options["on"]
        request = Request(
            function,
            given.items,
            Path(folder),
            {**options, "errors": errors, "on": on},
            name,
            target=target,
            key=command_key(target, inputs, range_text, over, params, as_text, seed),
            stem=f"{Path(place).stem}.{attribute}",
            style=given.style,
            columns=given.columns,
            seed=seed,
            resume=resume,
            files=files,
            packages=packages,
            command=sys.argv[1:],
            trust=trust,
        )
        lines = JsonLines(given, output) if as_json else None
        work = Work(given, lines.add if lines else None)
        work.run(request, quiet=quiet, progress=False if quiet else progress, steal=steal)
        written = _write(work, out)
        if lines:
            lines.finish()
        else:
            print_table(tabulate(given, work.in_order(), errors=False), output)
    _tell(work, quiet)
    return work.status if written else max(work.status, 1)


def command_key(*parts: object) -> str:
    """What tells the same command again, given in the same folder."""
    return hashlib.blake2b(repr((os.getcwd(), parts)).encode(), digest_size=8).hexdigest()


@dataclass
class Work:
    """The tasks of a command, and what is known of them when they end or are interrupted.

    ``earlier`` counts the outcomes that were there before.
    """

    inputs: Inputs
    on_outcome: Callable[[Outcome], None] | None
    outcomes: list[Outcome] = field(default_factory=list)
    earlier: int = 0
    name: str = ""
    wall_time: float = 0.0
    interrupted: bool = False

    def run(self, request: Request, *, quiet: bool, progress: bool | None, steal: bool) -> None:
        start = partial(begin, progress=progress, listeners=[self], steal=steal)
        began = perf_counter()
        try:
            try:
                run, notes = start(request)
            except RunChanged as changed:
                run, notes = start(request._replace(resume=_ask(changed)))
            self._note(run)
            if not quiet:
                _tell_begin(self, notes)
            run.drive()
        except KeyboardInterrupt:
            self.interrupted = True
        self.wall_time = perf_counter() - began

    def _note(self, run: Run) -> None:
        """What is done before this command."""
        self.name = run.name
        for outcome in run.before():
            self._add(outcome)
        self.earlier = len(self.outcomes)

    def __call__(self, event: Event) -> None:
        """A listener of the run."""
        if isinstance(event, Report):
            for outcome in event.outcomes():
                self._add(outcome)

    def _add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if self.on_outcome is not None:
            self.on_outcome(outcome)

    def in_order(self) -> list[Outcome]:
        return sorted(self.outcomes, key=lambda outcome: outcome.index)

    @property
    def status(self) -> int:
        if self.interrupted:
            return 130
        return 0 if all(outcome.ok for outcome in self.outcomes) else 1


def _ask(changed: RunChanged) -> Resume:
    """What to do with what is done; raises the question where nobody can answer it."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise changed
    click.echo(f"fanfold: {changed}", err=True)
    answer = click.prompt(
        "Keep the results (anyway), run all (fresh), or stop?",
        type=click.Choice(["anyway", "fresh", "stop"]),
        err=True,
    )
    if answer == "stop":
        raise click.Abort
    return "anyway" if answer == "anyway" else "fresh"


def _tell_begin(work: Work, notes: list[str]) -> None:
    for note in notes:
        click.echo(f"fanfold: {note}", err=True)
    if work.earlier:
        done = sum(outcome.ok for outcome in work.outcomes)
        name, total = shown_name(work.name), len(work.inputs.items)
        click.echo(f"fanfold: run {name} goes on: {done} of {total} tasks are done", err=True)


def _write(work: Work, out: str | None) -> bool:
    """Write what ended into the file; a file that cannot be written costs no printed result."""
    if out is None or not work.outcomes:
        return True
    try:
        write_out(out, work.inputs, work.in_order())
    except OSError as error:
        click.echo(f"fanfold: --out {out} is not written: {error.strerror}", err=True)
        return False
    return True


def _tell(work: Work, quiet: bool) -> None:
    for line in failure_lines(work.inputs, work.in_order()):
        click.echo(line, err=True)
    if not quiet:
        summary = summary_lines(
            work.inputs,
            work.outcomes,
            work.outcomes[work.earlier :],
            work.wall_time,
            interrupted=work.interrupted,
        )
        name = shown_name(work.name)
        kept = f"kept as {name}: fanfold report {quoted(name)}"
        if work.interrupted:
            kept = f"kept as {name}: the same command goes on"
        click.echo("\n".join(["", *summary, kept]), err=True)
