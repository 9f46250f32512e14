"""What a page shows of what a command prints: compared, and written anew.

What is printed differs from one machine to the next in three ways. *Names* of the machine and of
its user are replaced by those of the course. *Figures* are measured: a page shows those of the
machine that wrote it. *Chance* decides the rest, such as process ids: a page keeps what it has.
``...`` in a page is anything, and stays.
"""

from __future__ import annotations

import doctest
import getpass
import platform
import re

LAPTOP, NODE, USER = "laptop", "n1", "ada"  # as the course calls them

_FIGURE = (
    r"\d+s, [\d.]+ MB"  # of a short job the memory may not be known
    r"|(?<=walltime  )\S+(?=,| of)|(?<=used.walltime = )\S+|\d+(?=kb\b)"
    r"|[<>]?\d[\d.,]*(?= ?(?:us|ms|s|[kMG]?B|min|times|cores?)\b| ?%)"
    r"|(?<=speed-up )[\d.]+|(?<=take )\d+|(?<=best )\d+|(?<=doubt: )\d+|\d+(?= of 500)"
    r"|\d\.\d(?= of \d)|(?<=used )\d\.\d|(?<=at most )\d\.\d"
    r"|(?<=--cores )\d|(?<=ncpus=)\d(?=:mem)|(?<=:mem=)\d+(?=mb)"
    r"|There is no GPU.*|no free-threaded Python.*"
)
_CHANCE = (
    r"(?<=process )\d+|(?<=batch job )\d+|(?<=\(element )\d|(?<=points inside: ).*"
    r"|(?<=Hello from parent )[\d ]+|(?<=Hello from )\d+"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+"
)
_DIFFERS = re.compile(f"{_CHANCE}|{_FIGURE}")


def clean(printed: str) -> str:
    """With the names that the course has for this machine and for who runs it, and without the
    progress that a map shows where the machine is slow.

    Where a job of the pretend PBS is told of, the machine is a node of that.
    """
    printed = re.sub(r"^fanfold: \d+/\d+ done in .*\n", "", printed, flags=re.MULTILINE)
    host, user = re.escape(platform.node()), re.escape(getpass.getuser())
    called = NODE if ".pretend" in printed else LAPTOP
    printed = re.sub(rf"(\bon +){host}\b", rf"\g<1>{called}", printed)
    return re.sub(rf"(?<= ){user} {{2,}}", lambda name: USER.ljust(len(name[0])), printed)


def same(shown: str, printed: str) -> bool:
    """Does a page show what was printed, but for figures and chance?"""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(_DIFFERS.sub("...", shown), clean(printed), flags)


def written(shown: str, printed: str) -> str:
    """What a page shows from now on: what was printed, with nothing in it that tells nothing.

    Written twice, a page changes in its figures only. Where ``...`` stands for lines, and it is not
    known for how many, everything stays.
    """
    found = _kept(shown, clean(printed))
    old, new = shown.splitlines(keepends=True), found.splitlines(keepends=True)
    if "..." not in shown:
        return found
    if len(old) != len(new):
        return shown
    return "".join(
        one if "..." in one and same(one, other) else other
        for one, other in zip(old, new, strict=True)
    )


def _kept(shown: str, found: str) -> str:
    """What is found, with what chance decides as it is shown."""
    known = re.findall(_CHANCE, shown)
    if len(known) != len(re.findall(_CHANCE, found)):
        return found
    values = iter(known)
    return re.sub(_CHANCE, lambda _: next(values), found)
