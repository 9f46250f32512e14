"""``fanfold scale``: how much faster with more workers, and how many to take."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from fanfold.cli.cluster import resource_options, resources_of
from fanfold.cli.inputs import collect_inputs
from fanfold.cli.options import input_options, json_option, whole_number
from fanfold.cli.results import results_only
from fanfold.cli.target import check_arguments, load_target
from fanfold.errors import FanfoldError, UsageError
from fanfold.resources import Resources, cores
from fanfold.schedulers.registry import SCHEDULERS
from fanfold.studies.measure import Tell
from fanfold.studies.scale import PLACES, scaling
from fanfold.studies.study import ScalingStudy
from fanfold.units import parse_indices

__all__ = ["scale_command"]

_WIDTHS = (60, 120)  # columns: the narrowest and the widest that is drawn


@click.command("scale")
@click.argument("target")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@input_options
@click.option("--workers", metavar="LIST", help="Numbers to try: 1,2,4. [1,2,4 ... all cores]")
@click.option(
    "--repeats", metavar="N", callback=whole_number(1), default="5", help="Runs each. [5]"
)
@click.option("--weak", is_flag=True, help="Each worker brings work of its own.")
@click.option("--on", type=click.Choice(PLACES), default="processes", help="Where the tasks run.")
@click.option("--seed", metavar="N", callback=whole_number(0), default="0", help="Of the order.")
@json_option
@click.option("--html", metavar="FILE", help="Write a page that needs no network.")
@click.option("--plot", metavar="FILE", help="Draw a .svg, .png or .pdf (needs fanfold[plot]).")
@resource_options
def scale_command(
    target: str,
    inputs: tuple[str, ...],
    range_text: str | None,
    over: str | None,
    params: tuple[str, ...],
    as_text: tuple[str, ...],
    workers: str | None,
    repeats: int,
    weak: bool,
    on: str,
    seed: int,
    as_json: bool,
    html: str | None,
    plot: str | None,
    **options: Any,
) -> int:
    """Measure what more workers gain, and say how many to take.

    \b
      fanfold scale pi.py:throw 2000000 2000000 2000000 2000000 --workers 1,2,4
      fanfold scale flights.py:longest_delay data/*.csv --html scaling.html
      fanfold scale model.py:fit --over table.csv --on slurm --workers 1,2,4,8,16

    TARGET and the inputs are as for fanfold run. The same work runs with each number of workers,
    in shuffled order, when all of them are warm; with --weak each worker brings as much work. What
    comes of it: speed-ups, the law they follow, what limits them, and why not to trust it, if so.

    With --on slurm or --on pbs it is one job array, with an element for each number of workers.

    Exit status: 0 measured, 1 a task failed, 2 the command was wrong, 130 interrupted.
    """
    given = collect_inputs(inputs, range_text, over, params, as_text)
    function = load_target(target)
    check_arguments(function, target, given)
    _check_files(html, plot)
    numbers = None if workers is None else parse_indices(workers)
    with results_only() as output, _telling() as tell:
        try:
            study = scaling(
                function,
                given.items,
                numbers,
                repeats,
                "weak" if weak else "strong",
                on,
                resources=_resources(on, options, max(numbers or [int(cores())])),
                seed=seed,
                tell=tell,
                style=given.style,
            )
        except (FanfoldError, OSError):
            raise
        except Exception as error:  # the function's own
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
            raise FanfoldError(f"a task failed: {type(error).__name__}: {error}{notes}") from error
        output.write(json.dumps(study.to_json()) + "\n" if as_json else _text(study, output))
    _write(study, html, plot)
    return 0


def _check_files(html: str | None, plot: str | None) -> None:
    """Refuse, before any work, what could not be written after it."""
    for option, path in (("--html", html), ("--plot", plot)):
        folder = os.path.dirname(path or "") or "."
        if not os.path.isdir(folder):
            raise UsageError(f"{option} {path}: there is no folder {folder}; make it first")
    if plot is not None:
        from fanfold.reports.formats.picture import check_picture

        check_picture(plot)


def _resources(on: str, options: dict[str, Any], most: int) -> Resources | None:
    """What each element of a job array asks for: unless it is said, a core for each worker."""
    names = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if on in SCHEDULERS:
        return resources_of({**options, "cores": options["cores"] or most})
    if names:
        raise UsageError(
            f"what a job asks for ({', '.join(names)}) needs a job: add --on slurm or --on pbs"
        )
    return None


@contextmanager
def _telling() -> Iterator[Tell]:
    """Where there is somebody to look: each sentence in the place of the one before."""
    if not sys.stderr.isatty():
        yield lambda sentence: None
        return

    def tell(sentence: str) -> None:
        click.echo(f"\r\x1b[K{sentence}", err=True, nl=False)

    try:
        yield tell
    finally:
        tell("")


def _text(study: ScalingStudy, output: Any) -> str:
    least, most = _WIDTHS
    columns = max(least, min(most, shutil.get_terminal_size((80, 24)).columns))
    encoding = (output.encoding or "ascii").lower().replace("-", "")
    return study.text(columns, ascii_only=not encoding.startswith("utf"))


def _write(study: ScalingStudy, html: str | None, plot: str | None) -> None:
    if html is not None:
        Path(html).write_text(study.html(), "utf-8")
        click.echo(f"fanfold: wrote {html}", err=True)
    if plot is not None:
        click.echo(f"fanfold: wrote {study.plot(plot)}", err=True)
