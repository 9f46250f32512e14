"""Has the code of a run changed since the run was made?

The fingerprint of a function is a digest of each part that its results may depend on: its own code,
the helpers that it reaches, the constants that they name, the versions of installed packages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fanfold.programs import Command
from fanfold.runs.modules import version_of
from fanfold.runs.walk import Walk

__all__ = ["Change", "compare", "fingerprint"]

_WORDS = {
    "function": "the function",
    "helper": "its helper",
    "constant": "its constant",
    "closure": "its closure value",
    "default": "its default",
    "argument": "its argument",
    "object": "its object",
    "module": "its module",
}


# Comparing --------------------------------------------------------------------------------------


class Change(NamedTuple):
    """A part that has changed: ``what`` is "changed", "added" or "removed"; as text, a sentence.

    >>> print(Change("package numpy", "changed", "2.0.1", "2.1.0"))
    numpy is 2.1.0 now, and was 2.0.1
    >>> print(Change("helper pi.darts", "added", "", "a3f9"))
    its helper pi.darts is new
    """

    part: str
    what: str
    old: str
    new: str

    def __str__(self) -> str:
        kind, _, name = self.part.partition(" ")
        if kind == "package":
            return self._of_package(name)
        subject = f"{_WORDS.get(kind, kind)} {name}"
        if self.what != "changed":
            return f"{subject} is {'new' if self.what == 'added' else 'no longer used'}"
        if _marks(self.old).keys().isdisjoint(_marks(self.new)):
            return f"{subject} cannot be compared: its source is not known, now or before"
        return f"{subject} has changed"

    def _of_package(self, name: str) -> str:
        if self.what == "changed":
            return f"{name} is {self.new} now, and was {self.old}"
        return f"{name} is {'used now' if self.what == 'added' else 'no longer used'}"


def compare(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """What has changed between two fingerprints. The version of Python is not compared.

    >>> [str(change) for change in compare({"function pi.f": "a3"}, {"function pi.f": "b4"})]
    ['the function pi.f has changed']
    """
    changes = []
    for part in [*new, *(part for part in old if part not in new)]:
        before, now = old.get(part), new.get(part)
        if part == "python" or before == now:
            continue
        if before is None or now is None:
            what = "added" if before is None else "removed"
            changes.append(Change(part, what, before or "", now or ""))
        elif _differ(_marks(before), _marks(now)):
            changes.append(Change(part, "changed", before, now))
    return changes


def _marks(value: str) -> dict[str, str]:
    """The digests of a part: by its source under "", compiled under the name of the Python."""
    return {kind: mark for kind, _, mark in (text.rpartition(":") for text in value.split("/"))}


def _differ(before: dict[str, str], now: dict[str, str]) -> bool:
    """By source where both have one, else compiled; True where nothing can be compared."""
    both = [kind for kind in sorted(before) if kind in now]
    return not both or before[both[0]] != now[both[0]]


# Fingerprints -----------------------------------------------------------------------------------


def fingerprint(function: Callable[..., Any], packages: Sequence[str] = ()) -> dict[str, str]:
    """What the results of a function depend on: part -> digest or version.

    A part is named for people: ``"function pi.count_inside"``, ``"helper pi.darts"``,
    ``"constant pi.SCALE"``, ``"package numpy"``. Code counts by its syntax, so layout, comments,
    docstrings and annotations do not matter; where there is no source it counts by what it is
    compiled to. Helpers are followed through the user's own modules, whole modules where only the
    module is named or where a function imports it; installed packages count by their version, those
    in ``packages`` too. Values count by content; random generators, and what cannot be pickled, by
    their type alone.

    >>> area = eval("lambda r: PI * r * r", {"__name__": "circles", "PI": 3.14})
    >>> list(fingerprint(area))
    ['constant circles.PI', 'function circles.<lambda>', 'python']
    """
    parts = (
        dict(function.parts) if isinstance(function, Command) else Walk().from_function(function)
    )
    parts |= {f"package {package}": version_of(package) for package in packages}
    parts["python"] = "{}.{}".format(*sys.version_info)
    return parts
