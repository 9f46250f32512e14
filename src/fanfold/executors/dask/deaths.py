"""Who came to a Dask cluster, who died there, and how: told by its scheduler and its nannies.

Dask itself gives a task to worker after worker, until four have died with it. Its scheduler tells
whoever asks when a worker has gone, and with which tasks; so nobody needs to wait for that.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Collection, Iterable
from typing import Any, Protocol

from fanfold.errors import UsageError
from fanfold.schedulers.base import ENDED
from fanfold.schedulers.queue import Queue
from fanfold.schedulers.registry import scheduler

__all__ = ["Jobs", "Nannies", "bring_back", "look_away", "watch_workers"]

_LOOK = 5.0  # seconds between looks at the queue of a scheduler
_COMING = ("created", "init", "starting", "running")  # as Dask calls its states
_TRIES, _PAUSE = 60, 0.05  # looks into a nanny's log, and seconds between them
_ENDING = re.compile(
    r"Worker process (?P<pid>\d+) (?:exited with status (?P<status>\d+)"
    r"|was killed by signal (?P<signal>\d+))"
)


class Bereaved(Protocol):
    """Who wants to know; ``keys`` are the tasks that the worker had."""

    def worker_came(self) -> None: ...
    def worker_left(self, worker: str, keys: Collection[str], expected: bool) -> None: ...


_watching: weakref.WeakKeyDictionary[Any, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()


def watch_workers(client: Any, site: Bereaved) -> None:
    """Have the site told, in the client's loop, of each worker that comes or leaves.

    A client has one handler for a topic: its sites share it.
    """
    sites = _watching.get(client)
    if sites is not None:
        sites.add(site)
        return
    found = _watching[client] = weakref.WeakSet([site])

    def tell(event: tuple[float, Any]) -> None:
        message = event[1] if isinstance(event[1], dict) else {}
        action = message.get("action")
        for one in list(found):
            if action == "add-worker":
                one.worker_came()
            elif action == "remove-worker":
                keys = message["processing-tasks"]
                one.worker_left(message["worker"], keys, bool(message["expected"]))

    client.subscribe_topic("all", tell)


def look_away(client: Any, site: Bereaved) -> None:
    """The site wants to know nothing more. Nobody must be subscribed when the client is closed:
    the scheduler would tell it of its own end, and complain that it cannot."""
    sites = _watching.get(client, weakref.WeakSet())
    sites.discard(site)
    if client in _watching and not sites:
        del _watching[client]
        if client.status == "running":
            client.unsubscribe_topic("all")


class Nannies:
    """The processes that look after Dask's workers, and log how these have ended."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._of: dict[str, str] = {}
        self._told: set[int] = set()

    async def learn(self, workers: Iterable[str]) -> None:
        """Find the nannies of workers that are new."""
        if all(worker in self._of for worker in workers):
            return
        known = await self._client.scheduler.identity()
        before = set(self._of.values())
        for worker, facts in known["workers"].items():
            self._of[worker] = facts.get("nanny") or ""
        for nanny in {*self._of.values()} - {*before, ""}:  # what it tells by now is not of ours
            self._told.update(int(one["pid"]) for one in await self._endings(nanny))

    async def ending(self, worker: str) -> tuple[int | None, int | None]:
        """The process id and exit code of a worker that has died; None where nobody tells."""
        nanny = self._of.get(worker)
        for _ in range(_TRIES if nanny else 0):
            for found in await self._endings(str(nanny)):
                if int(found["pid"]) not in self._told:
                    return self._read(found)
            await asyncio.sleep(_PAUSE)
        return None, None

    async def _endings(self, nanny: str) -> list[re.Match[str]]:
        """Those that its log tells of."""
        answer = await self._client.scheduler.broadcast(
            msg={"op": "get_logs", "n": 20}, workers=[nanny], on_error="ignore"
        )
        found = (_ENDING.search(text) for _, text in answer.get(nanny, ()))
        return [one for one in found if one is not None]

    def _read(self, found: re.Match[str]) -> tuple[int, int]:
        pid = int(found["pid"])
        self._told.add(pid)
        return pid, int(found["status"]) if found["status"] else -int(found["signal"])


def bring_back(cluster: Any) -> bool:
    """Have a `LocalCluster` start the workers that it has given up; are there any?

    It looks 15 seconds after each death whether the worker is back, and gives up one that has died
    again and is just starting: in the end all of them, where tasks kill one after another.
    """
    if type(cluster).__name__ != "LocalCluster" or cluster._adaptive is not None:
        return False
    asked = len(cluster.worker_spec)
    missing = asked > len(cluster.workers)
    if missing:
        cluster.scale(asked)
    return missing


class Jobs:
    """Whether workers of a cluster are still to come: processes that start, jobs in a queue."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}

    def are_coming(self, cluster: Any) -> bool:
        """Has this cluster (None: somebody else's) asked for workers that may yet come?

        Jobs are known to the cluster when all are submitted: one without an id was refused.
        """
        asked = getattr(cluster, "workers", {}).values()
        living = [worker for worker in asked if worker.status.name in _COMING]
        jobs = [worker for worker in living if hasattr(worker, "job_id")]
        queued = [job for job in jobs if job.job_id]
        return len(jobs) < len(living) or any(map(self._is_alive, queued))

    def _is_alive(self, worker: Any) -> bool:
        """Does the scheduler not say that the job has ended?"""
        kind = worker.config_name
        if kind not in self._queues:
            try:
                self._queues[kind] = Queue(scheduler(kind))
            except (KeyError, UsageError):  # one that fanfold does not know
                return True
        key = (str(worker.job_id), None)
        seen = self._queues[kind].look({key[0]: [None]}, max_age=_LOOK).seen.get(key)
        return seen is None or seen.state not in {*ENDED, "vanished"}
