"""An MPI program: the way of messages between two ranks, printed by rank 0 as JSON.

mpiexec -n 2 python benchmarks/ranks.py 1000
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

COMM = MPI.COMM_WORLD
BALL = bytearray(8)


def one_way(messages: int, throw: Callable[[int], Any], catch: Callable[[int], Any]) -> float:
    """Seconds that a message takes from one rank to the other: half of there and back."""
    COMM.Barrier()
    began = MPI.Wtime()
    for _ in range(messages):
        if COMM.rank == 0:
            throw(1)
            catch(1)
        elif COMM.rank == 1:
            catch(0)
            throw(0)
    return (MPI.Wtime() - began) / max(1, 2 * messages)


def main(messages: int) -> None:
    """First eight bytes as they are, then a Python object, which is pickled."""
    raw = one_way(messages, lambda to: COMM.Send(BALL, to), lambda source: COMM.Recv(BALL, source))
    pickled = one_way(
        messages,
        lambda to: COMM.send({"x": 1}, to),
        lambda source: COMM.recv(source=source),
    )
    if COMM.rank == 0:
        print(json.dumps({"message": raw, "object": pickled}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
