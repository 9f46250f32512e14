"""From the directives of a script to what they ask for, in fanfold's own words."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fanfold.errors import UsageError
from fanfold.schedulers.scripts.dialect import Dialect, Directive, Note, Option, Setting, Settings
from fanfold.schedulers.scripts.directives import split_words
from fanfold.schedulers.scripts.lines import Line

__all__ = ["Asked", "read"]


class Asked(NamedTuple):
    """What directives ask for, what is to be said about them, and the comments behind them."""

    settings: Settings
    notes: list[Note]
    comments: dict[int, str]


def read(lines: Iterable[Line], source: Dialect) -> Asked:
    """What the directives of ``source`` ask for. What cannot be read is noted as lost."""
    options: list[Option] = []
    notes: list[Note] = []
    comments: dict[int, str] = {}
    for line in lines:
        try:
            words, comment = split_words(line.words, escapes=source.escapes)
            options += source.options(words, line.number)
        except UsageError as error:
            notes.append(Note(line.number, f"{line.words}: {error}", lost=True))
            continue
        if comment:
            comments[line.number] = comment
        if comment and not source.escapes:
            said = f"{source.name} refuses a comment behind a directive"
            notes.append(Note(line.number, said, lost=False))
    settings: Settings = {}
    notes += _read_rows(options, source, settings)
    notes += _read_layout(options, source, settings)
    notes += source.arrive(settings)
    return Asked(settings, notes, comments)


def _read_rows(options: list[Option], source: Dialect, settings: Settings) -> Iterator[Note]:
    rows = {key: row for row in source.rows for key in row.keys}
    chosen: dict[str, Option] = {}
    for option in options:
        row = rows.get(option.key)
        if row is None:
            if option.key not in source.layout:
                yield Note(option.line, _unknown(option, source), lost=True)
            continue
        try:
            value = row.read(option.value)
        except UsageError as error:
            yield Note(option.line, f"{option.spelled()}: {error}", lost=True)
            continue
        before = chosen.get(row.field)
        counts = before is None or _rank(row, option) <= _rank(row, before)
        if before is not None:
            yield _replaced(before, option) if counts else _replaced(option, before)
        if counts:
            chosen[row.field] = option
            settings[row.field] = Setting(value, option.line, option.spelled())


def _rank(row: Directive, option: Option) -> int:
    return row.keys.index(option.key)


def _replaced(option: Option, by: Option) -> Note:
    """One of two options is lost, unless it only says again what the other says."""
    said = f"{option.spelled()}: {by.spelled()} in line {by.line} counts"
    return Note(option.line, said, lost=option.key != by.key)


def _unknown(option: Option, source: Dialect) -> str:
    hint = source.hints.get(option.key) or source.hints.get(option.key.split(" ")[0], "")
    said = f": {hint.format(value=shlex.quote(option.value))}" if hint else ""
    return option.spelled() + said


def _read_layout(options: list[Option], source: Dialect, settings: Settings) -> list[Note]:
    asked = {option.key: option for option in options if option.key in source.layout}
    if not asked:
        return []
    try:
        layout, notes = source.read_layout(asked)
    except UsageError as error:
        return [
            Note(option.line, f"{option.spelled()}: {error}", lost=True)
            for option in asked.values()
        ]
    line = min(option.line for option in asked.values())
    said = " ".join(option.spelled() for option in asked.values())
    settings["layout"] = Setting(layout, line, said)
    return notes
