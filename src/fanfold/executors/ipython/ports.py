"""The ports of a controller of IPython engines.

Its queues are processes, and each listens a second or more after the controller has chosen its
ports. Left to itself ipyparallel takes those that the system had to give at that moment, and the
system may give them to somebody else meanwhile: the queue ends, and nothing is said.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from fanfold.errors import UsageError

__all__ = ["checked", "free_ports"]

NEEDED = 15  # that engines and clients connect to, and parts of the controller
_FIRST = 20_000  # no system gives ports from here on to those who ask for any ...
_LAST = 30_000  # ... up to here
_STRIDE = 97  # blocks between those of one process: its neighbours have the ids next to it

_given = 0  # how often this process has looked: its own clusters must not meet either


def free_ports() -> range:
    """Ports that nobody listens at; not those that another process is given at this time.

    Processes begin to look where their ids say. Raises `UsageError` where all are taken.
    """
    global _given
    blocks = (_LAST - _FIRST) // NEEDED
    start, _given = os.getpid() + _STRIDE * _given, _given + 1
    for number in range(blocks):
        first = _FIRST + (start + number) % blocks * NEEDED
        ports = range(first, first + NEEDED)
        if all(_problem(port) is None for port in ports):
            return ports
    raise UsageError(
        f"there are no {NEEDED} free ports from {_FIRST} to {_LAST}: name some with ports="
    )


def checked(ports: Sequence[int]) -> Sequence[int]:
    """These ports, where they are enough and free. Raises `UsageError`."""
    if len(ports) < NEEDED:
        raise UsageError(f"a controller needs {NEEDED} ports: ports= has {len(ports)}")
    for port in ports:
        if (problem := _problem(port)) is not None:
            raise UsageError(
                f"port {port} cannot be used ({problem}): give others in ports=, or None for any"
            )
    return ports


def _problem(port: int) -> str | None:
    """Why nobody could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return error.strerror or str(error)
    return None
