"""Scripted faults of commands: what goes wrong between a scheduler and the one who asks it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from fanfold.errors import UsageError
from fanfold.testing.cluster.requests import Down, Hang, Lost, Reply

__all__ = ["Change", "Fault", "fault"]

Change = Callable[[Reply], Reply]

_GARBAGE = "\x1b[31m%&$ \ufffd\n"
_NOISE = "WARNING: the file system is 97% full, please clean up your scratch folder\n"


@dataclass
class Fault:
    """What goes wrong with the next ``times`` calls of a command (``"*"``: of any).

    When it is ``accepted``, the scheduler does what it is asked, and ``change`` is done to the
    reply; a job that it ``forgets`` is accepted and never exists.
    """

    command: str
    times: int
    change: Change
    accepted: bool = True
    forgets: bool = False

    def meets(self, command: str) -> bool:
        return self.times > 0 and self.command in ("*", command)


def _instead(error: type[Exception]) -> Change:
    def change(reply: Reply) -> Reply:
        raise error

    return change


def _truncated(reply: Reply) -> Reply:
    return reply._replace(out=reply.out[: len(reply.out) // 2])


def _noisy(reply: Reply) -> Reply:
    return reply._replace(out=_NOISE + reply.out, err=_NOISE + reply.err)


_KINDS: dict[str, Change] = {
    "refused": _instead(Down),
    "stuck": _instead(Hang),
    "lost": _instead(Lost),
    "hangs": _instead(Hang),
    "killed": lambda reply: Reply(signal=signal.SIGKILL),
    "garbled": lambda reply: Reply(_GARBAGE),
    "truncated": _truncated,
    "noisy": _noisy,
    "silent": lambda reply: reply._replace(out=""),
    "forgotten": lambda reply: reply,
}


def fault(command: str, kind: str | Change, times: int) -> Fault:
    """A fault by its name. Raises `UsageError` for another."""
    if callable(kind):
        return Fault(command, times, kind)
    if kind not in _KINDS:
        raise UsageError(f"{kind!r} is no fault: write one of {', '.join(_KINDS)}, or a function")
    accepted = kind not in ("refused", "stuck")
    return Fault(command, times, _KINDS[kind], accepted, forgets=kind == "forgotten")
