"""A driver that is killed at each of its calls to the system, one after another."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fanfold.errors import RunDamaged
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import Journal, tail
from fanfold.store.lease import Lease
from fanfold.store.pack import PackReader

# Works on one run again and again, as one attempt after another, and is killed at the first call,
# at the second, and so on; of what it was about to write then, half is written.
SCRIPT = """\
import os, signal, sys
from itertools import count
from pathlib import Path
from fanfold.store.directory import RunDirectory
from fanfold.store.journal import JournalWriter
from fanfold.store.lease import Lease
from fanfold.store.pack import PackWriter

CALLS = ("open", "write", "fdatasync", "fsync", "link", "replace", "unlink", "close", "ftruncate")

def kill_at(number):
    calls = count(1)
    def deadly(name, real):
        def call(*args, **named):
            if next(calls) == number:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)
        return call
    for name in CALLS:
        setattr(os, name, deadly(name, getattr(os, name)))

def work(directory, marks_first):
    lease = Lease.take(directory, 0)
    directory.write_text("run.json", '{"whole": true}')
    with (
        PackWriter(directory.pack(0, lease.attempt), {"run": "7f3a"}) as pack,
        JournalWriter(directory.journal(0, lease.attempt), {"run": "7f3a"}) as journal,
    ):
        for task in range(3):
            lease.beat({"task": task})
            payload = b"result %d" % task
            place = (pack.size, 32 + len(payload))
            if marks_first:
                journal.append([{"is": "done", "first": task, "place": place}])
            assert pack.append(task, 1, 1, payload) == place
            pack.sync()
            if not marks_first:
                journal.append([{"is": "done", "first": task, "place": place}])
        journal.append([{"is": "end", "why": "done"}])
        journal.sync()

directory = RunDirectory(Path(sys.argv[1]))
for number in count(1):
    pid = os.fork()
    if pid == 0:
        kill_at(number)
        work(directory, marks_first=sys.argv[2] == "marks first")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
print(number)
"""


def killed_again_and_again(directory: RunDirectory, order: str) -> int:
    """How often it was killed before it came to its end."""
    command = [sys.executable, "-c", SCRIPT, str(directory.path), order]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) - 1


def violations(directory: RunDirectory) -> list[str]:
    """What is recorded as done and has no result, or another's."""
    wrong = []
    for element, attempt in directory.writers():
        try:
            journal = Journal(directory.journal(element, attempt))
        except RunDamaged:  # killed in its first line
            continue
        records = list(journal.records())
        assert [record.get("first") for record in records if record["is"] == "done"] == [
            *range(sum(record["is"] == "done" for record in records))
        ]
        with PackReader(directory.pack(element, attempt), run="7f3a") as pack:
            for record in records:
                if record["is"] == "done":
                    task = record["first"]
                    try:
                        frame = pack.read(record["place"], expect=(task, 1))
                        assert bytes(frame.payload) == b"result %d" % task
                    except RunDamaged as error:
                        wrong.append(str(error))
    return wrong


def test_killed_at_every_call(directory: RunDirectory) -> None:
    """R01, R02: wherever a driver is killed, and its successor after it, again and again: the next
    takes over at once, and what is recorded as done has its result."""
    kills = killed_again_and_again(directory, "results first")
    assert kills > 50
    assert violations(directory) == []
    attempts = directory.attempts(0)
    assert attempts == list(range(1, len(attempts) + 1))
    assert tail(directory.journal(0, attempts[-1]))[-1]["is"] == "end"
    assert Lease.take(directory, 0).attempt == attempts[-1] + 1
    assert directory.read_json("run.json") == {"whole": True}


def test_the_sweep_can_fail(directory: RunDirectory) -> None:
    """The same kills find a driver that records a result before it has it."""
    killed_again_and_again(directory, "marks first")
    assert violations(directory) != []


@pytest.mark.parametrize("name", ["leases", "."])
def test_what_a_kill_leaves_is_not_read(directory: RunDirectory, name: str) -> None:
    """R01: a file that was being written when its writer died is hidden, and nobody takes it for
    another."""
    killed_again_and_again(directory, "results first")
    left = [path for path in (directory.path / name).iterdir() if path.name.startswith(".")]
    assert left
    for path in left:
        path.write_text(json.dumps({"is": "none"}))
    assert violations(directory) == []
    assert Lease.take(directory, 0).attempt == directory.attempts(0)[-1]
