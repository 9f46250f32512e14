"""Run the commands of a page's console blocks, and write what they print under them.

    python tools/sessions.py docs/index.md

tests/test_examples.py runs the same commands, and compares.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?<=^```console\n)(.*?)(?=^```)", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
Session = list[tuple[str, str]]  # commands, and what each prints


def sessions(text: str) -> Iterator[tuple[int, Session]]:
    """The console blocks of a page: the line where each begins, and its commands."""
    for block in BLOCK.finditer(text):
        yield text[: block.start()].count("\n"), COMMAND.findall(block[1])


def prepare(folder: Path) -> dict[str, str]:
    """Make a folder ready for a session, with the examples in it; its environment."""
    command = folder / "fanfold"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fanfold "$@"\n')
    command.chmod(0o755)
    (folder / "examples").symlink_to(ROOT / "examples")
    return os.environ | {
        "PATH": f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "TERM": "dumb",  # no colours
    }


def in_terminal(line: str, folder: Path, environment: dict[str, str]) -> str:
    """What a command shows in a terminal, standard output and standard error together."""
    ours, theirs = pty.openpty()
    with open(theirs, "wb", buffering=0) as terminal, open(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            ["bash", "-c", line], stdout=terminal, stderr=terminal, cwd=folder, env=environment
        )
        terminal.close()
        shown = b""
        with contextlib.suppress(OSError):  # Linux: how the end of a terminal is told
            while more := screen.read(65536):
                shown += more
        process.wait(timeout=60)
    return shown.decode().replace("\r\n", "\n")


def run_again(block: re.Match[str]) -> str:
    """A console block with what its commands print now."""
    with tempfile.TemporaryDirectory() as name:
        environment = prepare(Path(name))
        return "".join(
            f"$ {line}\n{in_terminal(line, Path(name), environment)}"
            for line, _ in COMMAND.findall(block[1])
        )


def main() -> None:
    for page in map(Path, sys.argv[1:]):
        page.write_text(BLOCK.sub(run_again, page.read_text()))


if __name__ == "__main__":
    main()
