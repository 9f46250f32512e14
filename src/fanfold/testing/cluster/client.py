"""The program behind every command of a pretend cluster: it asks the server, and prints its answer.

    python -IS client.py FOLDER COMMAND [ARGUMENT...]

Tests start hundreds of these, so it imports as little as it can.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

TYPE_CHECKING = False  # as of typing, which takes long to import
if TYPE_CHECKING:
    from typing import Any, TextIO

# Slurm's commands wait while nobody answers; these do not, and end at once.
_NOBODY = "{name}: error: the pretend cluster in {folder} has ended\n"


def main(folder: str, name: str, argv: list[str]) -> int:
    """Ask the server of the cluster in ``folder``; the exit status is the one it says."""
    for signum in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_DFL)  # as programs end that are not Python
    request = {"name": name, "argv": argv, "cwd": _here(), "environment": dict(os.environ)}
    try:
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(folder)  # a path to the socket may be longer than the kernel allows
            server.connect("socket")
            with server.makefile("rw", encoding="ascii") as stream:
                answer = _ask(stream, request)
                if answer.get("read"):
                    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
                    answer = _ask(stream, {"stdin": text})
    except OSError:
        sys.stderr.write(_NOBODY.format(name=name, folder=folder))
        return 1
    return _obey(answer)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def _ask(stream: TextIO, question: dict[str, Any]) -> dict[str, Any]:
    """One line there, one line back. An answer that never comes ends with the server."""
    stream.write(json.dumps(question) + "\n")
    stream.flush()
    line = stream.readline()
    if not line:
        raise ConnectionError
    answer: dict[str, Any] = json.loads(line)
    return answer


def _obey(answer: dict[str, Any]) -> int:
    for stream, text in ((sys.stdout, answer["out"]), (sys.stderr, answer["err"])):
        stream.buffer.write(text.encode("utf-8", "surrogateescape"))
        stream.flush()
    if answer["signal"]:
        os.kill(os.getpid(), answer["signal"])
        signal.pause()
    return int(answer["code"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
