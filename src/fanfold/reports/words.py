"""Numbers, moments and strange strings, as they are shown in a report."""

from __future__ import annotations

import math
import re
from datetime import datetime

from fanfold.units import format_duration, format_size

__all__ = [
    "cut_lines",
    "duration",
    "listed",
    "moment",
    "number",
    "one_line",
    "percent",
    "plural",
    "size",
    "visible",
]

UNKNOWN = "unknown"

# Control characters, lone surrogates, and marks that turn the direction of writing round: they
# could command a terminal, break a page, or make a name look like another.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""The text with every character that could act, or hide, written as an escape.

    Line feeds and tabs stay.

    >>> visible("red \x1b[31m, mirrored \u202e, null \0")
    'red \\x1b[31m, mirrored \\u202e, null \\x00'
    """
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: object, width: int = 200) -> str:
    r"""The text in one line of at most ``width`` characters.

    >>> one_line("first\nsecond and third", 15)
    'first second...'
    """
    shown = visible(" ".join(str(text)[: 4 * width].split()))
    return shown if len(shown) <= width else shown[: width - 3].rstrip() + "..."


def cut_lines(text: str, most: int = 40, width: int = 400) -> str:
    """The lines of a text; the middle is left out when they are more than ``most``.

    >>> cut_lines("a b c d e f".replace(" ", chr(10)), most=3).splitlines()
    ['a', '... 4 lines left out ...', 'f']
    """
    lines = text.rstrip().splitlines()
    if len(lines) > most:
        head, tail = most // 2, (most - 1) // 2
        lines = [
            *lines[:head],
            f"... {number(len(lines) - head - tail)} lines left out ...",
            *lines[len(lines) - tail :],
        ]
    shown = (visible(line[: 2 * width]) for line in lines)
    return "\n".join(line if len(line) <= width else line[: width - 3] + "..." for line in shown)


def number(count: int) -> str:
    """A count with its thousands apart.

    >>> number(1234567)
    '1,234,567'
    """
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """A count, its thousands apart, and its noun.

    >>> plural(1, "task"), plural(2, "attempt"), plural(1200, "task")
    ('1 task', '2 attempts', '1,200 tasks')
    """
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def listed(items: list[str], more: int = 0) -> str:
    """A list in words, of which ``more`` are not named.

    >>> listed(["a", "b"]), listed(["a", "b", "c"]), listed(["a", "b"], more=7)
    ('a and b', 'a, b and c', 'a, b and 7 more')
    """
    if more:
        return f"{', '.join(items)} and {number(more)} more"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def percent(part: float, whole: float) -> str:
    """A share, never rounded to nothing or to everything.

    >>> percent(1, 3), percent(1, 10_000), percent(9_999, 10_000), percent(0, 5), percent(5, 5)
    ('33 %', '<1 %', '>99 %', '0 %', '100 %')
    """
    share = part / whole if whole > 0 else 0.0
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 <= share < 1:
        return ">99 %"
    return f"{100 * share:.0f} %"


def duration(seconds: float | None) -> str:
    """Seconds as people read them.

    >>> duration(90), duration(200_000), duration(0), duration(None)
    ('1m30s', '2d07h33m', '0s', 'unknown')
    """
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds <= 0:
        return "0s"
    if seconds < 86400:
        return format_duration(seconds)
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours // 24}d{hours % 24:02}h{minutes:02}m"


def size(count: float | None) -> str:
    """Bytes as people read them.

    >>> size(1536), size(None)
    ('1.5 KB', 'unknown')
    """
    return UNKNOWN if count is None or not math.isfinite(count) else format_size(int(count))


def moment(at: float | None, *, zone: bool = True) -> str:
    """A moment in seconds since 1970, as the clock on the wall showed it; with its time zone."""
    if at is None:
        return UNKNOWN
    try:
        told = datetime.fromtimestamp(at).astimezone()
        return told.strftime("%Y-%m-%d %H:%M:%S %Z" if zone else "%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # beyond what a calendar knows
        return UNKNOWN
