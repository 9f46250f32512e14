"""Options that several commands have, and checks of values: made before any work, they say what
would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fanfold.errors import UsageError
from fanfold.runs.run import FOLDER
from fanfold.units import parse_duration

__all__ = [
    "duration",
    "folder_option",
    "input_options",
    "json_option",
    "together",
    "whole_number",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order in which --help lists them."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


folder_option = click.option(
    "--dir", "folder", default=FOLDER, metavar="FOLDER", help=f"Of the runs. [{FOLDER}]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")
input_options = together(
    click.option("--range", "range_text", metavar="A-B:STEP", help="Numbers: 1-100:3 or 1,4,7-9."),
    click.option("--over", metavar="FILE", help="A task for each row of a .csv or .jsonl table."),
    click.option(
        "--param", "params", multiple=True, metavar="NAME=V,V", help="Values of a keyword."
    ),
    click.option(
        "--str", "as_text", multiple=True, metavar="COLUMN", help="Keep a column as text."
    ),
)


def whole_number(least: int) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """A callback for an option that is a whole number, not below ``least``."""

    def convert(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
        if text is None:
            return None
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise click.BadParameter(
                f"{text} is not a whole number of at least {least}", context, option
            )
        return number

    return convert


def duration(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """A callback for an option that is a time longer than nothing; gives seconds."""
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except UsageError as error:
        raise click.BadParameter(str(error), context, option) from error
    if seconds == 0:
        raise click.BadParameter(f"{text} is no time at all; write 60s or 1h30m", context, option)
    return seconds
