"""Ids as PBS spells them: ``12.host``, ``12[].host``, ``12[4].host``, and ranges for qdel."""

from __future__ import annotations

import re
from typing import NamedTuple

from fanfold.testing.cluster.requests import Refusal
from fanfold.testing.cluster.site import Entry, Index, Site

__all__ = ["Id", "job_id", "read_id"]

_ID = re.compile(
    r"([0-9]+)(\[(?:([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?)?\])?(?:\.[\w.-]+)?(?:@[\w.-]*)?",
    re.ASCII,
)


class Id(NamedTuple):
    """What somebody wrote: a job, an array (``indices`` is None for both), or some elements."""

    text: str
    number: int
    brackets: bool
    indices: range | None

    @property
    def one(self) -> Index:
        """The index, where exactly one element was named."""
        return self.indices[0] if self.indices is not None and len(self.indices) == 1 else None

    def entry(self, site: Site) -> Entry | None:
        """The job that it names, if the server knows it."""
        found = site.entries.get(self.number)
        return found if found and not found.hidden and found.is_array == self.brackets else None

    def full(self, site: Site) -> str:
        """The id with the name of the server."""
        return f"{self.text.partition('.')[0].partition('@')[0]}.{site.host}"


def read_id(text: str, command: str) -> Id:
    """An id from a command line."""
    match = _ID.fullmatch(text)
    if match is None:
        raise Refusal(f"{command}: illegally formed job identifier: {text}\n", 1)
    first, last, step = match[3], match[4] or match[3], int(match[5] or 1)
    indices = None if first is None else range(int(first), int(last) + 1, step)
    return Id(text, int(match[1]), match[2] is not None, indices)


def job_id(entry: Entry, index: Index, host: str) -> str:
    """The id of an element; that of the job when the index is None."""
    element = "" if index is None else index
    return f"{entry.number}[{element}].{host}" if entry.is_array else f"{entry.number}.{host}"
