"""`ff.spmd`: an MPI program from Python, one function on every rank."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from fanfold.errors import LoadFailed, RemoteTraceback, UsageError, WorkerDied
from fanfold.executors.mpi import wire
from fanfold.executors.mpi.crew import Crew
from fanfold.executors.mpi.start import start_crew
from fanfold.executors.remote.errand import Buffer, Parcel

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["Left", "run_script", "spmd"]

P = ParamSpec("P")
T = TypeVar("T")

_TICK = 0.2  # seconds between looks whether the launcher lives
_ANSWER = 1.0  # seconds in which a rank tells where it is
_LAST_WORDS = 0.3  # seconds in which a rank that has failed may still tell why
_STREAMS = ["stdout", "stderr"]


def spmd(
    func: Callable[Concatenate[Intracomm, P], T],
    ranks: int = 4,
    *args: P.args,
    **kwargs: P.kwargs,
) -> list[T]:
    """Run an MPI program: ``func(comm, *args)`` on each of ``ranks`` ranks; what they returned.

    ``comm`` is mpi4py's ``MPI.COMM_WORLD``; ``ranks`` is a whole number from 1, more than cores
    too. The ranks are started by the launcher that works here, which is found out once: ``srun``
    in a Slurm allocation, else ``mpiexec``. They are new processes: what ``func`` needs of this one
    is sent to them, and what it returns is sent back, in the order of the ranks. Each line that a
    rank prints has its number in front.

    When ``func`` raises on one rank, all are ended, and that exception is raised here, with the
    traceback of its rank. A rank that dies is a `WorkerDied`. Ctrl-C ends all ranks, and its notes
    say where each of them was.

    Raises `UsageError` where mpi4py is not installed, and `StartupFailed`, with what each launcher
    said, where none works.

    >>> import fanfold as ff
    >>> def total(comm, factor):
    ...     return comm.allreduce(factor * comm.rank)
    >>> ff.spmd(total, 3, 10)
    [30, 30, 30]
    """
    if not callable(func):
        raise UsageError(f"spmd takes a function of the communicator, not {func!r}")
    parts = wire.dumps_function(func, (args, kwargs))
    crew = _start(ranks)
    try:
        returned = _Outcome(crew).of({"kind": "call", "label": _STREAMS}, *parts)
        return [wire.loads(value) for value in returned]
    finally:
        crew.end()


class Left(Exception):  # noqa: N818 - an end that a script has chosen, not an error
    """A rank of a script has called ``sys.exit(status)``."""

    def __init__(self, rank: int, status: int) -> None:
        super().__init__(rank, status)
        self.rank = rank
        self.status = status


def run_script(argv: list[str], ranks: int, label: bool = False) -> None:
    """Run a Python file on each rank; ``argv`` is its path and arguments.

    Its standard output is ours; ``label`` puts the rank in front of each line. Raises as `spmd`
    does, and `Left` where a rank ends with a status other than 0.
    """
    crew = _start(ranks)
    try:
        streams = _STREAMS if label else ["stderr"]
        _Outcome(crew).of({"kind": "script", "argv": argv, "label": streams})
    finally:
        crew.end()


def _start(ranks: int) -> Crew:
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise UsageError(f"ranks must be a whole number from 1, not {ranks!r}")
    return start_crew(ranks, connect="all", eager=False)


class _Outcome:
    """Has the ranks begin, and waits until every one has returned, or one has failed."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._returned: dict[int, Parcel] = {}
        self._lost: list[int] = []
        self._selector = crew.selector()

    def of(self, what: dict[str, Any], *parts: Buffer) -> list[Parcel]:
        """What the ranks returned, packed, by rank; raises what one of them has raised."""
        with self._selector:
            try:
                self._crew.begin(what, *parts)
                self._wait()
            except KeyboardInterrupt as interrupt:
                self._locate(interrupt)
                raise
        self._crew.settle()
        self._crew.said.show()
        return [self._returned[rank] for rank in range(self._crew.size)]

    def _wait(self) -> None:
        while len(self._returned) < self._crew.size:
            ended = self._crew.ended()  # before we look: what it has told is there
            seen = self._look(_TICK)
            if self._lost or (ended and not seen):
                self._mourn()

    def _look(self, seconds: float) -> bool:
        """Take what has come within so many seconds; has anything?"""
        ready = self._selector.select(seconds)
        for key, _ in ready:
            rank, connection = key.data, key.fileobj
            assert isinstance(connection, socket.socket)  # as registered  # noqa: S101
            try:
                kind, *parts = wire.receive(connection)
            except EOFError:
                self._selector.unregister(connection)
                if rank not in self._returned:
                    self._lost.append(rank)
                continue
            self._take(rank, bytes(kind), parts)
        return bool(ready)

    def _take(self, rank: int, kind: bytes, parts: Parcel) -> None:
        if kind == b"returned":
            self._returned[rank] = parts
            return
        self._crew.said.show()
        if kind == b"left":
            raise Left(rank, json.loads(bytes(parts[0])))
        raise self._error(rank, parts)

    def _error(self, rank: int, parts: Parcel) -> BaseException:
        try:
            error, text = wire.loads(parts)
        except Exception as failure:  # noqa: BLE001 - a user's __setstate__ may do anything
            error, text = LoadFailed(f"its exception cannot be loaded here: {failure}"), ""
        error.__cause__ = RemoteTraceback(text)
        error.add_note(f"fanfold: raised by {self._crew.name_of(rank)}")
        found: BaseException = error
        return found

    def _mourn(self) -> None:
        """A rank has ended without a word: raise what another has to say, or that."""
        deadline = monotonic() + _LAST_WORDS
        while monotonic() < deadline and self._selector.get_map():
            self._look(_LAST_WORDS / 10)
        crew, first = self._crew, self._lost[0] if self._lost else 0
        status = crew.settle()
        number = crew.death_signal()
        how = f"was ended by signal {number}" if number else "ended without a word"
        raise WorkerDied(
            f"{crew.name_of(first)} {how} before its function did, and all ranks with it "
            f"({crew.launcher.name} ended with status {status})",
            pid=crew.hellos[first]["pid"],
            exitcode=-number if number else None,
        )

    def _locate(self, interrupt: KeyboardInterrupt) -> None:
        """Note where each rank is that has not returned: it may wait for another for ever."""
        for rank in range(self._crew.size):
            if rank in self._returned:
                interrupt.add_note(f"fanfold: {self._crew.name_of(rank)} had returned")
                continue
            connection = self._crew.connections[rank]
            connection.settimeout(_ANSWER)
            try:
                wire.send(connection, b"where")
                kind, text = wire.receive(connection)[:2]
            except (OSError, EOFError):
                continue
            if kind == b"at":
                place = bytes(text).decode(errors="replace").rstrip()
                interrupt.add_note(f"fanfold: {self._crew.name_of(rank)} was at\n{place}")
