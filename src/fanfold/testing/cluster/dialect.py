"""What a scheduler is to the pretend cluster: its commands, and what they say of its absence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fanfold.testing.cluster.requests import Reply, Request
from fanfold.testing.cluster.site import Index, Site

__all__ = ["Command", "Dialect"]

Command = Callable[[Site, Request], Reply]


class Dialect(NamedTuple):
    """The ``commands`` by name; what a command says when the scheduler is ``down``, and when its
    answer is ``lost``; and the number and the index of the job that is ``named``."""

    commands: Mapping[str, Command]
    down: Command
    lost: Command
    named: Callable[[str], tuple[int, Index]]
