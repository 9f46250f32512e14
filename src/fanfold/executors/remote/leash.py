"""Runs a module as a program that ends when the process that started it ends, however that ends.

    python -m fanfold.executors.remote.leash OWNER FOLDER MODULE ARGUMENT...

IPython's controllers and engines are sessions of their own: without it they outlive a driver that
is killed. ``OWNER`` is the driver's process id; ``FOLDER`` holds what the program needs, and is
removed with it. What the program has started ends with it, too.
"""

from __future__ import annotations

import os
import runpy
import select
import shutil
import signal
import sys
import threading
from contextlib import suppress

__all__ = ["follow", "leashed"]


def leashed(module: str, folder: str) -> list[str]:
    """The command that runs ``module`` for as long as this process lives.

    >>> leashed("http.server", "web")[-2:]
    ['web', 'http.server']
    """
    return [sys.executable, "-m", __name__, str(os.getpid()), folder, module]


def follow(owner: int) -> None:
    """Return when the process ``owner`` has ended."""
    try:
        descriptor = os.pidfd_open(owner)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # not Linux, or an old kernel
        import psutil

        if psutil.pid_exists(owner):
            psutil.Process(owner).wait()
        return
    try:
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def _end_with(owner: int, folder: str) -> None:
    follow(owner)
    shutil.rmtree(folder, ignore_errors=True)
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    owner, folder, module, *arguments = sys.argv[1:]
    watcher = threading.Thread(
        target=_end_with, args=(int(owner), folder), name="leash", daemon=True
    )
    watcher.start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
