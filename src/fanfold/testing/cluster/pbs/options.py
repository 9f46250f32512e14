"""What qsub takes and what it refuses, in its own words."""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fanfold.errors import UsageError
from fanfold.schedulers.scripts.directives import split_words
from fanfold.schedulers.scripts.lines import parse
from fanfold.testing.cluster.requests import Refusal

__all__ = ["Array", "Words", "array", "merged", "options", "resources", "variables"]

_LETTERS = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:XzG"
_USAGE = """\
usage: qsub [-a date_time] [-A account_string] [-c interval]
	[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
	[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
	[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
	[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
	[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""
_HIGHEST = 2_147_483_647
_INDICES = re.compile(r"([0-9]+)-([0-9]+)(?::([0-9]+))?(%.*)?", re.ASCII)
_DEPEND = re.compile(
    r"(?:after|afterok|afternotok|afterany|before|beforeok|beforenotok|beforeany)"
    r"(?::[0-9]+(?:\[\])?(?:\.[\w.-]+)?(?:@[\w.-]+)?)+",
    re.ASCII,
)
_WALLTIME = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:\.[0-9]+)?)", re.ASCII)
_SIZE = re.compile(r"[0-9]+(?:[kmgtp]?[bw]?)", re.IGNORECASE | re.ASCII)
_OF_A_CHUNK = "ncpus mem vmem mpiprocs ompthreads host vnode arch naccelerators"
_OF_A_JOB = "select place walltime cput nodes nodect pmem pvmem pcput file nice software"
_CHUNK_RESOURCES = frozenset(_OF_A_CHUNK.split())
_JOB_RESOURCES = _CHUNK_RESOURCES | frozenset(_OF_A_JOB.split())

Option = tuple[str, str]


class Words(NamedTuple):
    """The words of qsub: its options in order, and what is to be run.

    ``script`` is None for standard input; ``command`` is what stood behind ``--``.
    """

    options: list[Option]
    script: str | None
    command: Sequence[str]


class Array(NamedTuple):
    """What ``-J`` asks for: how it was written, the indices, the last number that it names, and how
    many may run at once."""

    written: str
    indices: range
    last: int
    at_once: int | None

    @property
    def whole(self) -> str:
        """All of the indices, as the server writes them."""
        step = f":{self.indices.step}" if self.indices.step > 1 else ""
        return f"{self.indices.start}-{self.last}{step}"


def usage(reason: str = "") -> Refusal:
    """A message, if there is one, and how qsub is called."""
    return Refusal((f"qsub: {reason}\n" if reason else "") + _USAGE, 2)


def options(argv: Sequence[str]) -> Words:
    """The words of a command line."""
    before = list(argv)
    command: list[str] = []
    if "--" in before:
        at = before.index("--")
        before, command = before[:at], before[at + 1 :]
        if not command:
            raise usage()
    found, operands = _getopt(before)
    if len(operands) > 1 or (operands and command):
        raise usage()
    script = operands[0] if operands and operands[0] != "-" else None
    return Words(found, script, command)


def _getopt(words: Sequence[str]) -> tuple[list[Option], list[str]]:
    try:
        found, operands = getopt.getopt(list(words), _LETTERS)
    except getopt.GetoptError as error:
        raise usage(f"invalid option -- '{error.opt[:1]}'") from error
    return [(key[1], value) for key, value in found], operands


def merged(text: str, words: Words) -> tuple[dict[str, str], list[str]]:
    """The options of the script and of the command line, which wins; and all values of ``-l``."""
    try:
        lines = parse(text).directives("pbs")
    except UsageError as error:
        raise Refusal(f"qsub: {error}\n") from error
    directives = [option for line in lines for option in _directive(line.words)]
    every = [*directives, *words.options]
    chosen = dict(every)
    for letter, value in chosen.items():
        _CHECKS.get(letter, _anything)(letter, value)
    if "j" in chosen.get("m", "") and "J" not in chosen:
        raise Refusal("qsub: mail option 'j' can not be used without array job\n")
    return chosen, _requests(directives, words.options)


def _directive(words: str) -> list[Option]:
    try:
        split, comment = split_words(words, escapes=False)
    except UsageError:
        split, comment = [], words
    if comment:
        raise Refusal(f"qsub: directive error: {words} \n")
    found, operands = _getopt(split)
    if operands:
        raise Refusal(f"qsub: directive error: {words} \n")
    return found


def _requests(directives: list[Option], command_line: list[Option]) -> list[str]:
    """The resources asked for; what the command line names counts, and nothing else of it."""
    named = {name for key, value in command_line if key == "l" for name, _ in pairs(value)}
    kept = [
        f"{name}={amount}"
        for key, value in directives
        if key == "l"
        for name, amount in pairs(value)
        if name not in named
    ]
    return [*kept, *(value for key, value in command_line if key == "l")]


def pairs(value: str) -> Iterator[Option]:
    """``a=1,b=2`` in pairs."""
    for part in re.split(r",(?=[^,=]+=)", value):
        name, _, amount = part.partition("=")
        yield name.strip(), amount.strip()


# What each option must look like ------------------------------------------------------------------


def _anything(letter: str, value: str) -> None:
    pass


def _matching(pattern: str) -> Callable[[str, str], None]:
    def check(letter: str, value: str) -> None:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise usage(f"illegal -{letter} value")

    return check


def _check_array(letter: str, value: str) -> None:
    array(value)


def _check_path(letter: str, value: str) -> None:
    _, colon, path = value.partition(":")
    wrong = not value.isascii() or not value
    if wrong or (colon and not path.startswith("/") and not value.startswith("/")):
        raise usage(f"illegal -{letter} value")


def _check_priority(letter: str, value: str) -> None:
    if not re.fullmatch(r"[+-]?[0-9]+", value) or not -1024 <= int(value) <= 1023:
        raise usage(f"illegal -{letter} value")


def _check_extra(letter: str, value: str) -> None:
    for name, wanted in pairs(value):
        if name == "depend" and not all(_DEPEND.fullmatch(part) for part in wanted.split(",")):
            raise usage("illegal -W value")


def _check_project(letter: str, value: str) -> None:
    if "/" in value:
        raise Refusal("qsub: Illegal attribute or resource value project\n", 166)


_CHECKS: Mapping[str, Callable[[str, str], None]] = {
    "J": _check_array,
    "N": _matching(r"[A-Za-z0-9_.+-]{1,230}"),
    "P": _check_project,
    "W": _check_extra,
    "e": _check_path,
    "j": _matching(r"oe|eo|n"),
    "k": _matching(r"[oed]+|n"),
    "m": _matching(r"n|(?=.*[abe])[abej]+"),
    "M": _matching(r"[^\s,]+(?:,[^\s,]+)*"),
    "o": _check_path,
    "p": _check_priority,
    "r": _matching(r"[yn]"),
    "R": _matching(r"[oe]+"),
}


def array(value: str) -> Array:
    """What ``-J`` means."""
    match = _INDICES.fullmatch(value)
    first, last, step = (int(part or 1) for part in match.groups()[:3]) if match else (0, 0, 0)
    if match is None or first >= last or step == 0:
        raise usage("illegal -J value")
    limit = match[4] or ""
    if limit and not limit[1:].isdigit():
        raise Refusal("qsub: Error (15014) submitting job\n", 166)
    if last > _HIGHEST:
        raise Refusal("qsub: Illegal attribute or resource value\n", 166)
    written = value.partition("%")[0]
    return Array(written, range(first, last + 1, step), last, int(limit[1:]) if limit else None)


# Resources ----------------------------------------------------------------------------------------


def resources(requests: Sequence[str]) -> tuple[tuple[str, str | int], ...]:
    """The ``Resource_List`` of a job, by name."""
    asked = {name: amount for value in requests for name, amount in pairs(value)}
    for name in asked:
        if name not in _JOB_RESOURCES:
            raise Refusal(f"qsub: Unknown resource Resource_List.{name}\n", 187)
    own = sorted(set(asked) & _CHUNK_RESOURCES)
    if own and {"select", "place"} & set(asked):
        raise Refusal(
            f'qsub: "-lresource=" cannot be used with "select" or "place", resource is: {own[0]}\n',
            5,
        )
    found: dict[str, str | int] = {
        name: _SHOWN.get(name, _as_it_is)(f"Resource_List.{name}", amount)
        for name, amount in asked.items()
    }
    found.update(_layout(asked))
    return tuple(sorted((name, value) for name, value in found.items() if value != ""))


def _layout(asked: Mapping[str, str]) -> dict[str, str | int]:
    """The chunks of a job, and what they come to."""
    select, place = asked.get("select"), asked.get("place", "free")
    if select is None and "nodes" in asked:
        count, *parts = asked["nodes"].split(":")
        cores = next((part[4:] for part in parts if part.startswith("ppn=")), "1")
        select, place = f"{count}:ncpus={cores}:mpiprocs={cores}", "scatter"
    elif select is None:
        own = [f"{name}={asked[name]}" for name in sorted(set(asked) & _CHUNK_RESOURCES)]
        select, place = ":".join(["1", *own]), asked.get("place", "pack")
    chunks = [_chunk(chunk) for chunk in select.split("+")]
    totals: dict[str, str | int] = {
        "ncpus": sum(count * int(wants["ncpus"]) for count, wants in chunks),
        "nodect": sum(count for count, _ in chunks),
        "place": place,
        "select": "+".join(
            ":".join([str(count), *(f"{name}={value}" for name, value in wants.items())])
            for count, wants in chunks
        ),
    }
    memory = [(count, wants["mem"]) for count, wants in chunks if "mem" in wants]
    if len(memory) == 1 and memory[0][0] == 1:
        totals["mem"] = memory[0][1]
    elif memory:
        totals["mem"] = f"{sum(count * kilobytes(size) for count, size in memory)}kb"
    return totals


def _chunk(text: str) -> tuple[int, dict[str, str]]:
    count, *parts = text.split(":")
    if not count.isdigit():
        count, parts = "1", [count, *parts]
    if not text:
        raise Refusal("qsub: Illegal attribute or resource value Resource_List.select\n", 166)
    if int(count) == 0:
        raise Refusal("qsub: Illegal attribute or resource value\n", 166)
    wants = dict(part.partition("=")[::2] for part in parts)
    for name, value in wants.items():
        if name not in _CHUNK_RESOURCES:
            raise Refusal(f"qsub: Unknown resource: {name}\n", 187)
        _SHOWN.get(name, _as_it_is)(f"select.{name}", value)
    wants.setdefault("ncpus", "1")
    return int(count), wants


def _as_it_is(name: str, value: str) -> str:
    return value


def _illegal(name: str) -> Refusal:
    return Refusal(f"qsub: Illegal attribute or resource value {name}\n", 166)


def _whole(name: str, value: str) -> str:
    if not re.fullmatch(r"[0-9]+", value, re.ASCII):
        raise _illegal(name)
    return str(int(value))


def _size(name: str, value: str) -> str:
    if not _SIZE.fullmatch(value):
        raise _illegal(name)
    shown = value.lower()
    return shown if shown[-1] in "bw" else f"{shown}b"


def _clock(name: str, value: str) -> str:
    if not value:
        return ""
    match = _WALLTIME.fullmatch(value)
    if match is None:
        raise _illegal(name)
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    whole = -int(-(hours * 3600 + minutes * 60 + seconds) // 1)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


_SHOWN = {
    "ncpus": _whole,
    "mpiprocs": _whole,
    "ompthreads": _whole,
    "mem": _size,
    "vmem": _size,
    "pmem": _size,
    "walltime": _clock,
    "cput": _clock,
}


def kilobytes(size: str) -> int:
    """A size of PBS in kb, rounded up."""
    match = re.fullmatch(r"([0-9]+)([kmgtp]?)[bw]?", size.lower())
    if match is None:
        return 0
    return -(-(int(match[1]) << 10 * " kmgtp".index(match[2] or " ")) // 1024)


# Variables ----------------------------------------------------------------------------------------


def variables(value: str, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """What ``-v`` passes: each backslash arrives doubled, and quotes do not arrive."""
    found = []
    for part in _split(value):
        name, equals, text = part.partition("=")
        if not equals and name not in environment:
            raise Refusal("qsub: cannot send environment with the job\n")
        found.append((name, text if equals else environment[name]))
    return found


def _split(value: str) -> Iterator[str]:
    """The parts between commas that are not quoted."""
    part, at = "", 0
    while at < len(value):
        sign = value[at]
        if sign in "'\"":
            end = value.find(sign, at + 1)
            if end < 0 or "\\" in value[at:end]:
                raise Refusal("qsub: cannot send environment with the job\n")
            part, at = part + value[at + 1 : end], end + 1
        elif value.startswith("\\,", at):
            part, at = part + ",", at + 2
        elif sign == ",":
            yield part
            part, at = "", at + 1
        else:
            part, at = part + sign.replace("\\", "\\\\"), at + 1
    if part:
        yield part
