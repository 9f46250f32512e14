"""What a block of code left behind: processes, threads, file descriptors, named memory."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

__all__ = ["descendants", "leaks"]

# One of each lives as long as the process that started it, by design, and ends with it.
_HELPERS = (
    "fanfold.executors.pool.launcher",
    "multiprocessing.resource",
    "multiprocessing.forkserver",
)


def descendants() -> list[psutil.Process]:
    """Living processes that this one started, directly or not, orphans and zombies included.

    Orphans are known by a variable that every process started after the first call inherits in
    its environment: their parent is gone, and their name says nothing.

    >>> import subprocess
    >>> _ = descendants()
    >>> with subprocess.Popen(["sleep", "5"]) as child:
    ...     child.pid in [process.pid for process in descendants()]
    ...     child.kill()
    True
    """
    here = psutil.Process()
    name, value = f"FANFOLD_DESCENDANT_OF_{here.pid}", str(here.create_time())
    os.environ[name] = value
    found = set(here.children(recursive=True))
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(name) == value:
                found.add(process)
    return sorted(found, key=lambda process: process.pid)


@contextmanager
def leaks(
    grace: float = 10.0, ignore: Callable[[str], bool] = lambda line: False
) -> Iterator[list[str]]:
    """Gather what the block leaves behind, into a list that is filled when the block ends.

    A line each for processes (`descendants`), threads, file descriptors, and names in ``/dev/shm``
    and the temporary folder that begin with ``fanfold-``, those of other processes excepted; what
    goes away within ``grace`` seconds does not count: nobody waits longer than it takes. Nor does
    what ``ignore(line)`` is true of. Helpers that live as long as this process (fanfold's launcher,
    multiprocessing's fork server) are no leak, nor are descriptors new since one was started.

    >>> with leaks(grace=0.1) as left:
    ...     stream = open("/dev/null")
    >>> left
    ['file descriptor ... /dev/null']
    >>> stream.close()
    """
    before = _holdings()
    left: list[str] = []
    yield left
    deadline = time.monotonic() + grace
    while new := [line for line in _new_since(before) if not ignore(line)]:
        if time.monotonic() > deadline:
            break
        gc.collect()
        time.sleep(0.01)
    left.extend(new)


def _new_since(before: dict[Hashable, str]) -> list[str]:
    new = {key: text for key, text in _holdings().items() if key not in before}
    helpers = [key for key, text in new.items() if text.startswith("helper")]
    if helpers:  # its channels were opened with it, and stay open as long as it lives
        new = {key: text for key, text in new.items() if not text.startswith("file descriptor")}
    return [text for key, text in new.items() if key not in helpers]


def _holdings() -> dict[Hashable, str]:
    return {**_processes(), **_threads(), **_descriptors(), **_names()}


def _processes() -> dict[Hashable, str]:
    found: dict[Hashable, str] = {}
    for process in descendants():
        with suppress(psutil.Error):
            command = _command(process)
            helper = process.ppid() == os.getpid() and any(name in command for name in _HELPERS)
            kind = "helper process" if helper else "process"
            found[process] = f"{kind} {process.pid} {command[:200]}"
    return found


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return "<zombie: it ended, and nobody asked how>"


def _threads() -> dict[Hashable, str]:
    return {
        ("thread", thread.ident): f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread.is_alive()
    }


def _descriptors() -> dict[Hashable, str]:
    found: dict[Hashable, str] = {}
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for number in os.listdir(folder):
        with suppress(OSError):  # the one that read the folder is closed again
            os.fstat(int(number))
            target = os.readlink(f"{folder}/{number}")
            found["descriptor", number, target] = f"file descriptor {number} {target}"
    return found


def _names() -> dict[Hashable, str]:
    folders = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    paths: list[Path] = []
    for path in (path for folder in folders for path in folder.glob("fanfold-*")):
        owner = _owner(path)
        if owner == os.getpid() and not _is_of_jobs(path):
            with suppress(FileNotFoundError):  # of a dead process with this number, just swept
                paths += path.iterdir()  # the folder itself lives as long as this process
        elif owner in (None, os.getpid()):
            paths.append(path)
    return {path: f"file {path}" for path in paths}


def _owner(path: Path) -> int | None:
    """The process that a folder belongs to, from its name, as `transport.segments` and
    `schedulers.local` make it."""
    parts = path.name.split("-")
    if _is_of_jobs(path):
        return int(parts[2])
    return int(parts[4]) if len(parts) == 7 and parts[4].isdigit() else None


def _is_of_jobs(path: Path) -> bool:
    parts = path.name.split("-")
    return parts[:2] == ["fanfold", "jobs"] and parts[2].isdigit()
