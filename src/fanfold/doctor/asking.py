"""Questions that may hang or crash: each is answered by a process of its own, within its time."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from time import monotonic
from typing import Any, NamedTuple

from fanfold.doctor.findings import Finding, Kind
from fanfold.units import format_duration

__all__ = ["Question", "answer", "ask_all"]

_CHILD = "from fanfold.doctor.asking import answer; answer()"
_GRACE = 20.0  # seconds that an answer in its last moment, or the clearing up after it, may take
_TICK = 0.05  # seconds between looks whether somebody has ended
_DEAD = 5.0  # seconds that a killed process may take to end


class Question(NamedTuple):
    """``look`` is the ``"module:function"`` that is called with ``arguments`` and returns findings.

    ``limit`` are the seconds it may take. ``idle`` says that it mostly waits, for a queue.
    """

    kind: Kind
    name: str
    look: str
    arguments: dict[str, Any]
    limit: float
    idle: bool = False


def ask_all(questions: Sequence[Question], at_once: int) -> list[Finding]:
    """The answers, in the order of the questions; ``at_once`` are asked at a time, and all that are
    idle. Nothing of a question is left when it is answered, or when this is interrupted."""
    waiting = deque(sorted(enumerate(questions), key=lambda one: not one[1].idle))
    asked: dict[int, _Asked] = {}
    try:
        while waiting or any(one.open for one in asked.values()):
            at_work = sum(one.open and not one.question.idle for one in asked.values())
            while waiting and (waiting[0][1].idle or at_work < at_once):
                place, question = waiting.popleft()
                asked[place] = _Asked(question)
                at_work += not question.idle
            _listen([one for one in asked.values() if one.open])
    finally:
        for one in asked.values():
            one.end()
    return [finding for place in sorted(asked) for finding in asked[place].findings]


def _listen(asked: Sequence[_Asked]) -> None:
    with selectors.DefaultSelector() as selector:
        for one in asked:
            if not one.told:
                selector.register(one.pipe, selectors.EVENT_READ, one)
        for key, _ in selector.select(_TICK):
            key.data.read()
    for one in asked:
        one.look()


class _Asked:
    """A question and the process that answers it.

    ``told`` says that it has answered, or never will; ``open`` that its process is there.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.told = False
        self.open = True
        self._said = bytearray()
        self._deadline = monotonic() + question.limit + _GRACE
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self.pipe, theirs = os.pipe()
        command = [sys.executable, "-P", "-c", _CHILD, str(theirs), json.dumps(question)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)

    def read(self) -> None:
        """It says something."""
        data = os.read(self.pipe, 1 << 16)
        self._said += data
        if not data or data.endswith(b"\n"):
            self.told = True

    def look(self) -> None:
        """Has it ended, or should it have?"""
        if self._process.poll() is not None:
            while not self.told:
                self.read()
            self.end()
        elif monotonic() > self._deadline:
            self.end()

    def end(self) -> None:
        """End its process, and all that is left of it."""
        if not self.open:
            return
        self.open = False
        self._late = self._process.poll() is None
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DEAD)
        os.close(self.pipe)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        self._last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        self._log.close()

    @property
    def findings(self) -> list[Finding]:
        """What it has found; when it has not answered, how it ended."""
        with suppress(ValueError):
            return [Finding(*told) for told in json.loads(self._said)]
        code = self._process.returncode
        if self._late:
            why = f"no answer within {format_duration(self.question.limit + _GRACE)}: it hangs"
        elif code is not None and code < 0:
            why = f"its process was ended by signal {signal.Signals(-code).name}"
        else:
            why = f"its process ended with exit status {code}"
        said = f"; the last it said: {self._last}" if self._last else ""
        return [Finding(self.question.kind, self.question.name, "broken", why + said)]


def answer() -> None:
    """In the process that answers: look, and tell what there is."""
    descriptor, text = int(sys.argv[1]), sys.argv[2]
    os.set_inheritable(descriptor, False)
    question = Question(*json.loads(text))
    module, _, name = question.look.partition(":")
    found: Iterator[Finding] = getattr(import_module(module), name)(**question.arguments)
    with open(descriptor, "w", encoding="utf-8") as pipe:
        pipe.write(json.dumps(list(found)) + "\n")
