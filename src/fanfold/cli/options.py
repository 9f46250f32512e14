"""Checks of option values: made before any work, and they say what would be right."""

from __future__ import annotations

from collections.abc import Callable

import click

from fanfold.errors import UsageError
from fanfold.units import parse_duration

__all__ = ["duration", "whole_number"]


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
