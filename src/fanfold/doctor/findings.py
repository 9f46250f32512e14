"""What an examination finds: small records that a command shows and JSON keeps."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Finding", "Kind", "State", "fact", "warning"]

State = Literal[
    "works",
    "absent",  # it is not installed, or not here
    "broken",  # it should work, and does not
    "fact",
    "warning",
]
Kind = Literal["place", "machine"]


class Finding(NamedTuple):
    """One thing that was looked at: its name, how it is, in words, and the one command that would
    mend it, where there is one.

    ``kind`` is "place" where it is an executor that tasks run in, else "machine". ``seconds`` is
    how long the first tasks of a place took, its start included.
    """

    kind: Kind
    name: str
    state: State
    what: str
    remedy: str = ""
    seconds: float | None = None


def fact(name: str, what: str) -> Finding:
    """Something that is as it should be."""
    return Finding("machine", name, "fact", what)


def warning(name: str, what: str, remedy: str = "") -> Finding:
    """Something that works, and could work better."""
    return Finding("machine", name, "warning", what, remedy)
