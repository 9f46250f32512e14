"""What the options of a job script say, for a job of this machine."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

from fanfold.errors import UsageError
from fanfold.schedulers.scripts.dialect import Layout, Option
from fanfold.schedulers.scripts.directives import read_dependency, split_words
from fanfold.schedulers.scripts.lines import Line, Script
from fanfold.schedulers.scripts.writing import DIALECTS

__all__ = ["Asked", "login_environment", "read_after", "read_moment"]

_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
_MOMENTS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_OF_THIS_YEAR = ("%m/%d-%H:%M:%S", "%m/%d-%H:%M")
_OF_THE_DAY = ("%H:%M:%S", "%H:%M")
_LATER = re.compile(r"now(?:\+([0-9]{1,6})(second|minute|hour|day|week)?s?)?")

Value = TypeVar("Value")


class Asked:
    """The options of a script and of a command line, which wins; the last of each counts.

    Methods raise `UsageError` for what the scheduler refuses, with the line.
    """

    def __init__(self, script: Script, dialect: str, words: Sequence[str] = ()) -> None:
        self._source = DIALECTS[dialect]
        self._rows = {key: row.read for row in self._source.rows for key in row.keys}
        options = [option for line in script.directives(dialect) for option in self._split(line)]
        options += self._source.options(list(words), 0)
        self.options = {option.key: option for option in options}

    def _split(self, line: Line) -> list[Option]:
        try:
            words, comment = split_words(line.words, escapes=self._source.escapes)
            if comment and not self._source.escapes:
                raise UsageError("qsub refuses a comment behind a directive")
            return self._source.options(words, line.number)
        except UsageError as error:
            raise _in_line(line.number, line.words, error) from error

    def __contains__(self, key: str) -> bool:
        return key in self.options

    def text(self, key: str, default: str = "") -> str:
        """The value of an option as it is written."""
        return self.options[key].value if key in self.options else default

    def read(self, key: str, reader: Callable[[str], Value], default: Value) -> Value:
        """The value of an option as a function reads it."""
        if key not in self.options:
            return default
        option = self.options[key]
        try:
            return reader(option.value)
        except UsageError as error:
            raise _in_line(option.line, option.spelled(), error) from error

    def value(self, key: str, default: Any) -> Any:
        """The value of an option as the table of the dialect reads it."""
        return self.read(key, self._rows[key], default)

    def layout(self, values: Mapping[str, str]) -> Layout:
        """What these values of options ask for, all of them together."""
        line = min((self.options[key].line for key in values), default=0)
        options = {key: Option(key, value, line) for key, value in values.items()}
        try:
            return self._source.read_layout(options)[0] if options else Layout()
        except UsageError as error:
            said = " ".join(option.spelled() for option in options.values())
            raise _in_line(line, said, error) from error


def _in_line(line: int, text: str, error: UsageError) -> UsageError:
    return UsageError(f"line {line}: {text}: {error}" if line else f"{text}: {error}")


def login_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a login has, whatever is set where the job is submitted."""
    user = getpass.getuser()
    return {
        "HOME": environ.get("HOME") or os.path.expanduser("~"),
        "LOGNAME": user,
        "PATH": _PATH,
        "SHELL": environ.get("SHELL", "/bin/sh"),
        "USER": user,
    }


def read_after(value: str) -> tuple[tuple[str, int], ...]:
    found = []
    for part in read_dependency(value).split(","):
        kind, *ids = part.split(":")
        for job in ids:
            number = re.match("[0-9]+", job)
            if number is None:
                raise UsageError(f"{job!r} is no id of a job")
            found.append((kind, int(number[0])))
    return tuple(found)


def read_moment(value: str) -> float:
    """A time on the wall, in seconds since 1970; what is past today is meant tomorrow."""
    now = datetime.now()
    if later := _LATER.fullmatch(value):
        unit = f"{later[2] or 'second'}s"
        return (now + timedelta(**{unit: int(later[1] or 0)})).timestamp()
    for pattern in (*_MOMENTS, *_OF_THIS_YEAR, *_OF_THE_DAY):
        with suppress(ValueError):
            moment = datetime.strptime(value, pattern)
            if pattern in _OF_THIS_YEAR:
                moment = moment.replace(year=now.year)
            if pattern in _OF_THE_DAY:
                moment = datetime.combine(now, moment.time())
                moment += timedelta(days=moment < now)
            return moment.timestamp()
    raise UsageError("write a date and time such as 2027-12-25T10:30, a time, or now+1hour")
