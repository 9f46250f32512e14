"""In a rank: run a function or a script as one rank of an MPI program, and tell how it ended.

A rank tells the driver one of these, each a message of its kind and parts:

    returned   the value, packed
    raised     the exception and its traceback, packed
    left       JSON: the status it left with, by sys.exit
    at         JSON: where its main thread is, when the driver asks

Whoever has raised waits to be ended with the others: to go on into MPI_Finalize would hang, for
they may wait for it in the middle of the program. A second thread reads the lifeline and ends the
process when the driver is gone, or has had enough.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from fanfold.executors.mpi import wire
from fanfold.executors.mpi.memory import forget, named_memory
from fanfold.executors.remote.errand import Buffer, Parcel
from fanfold.executors.work.standard import flush

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["perform"]

_OURS = {__file__, runpy.__file__, "<frozen runpy>"}
_FRAMES = 3  # of a stack, the innermost


def perform(
    world: Intracomm, connection: socket.socket, program: dict[str, Any], parts: Parcel
) -> None:
    """Run the program here, as one rank of ``world``."""
    lifeline = _Lifeline(connection)
    _label(world.rank, program["label"])
    try:
        value = None
        if program["kind"] == "script":
            _run_script(program["argv"])
        else:
            func, (args, kwargs) = wire.loads(parts)
            value = func(world, *args, **kwargs)
        answer: Parcel = [b"returned", *wire.dumps(value)]
    except BaseException as error:  # noqa: BLE001 - whatever it is, it goes to the driver
        answer = _failure(error, program["kind"])
    flush(sys.stdout)
    flush(sys.stderr)
    lifeline.tell(*answer)
    if answer[0] != b"returned":
        lifeline.wait_for_the_end()


def _run_script(argv: list[str]) -> None:
    sys.argv = argv
    sys.path.insert(0, os.path.dirname(os.path.abspath(argv[0])))
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            raise


def _failure(error: BaseException, kind: str) -> Parcel:
    if kind == "script" and isinstance(error, SystemExit):
        if not isinstance(error.code, int):
            print(error.code, file=sys.stderr)  # noqa: T201 - as Python does
        status = error.code if isinstance(error.code, int) else 1
        return [b"left", json.dumps(status).encode()]
    return [b"raised", *wire.dumps_error(_trimmed(error))]


def _trimmed(error: BaseException) -> BaseException:
    """The exception with a traceback that begins in the user's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
        trace = trace.tb_next
    return error.with_traceback(trace)


class _Lifeline:
    """The connection to the driver, read by a thread that ends this process with it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._main = threading.get_ident()
        threading.Thread(target=self._read, name="fanfold-lifeline", daemon=True).start()

    def tell(self, *parts: Buffer) -> None:
        with self._sending, contextlib.suppress(OSError):  # the other thread sees the end
            wire.send(self._connection, *parts)

    def wait_for_the_end(self) -> None:
        """Keep still until the driver ends the crew."""
        threading.Event().wait()

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                wire.receive(self._connection)  # it only ever asks one thing
                frame = sys._current_frames()[self._main]
                stack = "".join(traceback.format_stack(frame)[-_FRAMES:])
                self.tell(b"at", stack.encode())
        forget(named_memory())
        os._exit(1)


def _label(rank: int, streams: list[str]) -> None:
    """Put the rank in front of each line that Python prints to these of its streams.

    The others write whole lines, though they are pipes.
    """
    for name in ("stdout", "stderr"):
        descriptor = 1 if name == "stdout" else 2
        if name in streams:
            lines = io.BufferedWriter(_Lines(descriptor, rank))
            labelled = io.TextIOWrapper(lines, "utf-8", "backslashreplace", line_buffering=True)
            setattr(sys, name, labelled)
        else:
            getattr(sys, name).reconfigure(line_buffering=True, write_through=False)


class _Lines(io.RawIOBase):
    """Writes whole lines to a descriptor, each at once, so that ranks do not mix within a line."""

    def __init__(self, descriptor: int, rank: int) -> None:
        self._descriptor = descriptor
        self._start = f"[{rank}] ".encode()
        self._rest = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        *lines, self._rest = (self._rest + bytes(data)).split(b"\n")
        for line in lines:
            os.write(self._descriptor, self._start + line + b"\n")
        return len(data)

    def close(self) -> None:
        if self._rest and not self.closed:
            self.write(b"\n")
        super().close()
