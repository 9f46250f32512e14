"""Durations, walltimes, sizes, counts and ranges: what people write and what people read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import chain

from fanfold.errors import UsageError

__all__ = [
    "counted",
    "format_duration",
    "format_size",
    "format_walltime",
    "parse_duration",
    "parse_indices",
    "parse_size",
    "parse_walltime",
]

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_PART = re.compile(rf"({_NUMBER})(us|ms|s|m|h|d)")
_PARTS = re.compile(rf"(?:(?:{_NUMBER})(?:us|ms|s|m|h|d))+")
_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-5]?[0-9](?:\.[0-9]*)?)")
_DAYS = re.compile(r"([0-9]+)-([0-9]+)(?::([0-5]?[0-9]))?(?::([0-5]?[0-9]))?")
_SIZE = re.compile(rf"({_NUMBER})([kmgtp]?)i?b?")
_INDICES = re.compile(r"([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?")


def parse_duration(text: str) -> float:
    """The seconds that a duration such as ``"60s"``, ``"1h30m"`` or ``"1:30:00"`` means.

    Units are us, ms, s, m (minutes), h and d; a bare number is seconds; clock times are
    ``hours:minutes:seconds`` or ``minutes:seconds``, as both schedulers read them.
    Raises `UsageError` for anything else, negative durations included.

    >>> [parse_duration(text) for text in ("90", "90m", "1h30m", "1:30:00", "1:30", "250ms")]
    [90.0, 5400.0, 5400.0, 5400.0, 90.0, 0.25]
    """
    cleaned = "".join(text.split()).lower()
    if re.fullmatch(_NUMBER, cleaned):
        return float(cleaned)
    if _PARTS.fullmatch(cleaned):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(cleaned))
    if clock := _CLOCK.fullmatch(cleaned):
        hours, minutes, seconds = clock.groups()
        return int(hours or 0) * 3600.0 + int(minutes) * 60.0 + float(seconds)
    raise UsageError(
        f"{text!r} is not a duration: write seconds (90), units (90s, 1h30m, 250ms) "
        "or a clock time (1:30:00)"
    )


def format_duration(seconds: float) -> str:
    """A duration as people read it: three digits below a minute, whole seconds above.

    `parse_duration` reads it back.

    >>> [format_duration(seconds) for seconds in (0.000012, 0.25, 1.5, 59.94, 90, 5405)]
    ['12.0us', '250ms', '1.50s', '59.9s', '1m30s', '1h30m05s']
    """
    if seconds >= 60:
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"
    unit = "s" if seconds >= 1 else "ms" if seconds >= 1e-3 else "us"
    amount = seconds / _SECONDS[unit]
    decimals = 2 if amount < 10 else 1 if amount < 100 else 0
    return f"{amount:.{decimals}f}{unit}"


def format_size(size: int) -> str:
    """A number of bytes as people read it, in powers of 1024.

    A GB here is 2**30 bytes: schedulers mean that when they say 4GB, and a figure shown here is
    made to be written into a request for memory.

    >>> [format_size(size) for size in (0, 1023, 1024, 1_610_612_736)]
    ['0 B', '1023 B', '1.0 KB', '1.5 GB']
    """
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    for unit in ("KB", "MB", "GB"):
        amount /= 1024
        if amount < 1023.95:  # what would be shown as 1024.0 is 1.0 of the next unit
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TB"


def counted(count: int, noun: str) -> str:
    """A count and its noun.

    >>> counted(1, "task"), counted(2, "task"), counted(0, "task")
    ('1 task', '2 tasks', '0 tasks')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def parse_walltime(text: str) -> int:
    """The seconds that a walltime such as ``"1h30m"``, ``"1:30:00"`` or ``"2-12"`` means.

    It is read as `parse_duration` reads it, and with Slurm's days before a dash: ``D-HH``,
    ``D-HH:MM`` and ``D-HH:MM:SS``. Parts of a second count as a second. Raises `UsageError` for
    anything else, for no time at all, and for a bare number, which the schedulers take
    differently: PBS for seconds, Slurm for minutes.

    >>> [parse_walltime(text) for text in ("90m", "1h30m", "1:30:00", "2-12", "0-00:00:30")]
    [5400, 5400, 5400, 216000, 30]
    """
    cleaned = "".join(text.split()).lower()
    if re.fullmatch(_NUMBER, cleaned):
        raise UsageError(
            f"{text!r} is {text} seconds to PBS and {text} minutes to Slurm: "
            f"write {text}s or {text}m"
        )
    if days := _DAYS.fullmatch(cleaned):
        day, hour, minute, second = (int(part or 0) for part in days.groups())
        seconds = float(day * 86400 + hour * 3600 + minute * 60 + second)
    else:
        try:
            seconds = parse_duration(text)
        except UsageError as error:
            raise UsageError(
                f"{text!r} is not a walltime: write 1h30m, 90m, 1:30:00 or 2-12:00:00"
            ) from error
    if seconds == 0:
        raise UsageError(f"{text!r} is no time at all: write 1h30m, 90m, 1:30:00 or 2-12:00:00")
    return math.ceil(seconds)


def format_walltime(seconds: int) -> str:
    """A walltime as both schedulers read it: ``HH:MM:SS``, with as many hours as there are.

    >>> format_walltime(5400), format_walltime(360_001)
    ('01:30:00', '100:00:01')
    """
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"


def parse_size(text: str) -> int:
    """The bytes that a size such as ``"4GB"``, ``"4gb"``, ``"4096mb"`` or ``"1.5G"`` means.

    Units are powers of 1024, as in `format_size`; case and spaces do not matter. Raises
    `UsageError` for anything else, for nothing at all, and for a bare number, which the schedulers
    take differently: PBS for bytes, Slurm for megabytes.

    >>> [parse_size(text) for text in ("4GB", "4096mb", "1.5 G", "512b")]
    [4294967296, 4294967296, 1610612736, 512]
    """
    cleaned = "".join(text.split()).lower()
    if re.fullmatch(_NUMBER, cleaned):
        raise UsageError(
            f"{text!r} is {text} bytes to PBS and {text} megabytes to Slurm: "
            f"write {text}MB or {text}GB"
        )
    match = _SIZE.fullmatch(cleaned)
    if match is None or float(match[1]) == 0:
        raise UsageError(f"{text!r} is not a size: write 4GB, 4096MB or 1.5GB")
    return math.ceil(float(match[1]) * (1 << 10 * " kmgtp".index(match[2] or " ")))


def parse_indices(text: str) -> Sequence[int]:
    """The whole numbers that ``"1-100:3"`` or ``"1,4,7-9"`` means; both ends are included.

    This is the spelling of job arrays: ``first-last:step``, joined by commas. One part gives a
    `range`, which costs nothing however long it is. Raises `UsageError` when it cannot be read,
    runs backwards, or names an index twice.

    >>> parse_indices("1-10:3")
    range(1, 11, 3)
    >>> parse_indices("1,4,7-9")
    [1, 4, 7, 8, 9]
    """
    parts = [_index_part(part.strip(), text) for part in text.split(",")]
    if len(parts) == 1:
        return parts[0]
    indices = list(chain.from_iterable(parts))
    if len(set(indices)) < len(indices):
        raise UsageError(f"the range {text!r} names an index twice: name each index once")
    return indices


def _index_part(part: str, text: str) -> range:
    match = _INDICES.fullmatch(part)
    if match is None:
        raise UsageError(f"{text!r} is not a range: write 1-100, 1-100:3 or 1,4,7-9")
    first = int(match[1])
    last = int(match[2] or first)
    step = int(match[3] or 1)
    if last < first:
        raise UsageError(f"the range {part!r} runs backwards: write {last}-{first}")
    if step == 0:
        raise UsageError(f"the step of {part!r} is 0: write a step of at least 1")
    return range(first, last + 1, step)
