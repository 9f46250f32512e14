"""The commands that look at runs: runs, status, logs, results, retry, cancel, report."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from fanfold.cli.cluster import changed_resources, resource_options
from fanfold.cli.elements import MOST_LINES, element_lines, element_log, element_told
from fanfold.cli.inputs import Inputs
from fanfold.cli.options import folder_option, json_option
from fanfold.cli.results import JsonLines, check_out, print_table, tabulate, write_out
from fanfold.cli.summary import shown_name
from fanfold.errors import FanfoldError, UsageError
from fanfold.runs.inputs import read_generation, read_inputs
from fanfold.runs.logs import Printed, follow, printed
from fanfold.runs.run import Run
from fanfold.runs.status import Status
from fanfold.store.directory import RunDirectory, run_directories
from fanfold.tasks import Outcome
from fanfold.units import format_duration

__all__ = ["COMMANDS"]

_trust = click.option("--trust", is_flag=True, help="Read what others could have written.")


@click.command("runs")
@folder_option
@json_option
def runs_command(folder: str, as_json: bool) -> int:
    """List the runs in a folder, the newest last."""
    found = list(_statuses(folder))
    if as_json:
        for status in found:
            click.echo(json.dumps(_told(status)))
        return 0
    if not found:
        click.echo(f"fanfold: there is no run in {folder}", err=True)
    names = [shown_name(status.name) for status in found]
    width = max(map(len, names), default=0)
    for name, status in zip(names, found, strict=True):
        click.echo(f"{name:<{width}}  {_counts(status)}")
    return 0


def _statuses(folder: str) -> Iterator[Status]:
    for path in run_directories(Path(folder)):
        try:
            yield Run.open(path).status()
        except FanfoldError as error:
            click.echo(f"fanfold: {error}", err=True)


@click.command("status")
@click.argument("run")
@folder_option
@json_option
def status_command(run: str, folder: str, as_json: bool) -> int:
    """Tell how far a run is, and what each worker does.

    Exit status: 0 all done, 1 a task has failed or is missing.
    """
    status = Run.open(run, folder=folder).status()
    if as_json:
        click.echo(json.dumps(_told(status)))
    else:
        click.echo("\n".join(_status_lines(status)))
    return 0 if status.done == status.total else 1


def _told(status: Status) -> dict[str, Any]:
    return {
        **status._asdict(),
        "missing": status.missing,
        "workers": [worker._asdict() for worker in status.workers],
        "elements": [element_told(one) for one in status.elements],
    }


def _counts(status: Status) -> str:
    parts = [f"{status.state}: {status.done:,} of {status.total:,} done"]
    if status.failed:
        parts.append(f"{status.failed:,} failed")
    if status.missing and status.state != "running":
        parts.append(f"{status.missing:,} missing")
    return ", ".join(parts)


def _status_lines(status: Status) -> Iterator[str]:
    yield f"{shown_name(status.name)}: {_counts(status)}"
    if status.rate:
        yield f"{status.rate:,.1f} tasks/s, about {format_duration(status.left or 0)} left"
    if status.elements:
        yield from element_lines(status.elements)
    elif status.driver is not None:
        host, pid = status.driver
        verb = "driven by" if status.state == "running" else f"{status.why}; last driven by"
        yield f"{verb} process {pid} on {host}"
    yield from status.damage
    if status.trouble:
        yield f"the scheduler does not answer: {status.trouble}"
    for worker in status.workers[:MOST_LINES]:
        doing = "idle"
        if worker.task is not None:
            doing = f"task {worker.task} since {format_duration(worker.seconds)}"
        yield f"  {worker.worker}: {doing}"
    if len(status.workers) > MOST_LINES:
        yield f"  ... and {len(status.workers) - MOST_LINES} more workers; --json lists all"


@click.command("logs")
@click.argument("run")
@click.argument("task", type=int, required=False)
@click.option("--failed", is_flag=True, help="Only of the tasks that failed.")
@click.option("--follow", "following", is_flag=True, help="Go on while the run does.")
@click.option("--element", type=int, metavar="N", help="What the job of this element printed.")
@folder_option
def logs_command(
    run: str, task: int | None, failed: bool, following: bool, element: int | None, folder: str
) -> int:
    """Show what the tasks of a run printed.

    That is standard output and standard error, logging and warnings.
    """
    opened = Run.open(run, folder=folder)
    directory = RunDirectory.open(opened.path)
    if element is not None:
        click.echo(element_log(directory, element), nl=False)
        return 0
    _check_task(directory, task)
    for part in printed(directory, _wanted(task, failed)):
        _show(part)
    for worker, lines in follow(directory, opened.is_driven) if following else ():
        for line in lines.decode(errors="backslashreplace").splitlines():
            click.echo(f"{worker} | {line}")
    return 0


def _check_task(directory: RunDirectory, task: int | None) -> None:
    total = read_generation(directory).total
    if task is not None and not 0 <= task < total:
        raise UsageError(f"there is no task {task}: the tasks are 0 to {total - 1}")


def _wanted(task: int | None, failed: bool) -> Callable[[dict[str, Any]], bool]:
    def wanted(record: dict[str, Any]) -> bool:
        first, count = record["first"], record.get("count", 1)
        if task is not None and not first <= task < first + count:
            return False
        return not failed or record["is"] == "failed"

    return wanted


def _show(part: Printed) -> None:
    which = f"task {part.first}"
    if part.count > 1:
        which = f"tasks {part.first} to {part.first + part.count - 1}, which ran together"
    tries = f", attempt {part.attempt}" if part.attempt > 1 else ""
    state = "" if part.ok else ", failed"
    click.echo(f"== {which}{tries}{state} ({part.writer}, {part.worker})", err=True)
    for title, content in (("", part.out), ("-- standard error", part.err)):
        if content and title:
            click.echo(title, err=True)
        sys.stdout.flush()
        if content:
            os.write(1, content if content.endswith(b"\n") else content + b"\n")


@click.command("results")
@click.argument("run")
@click.option("--out", metavar="FILE", help="Write them: .csv, .jsonl or .json.")
@folder_option
@_trust
@json_option
def results_command(run: str, out: str | None, folder: str, trust: bool, as_json: bool) -> int:
    """Print the results of a run, as far as there are any.

    A file has the failures, too.

    Exit status: 0 all done, 1 a task has failed or is missing.
    """
    if out is not None:
        check_out(out)
    opened = Run.open(run, folder=folder, trust=trust)
    directory = RunDirectory.open(opened.path)
    generation = read_generation(directory)
    items = read_inputs(directory, generation, trust=trust)
    style: Any = "keywords" if generation.style == "keywords" else "one"
    inputs = Inputs(items, style, generation.columns)
    outcomes: list[Outcome] = list(opened.outcomes())
    if out is not None:
        write_out(out, inputs, outcomes)
    elif as_json:
        lines = JsonLines(inputs, sys.stdout)
        for outcome in outcomes:
            lines.add(outcome)
        lines.finish()
    else:
        print_table(tabulate(inputs, outcomes, errors=False), sys.stdout)
    return 0 if sum(outcome.ok for outcome in outcomes) == generation.total else 1


@click.command("retry")
@click.argument("run")
@click.option("--all", "everything", is_flag=True, help="The tasks that are done, too.")
@folder_option
@_trust
@resource_options
def retry_command(run: str, everything: bool, folder: str, trust: bool, **options: Any) -> int:
    """Run again what failed, what is missing, and what is damaged.

    On a scheduler, say what to ask for instead of what was asked before: --walltime 4h.

    Exit status: 0 all done, 1 a task failed, 130 interrupted.
    """
    opened = Run.open(run, folder=folder, trust=trust)
    asked = changed_resources(opened.resources, options)
    for note in opened.take_again(everything=everything, resources=asked):
        click.echo(f"fanfold: {note}", err=True)
    try:
        opened.drive()
    finally:
        click.echo("\n".join(_status_lines(opened.status())), err=True)
    return 0 if opened.status().state == "done" else 1


@click.command("cancel")
@click.argument("run")
@click.option("--element", type=int, metavar="N", help="Only this element of the job array.")
@folder_option
def cancel_command(run: str, element: int | None, folder: str) -> int:
    """Stop a run, wherever it is driven. What is done stays done."""
    opened = Run.open(run, folder=folder)
    opened.cancel(element=element)
    click.echo(f"fanfold: {_counts(opened.status())}", err=True)
    return 0


@click.command("report")
@click.argument("run")
@click.option("--html", metavar="FILE", help="Write a page that needs no network.")
@folder_option
def report_command(run: str, html: str | None, folder: str) -> int:
    """Tell what happened in a run, and what to ask for next time."""
    opened = Run.open(run, folder=folder)
    if html is None:
        click.echo(
            opened.report(width=max(60, min(120, shutil.get_terminal_size((100, 24)).columns)))
        )
    else:
        click.echo(f"fanfold: wrote {opened.report(html=html)}", err=True)
    return 0


COMMANDS = (
    runs_command,
    status_command,
    logs_command,
    results_command,
    retry_command,
    cancel_command,
    report_command,
)
