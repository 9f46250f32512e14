"""What sbatch takes and what it refuses, in its own words."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from fanfold.errors import UsageError
from fanfold.schedulers.scripts.directives import split_words
from fanfold.schedulers.scripts.lines import parse
from fanfold.testing.cluster.requests import Refusal

__all__ = ["Array", "Words", "array", "begin", "megabytes", "merged", "minutes", "options", "rank"]

_SHORT = {
    "A": "account", "C": "constraint", "D": "chdir", "G": "gpus", "H": "hold", "J": "job-name",
    "L": "licenses", "M": "clusters", "N": "nodes", "Q": "quiet", "a": "array", "b": "begin",
    "c": "cpus-per-task", "d": "dependency", "e": "error", "i": "input", "k": "no-kill",
    "n": "ntasks", "o": "output", "p": "partition", "q": "qos", "s": "oversubscribe", "t": "time",
    "v": "verbose", "w": "nodelist", "x": "exclude",
}  # fmt: skip
_WITH_VALUE = (
    "account array begin chdir clusters comment constraint cpus-per-task dependency error exclude "
    "export gpus gpus-per-node gpus-per-task gres input job-name kill-on-invalid-dep licenses "
    "mail-type mail-user mem mem-per-cpu nodelist nodes ntasks ntasks-per-node open-mode output "
    "partition qos reservation signal time time-min tmp wckey wrap"
)
_FLAGS = (
    "contiguous exclusive get-user-env hold nice no-kill no-requeue oversubscribe parsable quiet "
    "requeue verbose"
)
_VARIABLES = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_ARRAY_INX": "array",
    "SBATCH_JOB_NAME": "job-name",
    "SBATCH_OPEN_MODE": "open-mode",
    "SBATCH_OUTPUT": "output",
    "SBATCH_ERROR": "error",
    "SBATCH_PARTITION": "partition",
    "SBATCH_TIMELIMIT": "time",
}
_TIME = re.compile(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]+))?(?::([0-9]+))?", re.ASCII)
_SIZE = re.compile(r"([0-9]+)([kmgt]?)b?", re.IGNORECASE | re.ASCII)
_PIECE = re.compile(r"([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?", re.ASCII)
_LATER = re.compile(r"now(?:\+([0-9]+)([a-z]*))?", re.ASCII)
_SECONDS = {"": 1, "second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_MAIL = (
    "ALL ARRAY_TASKS BEGIN END FAIL INVALID_DEPEND NONE REQUEUE STAGE_OUT TIME_LIMIT TIME_LIMIT_50 "
    "TIME_LIMIT_80 TIME_LIMIT_90"
)


class Words(NamedTuple):
    """The words of sbatch: its options in order, the script (None: standard input), its
    arguments."""

    options: list[tuple[str, str]]
    script: str | None
    arguments: list[str]


class Array(NamedTuple):
    """What ``--array`` asks for, and how many may run at once."""

    indices: tuple[int, ...]
    at_once: int | None


def error(message: str, code: int = 1) -> Refusal:
    """What sbatch says, every line with its name."""
    lines = (f"sbatch: error: {line}\n" for line in message.splitlines())
    return Refusal("".join(lines), code)


def failed(message: str) -> Refusal:
    """What the controller says to a job."""
    first, _, last = message.rpartition("\n")
    return error((f"{first}\n" if first else "") + f"Batch job submission failed: {last}")


# Words --------------------------------------------------------------------------------------------


def options(argv: Sequence[str]) -> Words:
    """The words of a command line, or of a directive."""
    rest = list(reversed(argv))
    found: list[tuple[str, str]] = []
    while rest and rest[-1].startswith("-") and rest[-1] != "-":
        word = rest.pop()
        if word == "--":
            break
        name, equals, value = _named(word)
        if name in _WITH_VALUE.split() and not equals:
            if not rest:
                raise _unknown(f"option requires an argument -- '{word.lstrip('-')}'")
            value = rest.pop()
        found.append((name, value))
    script = rest.pop() if rest else None
    return Words(found, script, list(reversed(rest)))


def _named(word: str) -> tuple[str, bool, str]:
    """The long name of an option, whether a value came with it, and that."""
    if not word.startswith("--"):
        if word[1:2] not in _SHORT:
            raise _unknown(f"invalid option -- '{word[1:2]}'")
        return _SHORT[word[1]], len(word) > 2, word[2:]
    name, equals, value = word[2:].partition("=")
    known = [one for one in f"{_WITH_VALUE} {_FLAGS}".split() if one.startswith(name)]
    if name not in known and len(known) != 1:
        raise _unknown(f"unrecognized option '{word}'")
    return name if name in known else known[0], bool(equals), value


def _unknown(message: str) -> Refusal:
    return Refusal(f'sbatch: {message}\nTry "sbatch --help" for more information\n', 255)


def merged(text: str, words: Words, environment: Mapping[str, str]) -> dict[str, str]:
    """The options of the script, of the environment and of the command line, the last of which
    wins."""
    try:
        lines = [
            split_words(line.words, escapes=True)[0] for line in parse(text).directives("slurm")
        ]
    except UsageError as problem:
        raise error(str(problem)) from problem
    chosen = dict(option for line in lines for option in options(line).options)
    chosen.update(variables(environment))
    chosen.update(words.options)
    for name, value in chosen.items():
        if name in _CHECKS:
            _CHECKS[name](name, value)
    if {"mem", "mem-per-cpu"} <= set(chosen):
        said = "--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive."
        raise Refusal(f"sbatch: fatal: {said}\n")
    return chosen


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The options that the environment sets."""
    return {_VARIABLES[name]: value for name, value in environment.items() if name in _VARIABLES}


# What each option must look like ------------------------------------------------------------------


def _invalid(name: str) -> Refusal:
    return error(f"Invalid --{name} specification", 255)


def _number(name: str, value: str) -> None:
    if not re.fullmatch(r"[0-9]+", value) or int(value) == 0:
        raise error(f'Invalid numeric value "{value}" for --{name}.')


def _check_nodes(name: str, value: str) -> None:
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", value)
    if match is None:
        raise error(f'"{value}" is not a valid node count', 255)
    if match[2] and int(match[2]) < int(match[1]):
        said = f"Maximum node count {match[2]} is less than minimum node count {match[1]}"
        raise error(said, 255)


def _check_begin(name: str, value: str) -> None:
    begin(value)


def _check_time(name: str, value: str) -> None:
    minutes(value)


def _check_size(name: str, value: str) -> None:
    if not _SIZE.fullmatch(value):
        raise _invalid(name)


def _check_mail(name: str, value: str) -> None:
    if not set(value.upper().split(",")) & set(_MAIL.split()):
        raise _invalid(name)


def _check_signal(name: str, value: str) -> None:
    if not re.fullmatch(
        r"(?:[BR]+:)?(?:SIG)?(?:[0-9]+|HUP|INT|QUIT|KILL|TERM|USR1|USR2|CONT|ABRT)"
        r"(?:@[0-9]+)?",
        value,
        re.IGNORECASE,
    ):
        raise _invalid(name)


def _check_nice(name: str, value: str) -> None:
    if value.startswith("-"):
        raise failed("Invalid --nice value")


def _check_gres(name: str, value: str) -> None:
    raise error("Invalid generic resource (gres) specification")


def _failing(message: str) -> Callable[[str, str], None]:
    def check(name: str, value: str) -> None:
        raise failed(message)

    return check


def _not_here(name: str, value: str) -> None:
    raise error(f"No cluster '{value}' known by database.")


_CHECKS: Mapping[str, Callable[[str, str], None]] = {
    "begin": _check_begin,
    "clusters": _not_here,
    "constraint": _failing("Invalid feature specification"),
    "cpus-per-task": _number,
    "gpus": _check_gres,
    "gpus-per-node": _check_gres,
    "gpus-per-task": _check_gres,
    "gres": _check_gres,
    "mail-type": _check_mail,
    "mem": _check_size,
    "mem-per-cpu": _check_size,
    "nice": _check_nice,
    "nodes": _check_nodes,
    "ntasks": _number,
    "ntasks-per-node": _number,
    "reservation": _failing("Requested reservation is invalid"),
    "signal": _check_signal,
    "time": _check_time,
}


def minutes(value: str) -> int | None:
    """The minutes of a time limit, begun ones too; None is no limit."""
    if value.upper() in ("0", "-1", "UNLIMITED", "INFINITE"):
        return None
    match = _TIME.fullmatch(value)
    if match is None:
        raise _invalid("time")
    days, *clock = match.groups()
    parts = [int(part) for part in clock if part is not None]
    if days is not None:
        hours, minute, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minute, seconds = parts
    else:
        hours, (minute, seconds) = 0, [*parts, 0][:2]
    return int(days or 0) * 1440 + hours * 60 + minute + math.ceil(seconds / 60)


def megabytes(value: str) -> int:
    """The MB of a size, begun ones too."""
    match = _SIZE.fullmatch(value)
    if match is None:
        raise _invalid("mem")
    kilobytes = int(match[1]) << 10 * "kmgt".index((match[2] or "m").lower())
    return math.ceil(kilobytes / 1024)


def begin(value: str) -> float:
    """The time at which something may begin."""
    match = _LATER.fullmatch(value)
    if match and match[2] in (None, *_SECONDS, *(f"{unit}s" for unit in _SECONDS)):
        return time.time() + int(match[1] or 0) * _SECONDS[(match[2] or "").rstrip("s")]
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        said = f"Invalid time specification (pos=0): {value}\n"
        raise Refusal(f"{said}sbatch: error: Invalid --begin specification\n", 255) from None


def array(value: str, highest: int) -> Array:
    """What ``--array`` means: Slurm drops without a word what it does not read behind a ``%``."""
    text, _, limit = value.partition("%")
    text = re.sub(r"^\[|\]$", "", text)
    indices: set[int] = set()
    for piece in text.rstrip(",").split(",") if text else ["0"]:
        match = _PIECE.fullmatch(piece.lstrip())
        if match is None:
            raise failed("Invalid job array specification")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first or step == 0 or last > highest:
            raise failed("Invalid job array specification")
        indices.update(range(first, last + 1, step))
    least = re.match(r"[1-9][0-9]*", limit)
    return Array(tuple(sorted(indices)), int(least[0]) if least else None)


def rank(indices: Sequence[int], at_once: int | None, longest: int) -> str:
    """Indices as Slurm lists them: ``1-3,7``, ``4-25:3``, ``1-10%3``, cut off where too long."""
    steps = {later - earlier for earlier, later in pairwise(indices)}
    if len(indices) > 4 and len(steps) == 1 and steps != {1}:
        text = f"{indices[0]}-{indices[-1]}:{steps.pop()}"
    else:
        text = ",".join(_runs(indices))
    if longest and len(text) > longest:
        text = text[: longest - 3] + "..."
    return text + (f"%{at_once}" if at_once else "")


def _runs(indices: Sequence[int]) -> list[str]:
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][-1] == index - 1:
            runs[-1][1:] = [index]
        else:
            runs.append([index])
    return ["-".join(map(str, run)) for run in runs]
