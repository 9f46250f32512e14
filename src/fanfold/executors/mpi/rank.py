"""In a rank: join the crew, learn what is to be done, and do it.

The first part of the program is JSON: ``kind`` says which, ``path`` and ``folder`` are the driver's
``sys.path`` and working directory. The other parts belong to the kind:

    call      a function and its arguments: func(comm, *args), on every rank
    script    nothing: a Python file, on every rank, ``argv`` its arguments
    bridge    nothing: rank 0 hands errands of the driver to the others
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from fanfold.executors.mpi import wire
from fanfold.executors.mpi.memory import named_memory
from fanfold.executors.remote.errand import Parcel, versions
from fanfold.resources import blas_threads, cores, thread_environment

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["main"]

_CONNECTING = 10.0  # seconds for one address of the driver
_PIECE = 1 << 30  # bytes in one message of MPI, whose counts may have 32 bits


def main() -> None:
    """The whole life of a rank; it ends with the process."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    invitation = _invitation(world)
    _limit_threads(world, MPI.COMM_TYPE_SHARED)
    crew = world.gather(_hello(world, invitation["memory"]))
    connection = None
    if world.rank == 0 or invitation["connect"] == "all":
        connection = _connect(invitation)
        hello = {"rank": world.rank, **({"crew": crew} if world.rank == 0 else {})}
        wire.send(connection, json.dumps(hello).encode())
    given = wire.receive(connection) if connection is not None and world.rank == 0 else None
    parts = _broadcast(world, given)
    _perform(world, connection, json.loads(bytes(parts[0])), parts[1:])


def _perform(
    world: Intracomm,
    connection: socket.socket | None,
    program: dict[str, Any],
    parts: Parcel,
) -> None:
    sys.path[:] = program["path"]
    with contextlib.suppress(OSError):  # it is not there on this machine
        os.chdir(program["folder"])
    if program["kind"] == "bridge":
        from fanfold.executors.mpi.bridge import serve

        serve(world, connection)
    else:
        from fanfold.executors.mpi.perform import perform

        assert connection is not None  # all are connected  # noqa: S101
        perform(world, connection, program, parts)


def _invitation(world: Intracomm) -> dict[str, Any]:
    """What the driver has written to rank 0, told to all."""
    line = b""
    if world.rank == 0:
        line = sys.stdin.buffer.readline()
        if not line:  # one of many that are each rank 0 of 1: the first has it, and tells
            sys.exit("fanfold: this rank was not invited: it is no rank of a crew")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    invitation: dict[str, Any] = json.loads(world.bcast(line))
    return invitation


def _limit_threads(world: Intracomm, shared: int) -> None:
    """The ranks of a machine share its cores; so do the libraries in them."""
    neighbours = world.Split_type(shared)
    share = blas_threads(neighbours.size, int(cores()))
    neighbours.Free()
    os.environ.update(thread_environment(share))
    os.environ["FANFOLD_CORES"] = str(share)


def _hello(world: Intracomm, memory: str) -> dict[str, Any]:
    from mpi4py import MPI

    return {
        "pid": os.getpid(),
        "rank": world.rank,
        "host": socket.gethostname(),
        "versions": versions(),
        "shared": named_memory(),
        "near": os.path.isdir(memory),  # its name is 64 random bits
        "library": " ".join(MPI.Get_library_version().splitlines()[0].split(",")[0].split()),
    }


def _connect(invitation: dict[str, Any]) -> socket.socket:
    """A connection to the driver, which proves itself; `OSError` when it is nowhere."""
    failure: Exception = OSError("no address")
    for address in invitation["addresses"]:
        try:
            connection = socket.create_connection((address, invitation["port"]), _CONNECTING)
            wire.greet(connection, bytes.fromhex(invitation["secret"]))
        except (OSError, EOFError, wire.Stranger) as error:
            failure = error
            continue
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise OSError(f"the driver cannot be reached at {invitation['addresses']}: {failure}")


def _broadcast(world: Intracomm, parts: Parcel | None) -> Parcel:
    """The parts that rank 0 has, on all ranks; into memory, without another copy."""
    lengths = world.bcast([len(part) for part in parts or ()])
    there: Parcel = [bytearray(length) for length in lengths] if parts is None else parts
    for part in there:
        view = memoryview(part)
        for start in range(0, len(view), _PIECE):
            world.Bcast(view[start : start + _PIECE])
    return there
