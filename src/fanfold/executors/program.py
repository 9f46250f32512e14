"""Run a program for a task: hear all that it says, and leave nothing of it behind."""

from __future__ import annotations

import codecs
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from time import monotonic, sleep

from fanfold.errors import CommandFailed, TaskError
from fanfold.executors.work.standard import flush

__all__ = ["run_program"]

_TICK = 0.1  # seconds between looks whether a program has ended, and whether anybody waits for it
_DEAD = 5.0  # seconds that a killed process may take to end: one that waits for a disk may not
_MOMENT = 0.005  # seconds between looks for a killed process
_KEPT = 8192  # bytes of standard error that an error holds, at most about

# Leads a process group, and does nothing but wait for the end of who started it.
_LEADER = ("/bin/sh", "-c", "trap '' HUP INT TERM; read _; kill -KILL 0")


def run_program(
    argv: list[str], folder: str | None, environment: dict[str, str] | None, given: str | None
) -> bytes:
    """What the program prints; it reads ``given``, or nothing. Raises `CommandFailed`."""
    with ExitStack() as stack:
        stdin = subprocess.DEVNULL
        if given is not None:
            stream = stack.enter_context(tempfile.TemporaryFile())
            stream.write(given.encode("utf-8", "surrogateescape"))
            stream.seek(0)
            stdin = stream.fileno()
        try:
            family = stack.enter_context(_Family())
            process = family.start(argv, folder, environment, stdin)
        except OSError as error:
            raise CommandFailed(argv, None, _why_not_started(argv, error)) from None
        said = _Said()
        conversation = _Conversation(argv, process, said)
        conversation.listen()
    if process.returncode:
        raise CommandFailed(argv, process.returncode, said.last())
    return bytes(conversation.out)


def _why_not_started(argv: Sequence[str], error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == argv[0]:
        return f"there is no program {argv[0]} on {os.uname().nodename}"
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{where}"


class _Family:
    """A program and all that it starts: a process group that ends with us.

    Its leader waits at a pipe. The kernel closes that when this process ends, however it does, and
    the leader then kills the group, itself included. The program is of the group from its first
    instruction on, so there is no moment at which it could be missed.
    """

    def __init__(self) -> None:
        self._leader = subprocess.Popen(
            _LEADER,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        argv: Sequence[str],
        folder: str | None,
        environment: dict[str, str] | None,
        stdin: int,
    ) -> subprocess.Popen[bytes]:
        """Start the program. Raises `OSError`."""
        self._process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment,
            process_group=self._leader.pid,
        )
        return self._process

    def __enter__(self) -> _Family:
        return self

    def __exit__(self, *_: object) -> None:
        """End what is left of it."""
        with suppress(OSError):
            os.killpg(self._leader.pid, signal.SIGKILL)
        for process in filter(None, (self._leader, self._process)):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_DEAD)
            for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
                stream.close()
        self._bury_rest()

    def _bury_rest(self) -> None:
        """A Ctrl-C in the middle of a start leaves a process that nobody knows of."""
        deadline = monotonic() + _DEAD
        with suppress(ChildProcessError):
            while monotonic() < deadline:
                if os.waitpid(-self._leader.pid, os.WNOHANG)[0] == 0:
                    sleep(_MOMENT)


class _Said:
    """What a program says on standard error: passed on as it comes, the end of it kept."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._kept = ""

    def extend(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        self._kept = (self._kept + text)[-_KEPT:]
        with suppress(OSError, ValueError, AttributeError):  # it is closed, or there is none
            sys.stderr.write(text)
            flush(sys.stderr)

    def last(self) -> str:
        """Its last lines, whole ones."""
        _, line_end, rest = self._kept.partition("\n")
        return (rest if line_end and len(self._kept) == _KEPT else self._kept).rstrip()


class _Conversation:
    """What a program says until its end; ``out`` is what it prints."""

    def __init__(self, argv: list[str], process: subprocess.Popen[bytes], said: _Said) -> None:
        assert process.stdout is not None  # noqa: S101 - pipes, both
        assert process.stderr is not None  # noqa: S101
        self.out = bytearray()
        self._argv = argv
        self._process = process
        self._next_look = monotonic() + _TICK
        self._pipes: dict[int, bytearray | _Said]
        self._pipes = {process.stdout.fileno(): self.out, process.stderr.fileno(): said}

    def listen(self) -> None:
        """Until the program has ended; what it has left behind may hold the pipes longer."""
        with selectors.DefaultSelector() as selector:
            for pipe in self._pipes:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ended = self._process.poll() is not None  # before reading: all it said is there
                ready = selector.select(0 if ended else _TICK)
                for key, _ in ready:
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                if ended and not ready:
                    return
                self._look()
        while self._process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_TICK)
            self._look()

    def _read(self, pipe: int) -> bool:
        data = os.read(pipe, 1 << 16)
        self._pipes[pipe].extend(data)
        return bool(data)

    def _look(self) -> None:
        """Raises when nobody waits for the program any more, or when it would wait for ever."""
        if self._process.returncode is not None or monotonic() < self._next_look:
            return
        from fanfold.executors.threads import is_left_behind  # late: most programs are quick

        self._next_look = monotonic() + _TICK
        if is_left_behind():
            raise TaskError("nobody waits for this program any more: it is ended")
        if _waits_for_terminal(self._process.pid):
            why = "it waited for a terminal, and a task has none: have it ask for nothing"
            raise CommandFailed(self._argv, None, why)


def _waits_for_terminal(pid: int) -> bool:
    """Has the kernel stopped it because it is not in the foreground of its terminal?"""
    if not hasattr(os, "waitid"):
        return False
    with suppress(ChildProcessError):
        seen = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        return seen is not None and seen.si_status in (signal.SIGTTIN, signal.SIGTTOU)
    return False
