"""`fanfold.testing.leaks` finds each kind of thing that can be left behind."""

import os
import signal
import subprocess
import tempfile
import threading

import psutil
import pytest

from fanfold.testing import descendants, leaks
from fanfold.testing.functions import until


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """A temporary folder of our own: what is left in it on purpose shall disturb nobody."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_nothing_left():
    """A block that cleans up leaves nothing, also when the end of its thread takes a moment."""
    with leaks() as left:
        subprocess.run(["true"], check=True)
        threading.Timer(0.2, int).start()
    assert left == []


def test_child_process():
    """A child that still runs is named with its command."""
    with leaks(grace=0.1) as left:
        child = subprocess.Popen(["sleep", "30"])
    with child:
        child.kill()
    assert left == [f"process {child.pid} sleep 30"]


def test_zombie():
    """A child that ended, and was not waited for, is left too."""
    with leaks(grace=0.1) as left:
        child = subprocess.Popen(["true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.wait()
    assert left == [f"process {child.pid} <zombie: it ended, and nobody asked how>"]


def test_orphan():
    """A process whose parent is gone is found by its environment."""
    with leaks(grace=0.1) as left:
        command = ["sh", "-c", "sleep 30 >/dev/null & echo $!"]
        orphan = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        until(lambda: psutil.Process(orphan).cmdline() == ["sleep", "30"], "the orphan to begin")
    os.kill(orphan, signal.SIGKILL)
    until(lambda: orphan not in [process.pid for process in descendants()], "the orphan's end")
    assert left == [f"process {orphan} sleep 30"]


def test_thread():
    """A thread that still runs is named."""
    end = threading.Event()
    with leaks(grace=0.1) as left:
        threading.Thread(target=end.wait, name="straggler").start()
    end.set()
    assert left == ["thread straggler"]


def test_what_is_ignored():
    """What the caller ignores does not count; all else does."""
    end = threading.Event()
    with leaks(grace=0.1, ignore=lambda line: line == "thread straggler") as left:
        for name in ("straggler", "other"):
            threading.Thread(target=end.wait, name=name).start()
    end.set()
    assert left == ["thread other"]


def test_descriptors():
    """Open file descriptors are left, each with what it leads to."""
    with leaks(grace=0.1) as left:
        ends = os.pipe()
    for end in ends:
        os.close(end)
    assert [line.split()[:3] for line in left] == [["file", "descriptor", str(end)] for end in ends]


def test_names(tmp_path):
    """A file of fanfold's in the temporary folder is left."""
    with leaks(grace=0.1) as left:
        (tmp_path / "fanfold-leftover").touch()
    assert left == [f"file {tmp_path}/fanfold-leftover"]


def test_segments_of_this_process(tmp_path):
    """A segment in this process's own folder is left; the folder itself is not."""
    folder = tmp_path / f"fanfold-0-boot-1-{os.getpid()}-99-abc"
    with leaks(grace=0.1) as left:
        folder.mkdir()
        (folder / "d0").touch()
    assert left == [f"file {folder}/d0"]


def test_segments_of_other_processes(tmp_path):
    """What another process of this machine writes meanwhile is not ours."""
    with leaks(grace=0.1) as left:
        (tmp_path / f"fanfold-0-boot-1-{os.getppid()}-99-abc").mkdir()
    assert left == []
