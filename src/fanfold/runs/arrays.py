"""The job arrays of a run, on disk: what each of their elements has to do, and which have no say.

``arrays/N.json`` is written before array N is submitted, ``N.job`` when its id is known, and
``N.closed`` when others take over what it has left: its journals end there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from fanfold.errors import RunDamaged, RunTooNew
from fanfold.resources import Resources
from fanfold.runs.sealed import seal, unseal
from fanfold.store.directory import RunDirectory
from fanfold.store.files import create
from fanfold.store.journal import Journal

__all__ = [
    "Array",
    "Share",
    "arrays",
    "close_array",
    "closed_lengths",
    "is_closed",
    "job_of",
    "keep_job",
    "read_array",
]

Share = list[range]


@dataclass(frozen=True, slots=True)
class Array:
    """A job array: its element with index ``i`` is element ``first + i`` of the run.

    ``session`` is the attempt at element 0 that submitted it, ``name`` that of the job, which holds
    the token it is found again by; ``shares`` are the tasks of each element. ``inputs`` is the
    generation of the inputs, ``code`` the fingerprint of the function, ``options`` are those of
    the map in each element, with ``workers``. ``after`` are the folders of the runs that must have
    ended well, ``python`` the version of Python that the run was made with.
    """

    number: int
    session: int
    scheduler: str
    name: str
    first: int
    shares: list[Share]
    inputs: int
    code: dict[str, str]
    options: dict[str, Any]
    resources: Resources
    python: str
    after: list[str] = field(default_factory=list)
    at: float = field(default_factory=time.time)

    @property
    def elements(self) -> range:
        return range(self.first, self.first + len(self.shares))

    @property
    def tasks(self) -> int:
        return sum(len(part) for share in self.shares for part in share)

    def write(self, directory: RunDirectory) -> None:
        """Raises FileExistsError when there is an array of this number."""
        told = asdict(self) | {
            "shares": [[[part.start, part.stop] for part in share] for share in self.shares],
            "resources": self.resources._asdict(),
        }
        content = json.dumps(seal(_plain(told))) + "\n"
        create(directory.array(self.number, "json"), content.encode())


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it, so that the checksum is that of what is read."""
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return plain


def read_array(directory: RunDirectory, number: int) -> Array:
    """Raises `RunDamaged`."""
    path = directory.array(number, "json")
    told = unseal(directory.read_json(f"arrays/{path.name}"), path)
    try:
        if told["number"] != number:
            raise RunDamaged(f"{path} is array {told['number']}: files are mixed up")
        told["shares"] = [[range(*part) for part in share] for share in told["shares"]]
        told["resources"] = Resources(**told["resources"])
        return Array(**told)
    except (KeyError, TypeError, ValueError) as error:
        raise RunDamaged(f"{path} does not say what it should: {error!r}") from error


def keep_job(directory: RunDirectory, number: int, job: str) -> None:
    """Keep the id of a job that was submitted, or found again."""
    directory.write_text(f"arrays/{number}.job", json.dumps(seal({"job": job})) + "\n")


def job_of(directory: RunDirectory, number: int) -> str | None:
    """The id of the job; None when it is not known that it was submitted."""
    path = directory.array(number, "job")
    try:
        return str(unseal(directory.read_json(f"arrays/{path.name}"), path)["job"])
    except (RunDamaged, KeyError):  # then the job is looked for by its name
        return None


def close_array(directory: RunDirectory, number: int) -> None:
    """What its elements write from now on counts for nothing, and they stop before they write.

    Raises FileExistsError when another was faster.
    """
    lengths = {}
    for element, attempt in directory.writers():
        path = directory.journal(element, attempt)
        with suppress(RunDamaged, RunTooNew, OSError):  # it says nothing that could count
            if Journal(path).header.get("array") == number:
                lengths[path.name] = path.stat().st_size
    content = json.dumps(seal({"lengths": lengths})) + "\n"
    create(directory.array(number, "closed"), content.encode())


def is_closed(directory: RunDirectory, number: int) -> bool:
    """Have others taken over what it had left?"""
    return directory.array(number, "closed").exists()


def closed_lengths(directory: RunDirectory, number: int) -> dict[str, int]:
    """How far the journals of a closed array count, by name. Raises `RunDamaged`."""
    path = directory.array(number, "closed")
    told = unseal(directory.read_json(f"arrays/{path.name}"), path)
    lengths = told.get("lengths")
    if not isinstance(lengths, dict):
        raise RunDamaged(f"{path} does not say what it should: {told!r}")
    return lengths


def arrays(directory: RunDirectory, damage: list[str] | None = None) -> Iterator[Array]:
    """The arrays of a run, in order; what is wrong with those that are left out goes into
    ``damage``, in sentences."""
    for number in directory.arrays():
        try:
            yield read_array(directory, number)
        except RunDamaged as error:
            if damage is not None:
                damage.append(f"{error}: what its elements have done counts")
