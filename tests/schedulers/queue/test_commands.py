"""How commands are run: what they say, how they end, and what ends with them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fanfold.errors import SchedulerDown, UsageError
from fanfold.schedulers import commands
from fanfold.schedulers.commands import ask
from fanfold.testing.functions import until


def test_words_stay_words(tmp_path: Path) -> None:
    """S21, X10: no shell reads what a command is given."""
    words = ["$(touch canary)", "; touch canary", "a b", "'", "\n", "*", "-n", "`touch canary`"]
    code = "import sys; print(sys.argv[1:])"
    answer = ask([sys.executable, "-c", code, *words], folder=tmp_path)
    assert (answer.code, answer.out) == (0, f"{words}\n")
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_text() -> None:
    """Bytes that are no UTF-8 are replaced: the job names of others never spoil an answer."""
    answer = ask(["sh", "-c", r"printf 'caf\351 \377\n'; printf 'gr\374n' >&2; exit 35"])
    assert answer[1:] == (35, "caf\ufffd \ufffd\n", "gr\ufffdn")


def test_input_and_none() -> None:
    """A command reads what it is given, however long, and else nothing: it never waits for us."""
    text = "é" * 300_000
    assert ask(["cat"], input=text).out == text
    assert ask(["cat"]).out == ""


def test_no_terminal() -> None:
    """A command has a session of its own: Ctrl-C, and the end of our terminal, do not reach it."""
    code = "import os; print(os.getsid(0) == os.getpid())"
    assert ask([sys.executable, "-c", code]).out == "True\n"


def test_both_pipes_full() -> None:
    """A command that says much on both pipes is heard to its end."""
    code = "import sys; sys.stderr.write('e' * 300_000); sys.stdout.write('o' * 300_000)"
    answer = ask([sys.executable, "-c", code])
    assert (answer.code, len(answer.out), len(answer.err)) == (0, 300_000, 300_000)


@pytest.mark.parametrize(
    "script",
    ["sleep 600 & sleep 600", "exec >&- 2>&-; sleep 600", "trap '' TERM INT HUP; sleep 600 & wait"],
    ids=["with a child", "with its pipes closed", "that obeys no signal"],
)
def test_too_long(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """S01: a command that does not end is killed with its children; it has no exit status."""
    read = commands._Conversation._read

    def late(conversation: commands._Conversation, pipe: int) -> bool:
        monkeypatch.setattr(commands, "monotonic", lambda: math.inf)
        return read(conversation, pipe)

    monkeypatch.setattr(commands, "monotonic", lambda: 0.0)
    monkeypatch.setattr(commands._Conversation, "_read", late)
    began = time.monotonic()
    answer = ask(["sh", "-c", f"echo begun; {script}"], timeout=1.0)
    assert (answer.code, answer.out) == (None, "begun\n")
    assert time.monotonic() - began < 100


def test_talk_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command says is bounded: one that goes on and on is ended, and counts as silent."""
    monkeypatch.setattr(commands, "_SIZE", 1 << 20)
    answer = ask(["sh", "-c", "while :; do echo y; done"])
    assert answer.code is None
    assert len(answer.out) < 1 << 22


def test_what_it_leaves_behind() -> None:
    """The first qsub leaves a process behind for a minute: it is not waited for, nor killed."""
    began = time.monotonic()
    answer = ask(["sh", "-c", "sleep 600 & echo $!"])
    assert time.monotonic() - began < 100
    assert answer.code == 0
    os.kill(int(answer.out), signal.SIGKILL)  # it lives: no ProcessLookupError


def test_ended_by_a_signal() -> None:
    """A command that was killed has minus the signal for its exit status."""
    assert ask(["sh", "-c", "kill -9 $$"]).code == -9


@pytest.mark.parametrize("argv", [["sbatch-9", "x"], ["env", "-u", "A", "B=c", "sbatch-9", "x"]])
def test_not_installed(argv: list[str]) -> None:
    """A command that is not here is named, with what to do: in `env` as well."""
    with pytest.raises(UsageError, match=r"no command sbatch-9 here: .*module load slurm"):
        ask(argv)
    with pytest.raises(UsageError, match="module load pbs"):
        ask(["qsub-9"])


def test_cannot_be_executed(tmp_path: Path) -> None:
    """A file that the system cannot run is no such command either."""
    (tmp_path / "sbatch").write_text("no program")
    (tmp_path / "sbatch").chmod(0o755)
    with pytest.raises(UsageError, match="there is no command"):
        ask([str(tmp_path / "sbatch")])


def test_too_many_words() -> None:
    """What this machine cannot start now is trouble that passes, not the user's mistake."""
    with pytest.raises(SchedulerDown, match="echo cannot be started"):
        ask(["echo", "x" * (1 << 22)])


INTERRUPTED = """
import itertools, pathlib, sys
from fanfold.schedulers.commands import _Conversation, ask

def listen(conversation, listen=_Conversation._listen, times=itertools.count(1)):
    pathlib.Path(f"listens-{next(times)}").touch()
    return listen(conversation)

_Conversation._listen = listen
try:
    ask(["sh", "-c", "touch begun; while [ ! -e go ]; do sleep 0.01; done; touch ended"],
        finish=sys.argv[1] == "finish")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("finish", ["finish", "at once"])
def test_interrupted(tmp_path: Path, finish: str) -> None:
    """S02: Ctrl-C ends a question at once, but not a submission that is under way: that ends by
    itself, then Ctrl-C is heard."""
    drive = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, finish],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until((tmp_path / "begun").exists, "the command to begin")
    until((tmp_path / "listens-1").exists, "its words to be listened to")
    os.killpg(drive.pid, signal.SIGINT)
    if finish == "finish":
        with pytest.raises(subprocess.TimeoutExpired):
            drive.wait(0.3)  # a while in which nothing must happen
        (tmp_path / "go").touch()
    assert drive.communicate(timeout=60)[0] == "interrupted\n"
    assert (tmp_path / "ended").exists() == (finish == "finish")


def test_interrupted_twice(tmp_path: Path) -> None:
    """A second Ctrl-C ends a submission, too: nothing holds who wants to leave."""
    drive = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.replace("touch begun", "echo $$ > begun"), "finish"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until((tmp_path / "begun").exists, "the command to begin")
    for times in (1, 2):  # the second when the first has been heard
        until((tmp_path / f"listens-{times}").exists, "its words to be listened to")
        os.killpg(drive.pid, signal.SIGINT)
    assert drive.communicate(timeout=60)[0] == "interrupted\n"
    assert not (tmp_path / "ended").exists()
