"""A Dask cluster of this machine: the scheduler in this process, the workers processes beside it.

Each worker has one thread, so that a task that ends its process ends no other. They are programs,
not children of multiprocessing: a script needs no guard around its main part. A worker that dies is
replaced; all end with this process, however it ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from time import monotonic, sleep

from fanfold.errors import EngineLost
from fanfold.executors.base import StartupFailed
from fanfold.executors.remote.leash import leashed
from fanfold.resources import blas_threads, cores, thread_environment

__all__ = ["LocalDask"]

_PATIENCE = 60.0  # seconds for the workers to come
_DEATHS = 5  # workers, for each that there should be, that may die within _WHILE seconds
_WHILE = 10.0


class LocalDask:
    """``workers`` Dask workers, and ``client``. Raises `StartupFailed` when they do not come."""

    def __init__(self, workers: int) -> None:
        from distributed import Client, LocalCluster

        self._count = workers
        self._folder = tempfile.mkdtemp(prefix=f"dask-{os.getpid()}-")
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._codes: dict[int, int] = {}
        self._deaths: list[float] = []
        _quieten()
        self._cluster = LocalCluster(
            n_workers=0,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            scheduler_kwargs={"allowed_failures": 0},
        )
        self.client = Client(self._cluster, set_as_default=False)
        try:
            for _ in range(workers):
                self._start()
            self._wait_for_workers()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        arguments = [self._cluster.scheduler_address, "--no-nanny", "--nthreads", "1"]
        arguments += ["--no-dashboard", "--memory-limit", "0", "--local-directory", self._folder]
        threads = thread_environment(blas_threads(self._count, int(cores())))
        process = subprocess.Popen(
            [*leashed("distributed.cli.dask_worker", self._folder), *arguments],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **threads, "DASK_LOGGING__DISTRIBUTED": "critical"},
            start_new_session=True,  # Ctrl-C is for this process
        )
        self._processes[process.pid] = process

    def _wait_for_workers(self) -> None:
        deadline = monotonic() + _PATIENCE
        while len(self.client.nthreads()) < self._count:
            for pid, process in self._processes.items():
                if process.poll() is not None:
                    raise StartupFailed(
                        f"a Dask worker (pid {pid}) ended with exit status {process.returncode} "
                        "before it was ready: what it printed says why"
                    )
            if monotonic() > deadline:
                raise StartupFailed(
                    f"of {self._count} Dask workers not all were ready within {_PATIENCE:g} s: try "
                    "fewer workers, or look at what they printed"
                )
            sleep(0.01)

    def exitcode(self, pid: int) -> int | None:
        """How a worker ended that is known to have ended."""
        process = self._processes.get(pid)
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)  # its connection ends a moment before it does
            self.revive()
        return self._codes.get(pid)

    def revive(self) -> None:
        """Replace the workers that have died. Raises `EngineLost` when they die again and again."""
        for pid, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            self._codes[pid] = process.returncode
            del self._processes[pid]
            now = monotonic()
            self._deaths = [then for then in self._deaths if now - then < _WHILE] + [now]
            if len(self._deaths) > _DEATHS * self._count:
                raise EngineLost(
                    f"{len(self._deaths)} Dask workers died within {_WHILE:g} s: the last one with "
                    f"exit status {process.returncode}"
                )
            self._start()

    def close(self) -> None:
        """End everything, at once: who closes has all results that are wanted."""
        self.client.close()
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what its tasks have started
        for process in self._processes.values():
            process.wait()
        self._cluster.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _quieten() -> None:
    """Dask tells of each connection that ends, on the terminal: of errors it may."""
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(max(handler.level, logging.ERROR))
