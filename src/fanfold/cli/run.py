"""``fanfold run``: one task an input."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shlex import join as joined
from shlex import quote as quoted
from time import perf_counter
from typing import Any

import click

from fanfold.cli.cluster import array_options, cluster_of, resource_options
from fanfold.cli.elements import element_lines
from fanfold.cli.inputs import EveryColumn, Inputs, collect_inputs
from fanfold.cli.options import duration, folder_option, input_options, whole_number
from fanfold.cli.programs import load_program
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
from fanfold.errors import RunChanged, UsageError
from fanfold.explanations import explain_items
from fanfold.programs import Command
from fanfold.runs.begin import begin, preview, worker_memory
from fanfold.runs.cluster import Cluster
from fanfold.runs.elements import Watched
from fanfold.runs.identity import FilePolicy
from fanfold.runs.prepare import Request, Resume
from fanfold.runs.run import Run
from fanfold.tasks import Outcome, Report

__all__ = ["run_command"]

PLACES = ("auto", "local", "serial", "threads", "processes", "slurm", "pbs")


@click.command("run")
@click.argument("target", required=False)
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option("--command", "line", metavar="TEXT", help="A program instead: 'prog --x {x} {}'.")
@input_options
@click.option("--cost", metavar="COLUMN", help="How long tasks take: the longest begin first.")
@click.option("--on", type=click.Choice(PLACES), default="auto", help="Where the tasks run.")
@click.option("--workers", metavar="N", callback=whole_number(1), help="Tasks at once. [all cores]")
@click.option("--retries", metavar="N", callback=whole_number(0), default="0", help="More tries.")
@click.option("--timeout", metavar="TIME", callback=duration, help="Longest task: 60s, 1h30m.")
@click.option("--max-memory-per-worker", metavar="SIZE", help="What each may have: 2GB.")
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
@folder_option
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
@click.option("--explain", is_flag=True, help="Run a few tasks, and say where they should run.")
@click.option("--trust", is_flag=True, help="Go on with a run that others could have written.")
@resource_options
@array_options
def run_command(
    target: str | None,
    inputs: tuple[str, ...],
    line: str | None,
    range_text: str | None,
    over: str | None,
    params: tuple[str, ...],
    as_text: tuple[str, ...],
    cost: str | None,
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
    explain: bool,
    trust: bool,
    dry_run: bool,
    detach: bool,
    max_memory_per_worker: str | None,
    **options: Any,
) -> int:
    """Run a function or a program over many inputs, on all cores.

    Each input is a task. TARGET is file.py:function or package.module:function; with --command
    there is none.

    \b
      fanfold run pi.py:count_inside --range 1-100 --seed 7
      fanfold run flights.py:longest_delay data/*.csv
      fanfold run model.py:fit --over table.csv --out results.csv
      fanfold run model.py:fit --param rate=0.1,0.2 --param depth=1,2,3
      fanfold run --command "sort {}" notes/*.txt

    The function gets an INPUT as its one argument, and the row of a table or a combination of
    --param values as keyword arguments. Text becomes whole numbers, numbers or true/false where
    the whole column allows it; 007 is no number. INPUTs are one column, named input, and stay
    text unless all of them are numbers; --str input keeps them as they are. Put -- before inputs
    that begin with a dash.

    A program gets the inputs in place of {}, {0} or {name}, as they are written, each as a part of
    one argument; what it prints is the result. No shell reads the command.

    With --cost a column of numbers tells how long tasks take, in any unit, and the longest begin
    first; a function that takes no such argument does not get it. Without it, it is learned from
    an earlier run of the same target and inputs.

    With --explain only a few first tasks run, and nothing is kept: it says what they need, which
    place suits them, and how multiprocessing, PBS and Slurm are told the same. (A run itself takes
    worker processes unless --on says otherwise: a task that crashes fails alone.)

    Everything is kept in a folder, fanfold-runs/NAME: whatever dies meanwhile, the same command
    goes on where it stands. What tasks print is there too: fanfold logs NAME.

    With --on slurm or --on pbs the tasks run in a job array, and this command only waits: Ctrl-C
    leaves the array at work, and the same command, from any node, waits again. Each element asks
    for --cores, --memory and --walltime, and runs as many tasks at a time as it has cores.

    Results go to standard output, everything else to standard error. Exit status: 0 all done,
    1 a task failed, 2 the command was wrong, 130 interrupted.
    """
    if line is not None:
        inputs = inputs if target is None else (target, *inputs)
    elif target is None:
        raise UsageError("name a function, as in file.py:function, or a program with --command")
    kept = as_text if line is None else EveryColumn()
    given = collect_inputs(inputs, range_text, over, params, kept)
    if out is not None:
        check_out(out)
    costs = None if cost is None else given.costs(cost)
    with results_only() as output:
        target, stem, function, given = _function(target, line, given, cost)
        if explain:
            output.write(_explained(function, given, options["workers"], as_json))
            return 0
        on = "processes" if options["on"] in ("auto", "local") else options["on"]
        cluster = cluster_of(on, options, folder)
        _check_place(cluster, function, dry_run, detach)
        if cluster is not None:
            options["cluster"] = cluster.told()
        if max_memory_per_worker is not None:
            memory = worker_memory(function, on, max_memory_per_worker)
            options["max_memory_per_worker"] = memory
        request = Request(
            function,
            given.items,
            Path(folder),
            {**options, "errors": errors, "on": on},
            name,
            target=target,
            key=command_key(target, inputs, range_text, over, params, as_text, seed),
            stem=stem,
            style=given.style,
            columns=given.columns,
            seed=seed,
            resume=resume,
            files=files,
            packages=packages,
            command=sys.argv[1:],
            trust=trust,
            costs=costs,
        )
        if dry_run:
            output.write("\n".join(preview(request)))
            return 0
        if detach:
            output.write(f"{_submit(request, steal=steal)}\n")
            return 0
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


def _function(
    target: str | None, line: str | None, given: Inputs, cost: str | None
) -> tuple[str, str, Callable[..., Any], Inputs]:
    """What runs: its name, how the names of its runs begin, the function, and what this gets."""
    if line is None:
        assert target is not None  # noqa: S101 - one of the two is given
        function = load_target(target)
        given = _fitting(partial(check_arguments, function, target), given, cost)
        place, _, attribute = target.rpartition(":")
        return target, f"{Path(place).stem}.{attribute}", function, given
    given = _fitting(partial(load_program, line), given, cost)
    program = load_program(line, given)
    return line, Path(program.program).name, program, given


def _fitting(check: Callable[[Inputs], object], given: Inputs, cost: str | None) -> Inputs:
    """The inputs that the function takes: with the column of costs, or without it."""
    try:
        check(given)
    except UsageError:
        if cost is None or given.style == "one":
            raise
        given = given.without(cost)
        check(given)
    return given


def _check_place(
    cluster: Cluster | None, function: Callable[..., Any], dry_run: bool, detach: bool
) -> None:
    """Is what was asked for possible there? Is the program there that is to run here?"""
    for name, given in (("--dry-run", dry_run), ("--detach", detach)):
        if given and cluster is None:
            raise UsageError(f"{name} is for job arrays: add --on slurm or --on pbs")
    if cluster is None and isinstance(function, Command):
        function.check_program()


def _explained(
    function: Callable[..., Any], given: Inputs, workers: int | None, as_json: bool
) -> str:
    """What a few tasks show, as text or as JSON."""
    again = [word for word in sys.argv[1:] if word not in ("--explain", "--json")]
    program = f"fanfold {joined(again)}"
    told = explain_items(function, given.items, given.style, workers, program=program)
    if not as_json:
        return f"{told}\n"
    return json.dumps(told.to_dict(), default=str) + "\n"


def _submit(request: Request, *, steal: bool) -> str:
    """The name of the run, of which the arrays are submitted."""
    run, notes = begin(request, progress=False, steal=steal)
    for note in notes:
        click.echo(f"fanfold: {note}", err=True)
    run.start()
    return run.name


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
    elements: tuple[Watched, ...] = ()  # those of job arrays that have not done their work
    at_work: bool = False  # on a scheduler, without this command

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
            left = (one for one in run.status().elements if one.state not in ("done", "failed"))
            self.elements = tuple(left)
        except KeyboardInterrupt:
            self.interrupted = True
            self.at_work = "cluster" in request.options
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
        done = sum(outcome.ok for outcome in self.outcomes)
        return 0 if done == len(self.inputs.items) else 1


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
        if work.elements:
            click.echo("\n".join(["", *element_lines(work.elements)]), err=True)
            kept = f"fanfold retry {quoted(name)} runs what is missing; --walltime, --memory change"
        if work.interrupted and work.at_work:
            kept = f"the job goes on: fanfold status {quoted(name)}; fanfold cancel ends it"
        elif work.interrupted:
            kept = f"kept as {name}: the same command goes on"
        click.echo("\n".join(["", *summary, kept]), err=True)
