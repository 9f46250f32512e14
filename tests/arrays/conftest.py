"""Scripts in processes of their own, for what ends or starves the process that shares."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

_PREAMBLE = """\
import os, pickle, signal, sys
import numpy as np
import fanfold as ff

def say(*words):
    print(*words, flush=True)

"""

Script = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Start a script: ``script(text, *arguments, prefix=())``; it gives lines, and takes them."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *arguments: object, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        path = tmp_path / f"script-{len(started)}.py"
        path.write_text(_PREAMBLE + text)
        command = [*prefix, sys.executable, str(path), *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def output(process: subprocess.Popen[str]) -> list[str]:
    """All lines that a script says until its end, which must be a good one."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.splitlines()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a script says."""
    assert process.stdout is not None
    said = process.stdout.readline().rstrip("\n")
    assert said, process.communicate()[1]
    return said
