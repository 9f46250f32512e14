"""What passes between a command of the pretend cluster and its server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Down", "Hang", "InputWanted", "Lost", "Refusal", "Reply", "Request"]


class Request(NamedTuple):
    """A command as somebody called it; ``stdin`` is None until it was asked for."""

    name: str
    argv: Sequence[str]
    cwd: str
    environment: Mapping[str, str]
    stdin: str | None = None

    def input(self) -> str:
        """What stands on its standard input."""
        if self.stdin is None:
            raise InputWanted
        return self.stdin

    def path(self, name: str) -> Path:
        """A path as the one who called means it."""
        return Path(self.cwd, name)


class Reply(NamedTuple):
    """What a command prints and ends with: an exit status, or a signal."""

    out: str = ""
    err: str = ""
    code: int = 0
    signal: int = 0


class Refusal(Exception):  # noqa: N818
    """A command that ends with a message, and with whatever it printed before."""

    def __init__(self, err: str, code: int = 1, out: str = "") -> None:
        super().__init__(err)
        self.reply = Reply(out, err, code)


class Down(Exception):  # noqa: N818
    """The scheduler does not answer."""


class Lost(Exception):  # noqa: N818
    """The scheduler has heard, and its answer does not arrive."""


class Hang(Exception):  # noqa: N818
    """The command does not end by itself."""


class InputWanted(Exception):  # noqa: N818
    """A command reads its standard input: ask for it, and call it again."""
