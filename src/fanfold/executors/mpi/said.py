"""What ranks and their launcher print, on its way to the driver's own streams.

A launcher mixes what its ranks print with remarks of its own, mostly about ranks that we have ended
on purpose. So it is read here. From standard error, lines with the label of a rank are shown at
once; the others are kept, to be shown when all went well, and to be quoted when not. Standard
output is shown as it comes, up to where MPICH's mpiexec begins to explain why it ends.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO

__all__ = ["Said"]

_KEPT = 1000  # lines
_PATIENCE = 2.0  # seconds; an orphan of a rank may hold a pipe open
_CHUNK = 1 << 16
_LABEL = re.compile(rb"\[\d+\] ")
_BANNER = b"=" * 83 + b"\n=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"


class Said:
    """Reads the pipes of a launcher, each by a thread of its own.

    With ``eager``, lines without a label are shown at once, too, until `mute`.
    """

    def __init__(self, process: subprocess.Popen[bytes], eager: bool) -> None:
        self._eager = eager
        self._kept: list[bytes] = []
        self._threads = [
            threading.Thread(target=self._guard, args=(reader, pipe), daemon=True)
            for reader, pipe in ((self._errors, process.stderr), (self._output, process.stdout))
        ]
        for thread in self._threads:
            thread.start()

    def _guard(self, reader: Callable[[IO[bytes]], None], pipe: IO[bytes]) -> None:
        with pipe:
            try:
                reader(pipe)
            except (OSError, ValueError):  # nobody reads what we print: nor do we
                return

    def _errors(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            if self._eager or _LABEL.match(line):
                _show(line, "stderr")
            else:
                self._keep(line)

    def _output(self, pipe: IO[bytes]) -> None:
        content = b""
        while chunk := pipe.read1(_CHUNK):  # type: ignore[attr-defined]
            content += chunk
            end = _before_banner(content)
            _show(content[:end], "stdout")
            content = content[end:]
            if content.lstrip(b"\n").startswith(_BANNER):
                self._keep(content + pipe.read())
                return
        _show(content, "stdout")

    def _keep(self, content: bytes) -> None:
        if content and len(self._kept) < _KEPT:
            self._kept.append(content)

    def all(self) -> str:
        """What has been kept; everything is there when the launcher has ended."""
        for thread in self._threads:
            thread.join(_PATIENCE)
        return b"".join(self._kept).decode(errors="replace")

    def show(self) -> None:
        """Show what has been kept."""
        for line in self._kept:
            _show(line, "stderr")
        self._kept.clear()

    def mute(self) -> None:
        """Ranks are being ended: what the launcher remarks on it is not shown."""
        self._eager = False


def _before_banner(content: bytes) -> int:
    """Where the banner begins, or may begin once more has come; else the end."""
    start = content.find(_BANNER)
    if start >= 0 or content == b"\n":  # an empty line comes first, for itself
        return max(0, start - 1) if content[:1] == b"\n" and start <= 1 else start
    return next(
        (
            len(content) - length
            for length in range(min(len(_BANNER), len(content)), 0, -1)
            if content.endswith(_BANNER[:length])
        ),
        len(content),
    )


def _show(content: bytes, name: str) -> None:
    """Into ``sys.stdout`` or ``sys.stderr`` as they are now: a notebook has its own."""
    stream = getattr(sys, name)
    if not content:
        return
    binary = getattr(stream, "buffer", None)
    if binary is not None:
        stream.flush()
        binary.write(content)
        binary.flush()
    elif stream is not None:
        stream.write(content.decode(errors="replace"))
        stream.flush()
