"""``fanfold run``: one task an input."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
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
from fanfold.cli.summary import failure_lines, summary_lines
from fanfold.cli.target import check_arguments, load_target
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
    on: str,
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

    Results go to standard output, everything else to standard error. Exit status: 0 all done,
    1 a task failed, 2 the command was wrong, 130 interrupted.
    """
    given = collect_inputs(inputs, range_text, over, params, as_text)
    if out is not None:
        check_out(out)
    with results_only() as output:
        function = load_target(target)
        check_arguments(function, target, given)
        lines = JsonLines(given, output) if as_json else None
        work = _Work(given, on_outcome=lines.add if lines else None, stop=errors == "raise")
        place = "auto" if on == "local" else on
        work.run(function, on=place, progress=False if quiet else progress, **options)
        written = _write(work, out)
        if lines:
            lines.finish()
        else:
            print_table(tabulate(given, work.outcomes, errors=False), output)
    _tell(work, quiet)
    return work.status if written else max(work.status, 1)


@dataclass
class _Work:
    """The tasks of a command, and what is known of them when they end or are interrupted."""

    inputs: Inputs
    on_outcome: Callable[[Outcome], None] | None
    stop: bool
    outcomes: list[Outcome] = field(default_factory=list)
    wall_time: float = 0.0
    interrupted: bool = False

    def run(self, function: Callable[..., Any], **options: Any) -> None:
        from fanfold.api import reports

        began = perf_counter()
        arriving = reports(function, self.inputs.items, style=self.inputs.style, **options)
        try:
            with closing(arriving):
                for report in arriving:
                    self._take(report)
                    if report.failed and self.stop:
                        break
        except KeyboardInterrupt:
            self.interrupted = True
        self.wall_time = perf_counter() - began
        self.outcomes.sort(key=lambda outcome: outcome.index)

    def _take(self, report: Report) -> None:
        for outcome in report.outcomes():
            self.outcomes.append(outcome)
            if self.on_outcome is not None:
                self.on_outcome(outcome)

    @property
    def status(self) -> int:
        if self.interrupted:
            return 130
        return 0 if all(outcome.ok for outcome in self.outcomes) else 1


def _write(work: _Work, out: str | None) -> bool:
    """Write what ended into the file; a file that cannot be written costs no printed result."""
    if out is None or not work.outcomes:
        return True
    try:
        write_out(out, work.inputs, work.outcomes)
    except OSError as error:
        click.echo(f"fanfold: --out {out} is not written: {error.strerror}", err=True)
        return False
    return True


def _tell(work: _Work, quiet: bool) -> None:
    for line in failure_lines(work.inputs, work.outcomes):
        click.echo(line, err=True)
    if not quiet:
        summary = summary_lines(
            work.inputs, work.outcomes, work.wall_time, interrupted=work.interrupted
        )
        click.echo("\n".join(["", *summary]), err=True)
