"""How a scheduler treats its jobs: how scripts are read, and what they find where they run."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from fanfold.schedulers.base import JobState
from fanfold.schedulers.local.asked import Asked
from fanfold.schedulers.local.job import LocalElement, LocalJob, Submitted
from fanfold.schedulers.scripts.lines import Script

__all__ = ["Begin", "Dialect", "interpreter"]


class Begin(NamedTuple):
    """An element that is about to begin: of which job, under which server, and its own folder."""

    submitted: Submitted
    element: LocalElement
    host: str
    folder: str


class Dialect(ABC):
    """What a scheduler does with a script, and with a job that begins."""

    @abstractmethod
    def read(
        self, job: LocalJob, script: Script, asked: Asked, environ: Mapping[str, str]
    ) -> LocalJob:
        """The job with what its script asks for. Raises `UsageError`."""

    @abstractmethod
    def id(self, submitted: Submitted, index: int | None, host: str) -> str:
        """The id of an element; that of the job when the index is None."""

    @abstractmethod
    def prepare(self, begin: Begin) -> None:
        """Make the files that the variables speak of."""

    @abstractmethod
    def variables(self, begin: Begin) -> dict[str, str]:
        """What is set on top of the environment of the job."""

    @abstractmethod
    def paths(self, begin: Begin) -> tuple[str, str]:
        """Where the output and the errors go."""

    @abstractmethod
    def spools(self, job: LocalJob, stream: str) -> bool:
        """Whether the output ("o") or the errors ("e") are put in place only at the end."""

    @abstractmethod
    def command(self, job: LocalJob, script: str) -> list[str]:
        """The command that runs a copy of the script."""

    @abstractmethod
    def farewell(self, begin: Begin, state: JobState | None, seconds: float) -> str:
        """What is written into the errors when a job is ended (None: to be begun again)."""


def interpreter(script: str) -> list[str]:
    """The command in the ``#!`` line, as the kernel reads it: a path and at most one argument.

    >>> interpreter("#!/usr/bin/env -S python3 -u\\n"), interpreter("true\\n")
    (['/usr/bin/env', '-S python3 -u'], [])
    """
    first = script.partition("\n")[0]
    return re.split("[ \t]+", first[2:].strip(" \t"), maxsplit=1) if first[:2] == "#!" else []
