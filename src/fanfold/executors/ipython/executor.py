"""IPython engines as an executor: `EngineExecutor`, on a cluster that it starts or joins."""

from __future__ import annotations

import concurrent.futures
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from time import monotonic, sleep
from typing import Any

from fanfold.errors import EngineLost, UsageError
from fanfold.executors.base import StartupFailed, worker_count
from fanfold.executors.ipython.clusters import JobCluster, JoinedCluster, LocalCluster
from fanfold.executors.ipython.engine import sendable
from fanfold.executors.remote.errand import Buffer, Parcel, versions
from fanfold.executors.remote.executor import RemoteExecutor
from fanfold.executors.remote.nearby import Nearby, Stored
from fanfold.executors.remote.site import Loss, Site
from fanfold.extras import need
from fanfold.resources import Resources, cores
from fanfold.transport.segments import Segment, process_folder, release

__all__ = ["EngineExecutor"]

_SILENCE = 3.0  # seconds after which an engine with work is asked whether it lives
_PATIENCE = 30  # looks, two a second, after which it should have answered
_GREETING = 0.1  # seconds: an engine that has not said who it is after twice that is asked again
_SETTLING = 60.0  # seconds for engines that have begun to answer
_TURN = 0.005  # seconds between looks whether they have

# Expressions that an engine evaluates: functions would have to fit its version of Python.
_HOME = "__import__('fanfold.executors.ipython.engine', fromlist=['errand'])"
_HELLO = """lambda folder: (
    __import__('socket').gethostname(), __import__('os').getpid(),
    __import__('os').access(folder, 5),
    '.'.join(__import__('platform').python_version_tuple()[:2]),
    __import__('importlib.util').util.find_spec('fanfold') and __import__('fanfold').__version__
)"""

Cluster = LocalCluster | JobCluster | JoinedCluster
Future = concurrent.futures.Future[Parcel]


class EngineExecutor(RemoteExecutor):
    """Runs tasks on IPython engines, of a cluster of ipyparallel that it starts or joins.

    Alone, ``EngineExecutor(4)`` starts a controller and 4 engines on this machine, and ends them
    when it is shut down, or this process dies. With ``scheduler``, ``"slurm"`` or ``"pbs"``, the
    controller is here and each engine is an element of a job array with ``resources``, in a
    ``folder`` that all nodes see; engines join as they begin. ``ports`` (15 at least) are those
    that the controller may listen at, where a firewall leaves only some open.

    A cluster that runs is joined by a ``client`` of ipyparallel or one of its views, by a
    ``connection_file``, or by ``profile`` and ``cluster_id``; at most ``max_workers`` of its
    engines are used, and it is left as it is.

    ``client`` is the `ipyparallel.Client`, for views, push and pull, ``%%px`` and the rest.

    Raises `UsageError` where ipyparallel is not installed, and `StartupFailed` when there is no
    such cluster, or it has no engines.

    >>> with EngineExecutor(2) as engines:
    ...     list(engines.map(abs, [-1, -2, -3])), engines.client[:].apply_sync(divmod, 7, 2)
    ([1, 2, 3], [(3, 1), (3, 1)])
    """

    name = "ipyparallel"

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        client: Any = None,
        connection_file: str | PathLike[str] | None = None,
        profile: str | None = None,
        cluster_id: str | None = None,
        scheduler: str | None = None,
        resources: Resources | None = None,
        folder: str | PathLike[str] = ".",
        ports: Sequence[int] | None = None,
    ) -> None:
        need("ipyparallel", "ipython", "an EngineExecutor")
        if max_workers is not None:
            worker_count(max_workers, 1, "max_workers")
        joins = [client, connection_file, profile, cluster_id]
        starts = [scheduler, resources, ports]
        _check_choice(any(given is not None for given in joins), starts, scheduler)
        cluster: Cluster
        targets = None
        if client is not None:
            cluster, targets = _of_client(client)
        elif any(given is not None for given in joins):
            cluster = JoinedCluster.found(profile, cluster_id, connection_file)
        elif scheduler is not None:
            asked = resources or Resources()
            cluster = JobCluster(max_workers or 1, scheduler, asked, folder, ports)
        else:
            cluster = LocalCluster(max_workers or int(cores()), ports)
        try:
            cluster.wait()
            site = _EngineSite(cluster, max_workers, targets)
            if cluster.young:
                site.settle()
            super().__init__(site, initializer, initargs)
        except BaseException:
            cluster.stop()
            raise
        self.client = cluster.client


def _check_choice(joins: bool, starts: Sequence[object], scheduler: str | None) -> None:
    if joins and any(given is not None for given in starts):
        raise UsageError(
            "a cluster is either joined (client, connection_file, profile, cluster_id) or started "
            "(scheduler, resources, ports): name one of the two"
        )
    if starts[1] is not None and scheduler is None:
        raise UsageError("resources= are what a job gets: say scheduler='slurm' or 'pbs'")


def _of_client(client: Any) -> tuple[JoinedCluster, list[int] | None]:
    """The cluster of a client or of a view, and the engines of the view."""
    view = client if hasattr(client, "targets") else None
    client = client.client if view is not None else client
    if not hasattr(client, "direct_view"):
        raise UsageError(
            f"client= takes a Client of ipyparallel or one of its views, not {client!r}"
        )
    targets = None if view is None else view.targets
    if isinstance(targets, int):
        targets = [targets]
    elif targets == "all":
        targets = None
    return JoinedCluster(client, "the IPython cluster of that client"), targets


@dataclass(eq=False)
class _Post:
    """An errand, and the future of its answer; ``token`` is what it is left behind by."""

    handle: str | None
    parcel: Parcel
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    segments: list[Segment] = field(default_factory=list)
    future: Future = field(default_factory=concurrent.futures.Future)

    def release(self) -> None:
        """The engine needs what was put into segments no more."""
        while self.segments:
            release(self.segments.pop())


@dataclass(eq=False)
class _Engine:
    """An engine, what it said of itself, and what it has to do."""

    number: int
    view: Any = None
    host: str = ""
    pid: int = 0
    near: bool = False  # does it see the segments of this process?
    has: set[str | None] = field(default_factory=set)  # what was published and sent to it
    posts: dict[str, _Post] = field(default_factory=dict)
    met: bool = False  # has it answered? Before that it may be out of reach
    greet_at: float = 0.0  # when it is to be greeted again, unless it has answered
    greetings: list[Any] = field(default_factory=list)
    heard: float = field(default_factory=monotonic)  # when it was last known to live
    looks: int = 0  # since it was asked whether it lives
    answers: bool = False  # to such questions

    @property
    def worker(self) -> str:
        return f"{self.host} pid {self.pid}" if self.host else f"engine {self.number}"


class _EngineGoneError(Exception):
    """The engine died while it had an errand."""

    def __init__(self, engine: _Engine) -> None:
        super().__init__(f"engine {engine.number} is gone")
        self.engine = engine


class _EngineSite(Site):
    """The engines of a cluster, each given errands directly: it is known who has what.

    ``most`` engines of ``targets`` are used, those that have been there longest.
    """

    def __init__(
        self, cluster: Cluster, most: int | None = None, targets: Sequence[int] | None = None
    ) -> None:
        from ipyparallel import Reference
        from ipyparallel.error import NoEnginesRegistered

        self.name = cluster.name
        self._cluster = cluster
        self._client = cluster.client
        self._most = most
        self._targets = None if targets is None else set(targets)
        self._lock = threading.RLock()
        self._engines: dict[int, _Engine] = {}
        self._published: dict[str, Parcel] = {}
        self._nearby = Nearby()
        self._waiting: deque[_Post] = deque()
        self._owed: list[int] = []  # process ids of engines that were lost and not replaced
        self._unfit: StartupFailed | None = None
        self._errand = Reference(f"{_HOME}.errand")
        self._forget = Reference(f"{_HOME}.forget")
        self._hello = Reference(_HELLO)
        self._no_such_engine = (NoEnginesRegistered, IndexError, KeyError)
        self._meet()

    @property
    def workers(self) -> int:
        with self._lock:
            return len(self._engines)

    # Engines come and go

    def _meet(self) -> None:
        """Take on engines that are there and needed."""
        for number in self._client.ids:
            full = self._most is not None and len(self._engines) >= self._most
            wanted = self._targets is None or number in self._targets
            if wanted and not full and number not in self._engines:
                self._welcome(number)
        self._hand_out()

    def _welcome(self, number: int) -> None:
        with suppress(*self._no_such_engine):  # it has gone already
            engine = _Engine(number, self._client[number])
            self._greet(engine)
            self._engines[number] = engine
            self._ask(engine)  # not all have a nanny: only who has answered once can fall silent

    def _greet(self, engine: _Engine) -> None:
        """Ask an engine who it is, again after twice the time: it may be busy, or out of reach.

        ipyparallel counts an engine in before all its queues know it, and what they are given for
        it until then is lost (https://github.com/ipython/ipyparallel/issues/476).
        """
        if monotonic() < engine.greet_at:
            return
        answer = engine.view.apply_async(self._hello, process_folder().roots[0])
        engine.greetings.append(answer)
        engine.greet_at = monotonic() + _GREETING * 2 ** len(engine.greetings)
        answer.add_done_callback(partial(self._met, engine))

    def settle(self) -> None:
        """Return when the engines that are there can be reached. Raises `StartupFailed`."""
        deadline = monotonic() + _SETTLING
        while unmet := [engine for engine in self._engines.values() if not engine.met]:
            trouble = self._cluster.trouble(alone=False)
            if trouble or monotonic() > deadline:
                numbers = ", ".join(str(engine.number) for engine in unmet)
                why = trouble or f"they do not answer in {_SETTLING:g} s"
                raise StartupFailed(f"engines {numbers} of {self.name} cannot be reached: {why}")
            with self._lock, suppress(*self._no_such_engine):
                for engine in unmet:
                    self._greet(engine)
            sleep(_TURN)

    def _met(self, engine: _Engine, answer: Any) -> None:
        """An engine said who it is, and which versions it has."""
        if engine.met or answer.exception() is not None:
            return  # known already, or gone, and `check` will see that
        for lost in engine.greetings[: engine.greetings.index(answer)]:  # answers keep their order
            self._client.outstanding.difference_update(lost.msg_ids)
        engine.host, engine.pid, engine.near, *theirs = answer.result()
        engine.heard = monotonic()
        if tuple(theirs) != versions():
            self._unfit = _unfit(engine, self.name, *theirs)
        with self._lock:
            engine.met = True
            self._hand_out()

    def check(self) -> None:
        if self._unfit is not None:
            raise self._unfit
        with self._lock:
            here = set(self._client.ids)
            for engine in list(self._engines.values()):
                if engine.number not in here or self._is_silent(engine):
                    self._lose(engine)
                elif not engine.met:
                    self._greet(engine)
            self._meet()
            owed, self._owed = self._owed, []
            alone = not self._engines
        for pid in owed:
            self._cluster.replace(pid)
        if trouble := self._cluster.trouble(alone):
            raise EngineLost(f"{self.name} is lost: {trouble}")

    def _is_silent(self, engine: _Engine) -> bool:
        """Has an engine with work not answered in time? It is asked, where it is time for it.

        Its nanny answers, a process beside it, and only where it finds the engine. Looks are
        counted, and not seconds: a driver that was stopped has not waited.
        """
        if engine.looks:
            engine.looks += 1
            return engine.answers and engine.looks > _PATIENCE
        if engine.posts and monotonic() - engine.heard > _SILENCE:
            self._ask(engine)
        return False

    def _ask(self, engine: _Engine) -> None:
        with suppress(*self._no_such_engine):
            question = self._client.send_signal(0, targets=[engine.number], block=False)
            engine.looks = 1
            question.add_done_callback(lambda _: _heard(engine))

    def _lose(self, engine: _Engine) -> None:
        if self._engines.pop(engine.number, None) is None:
            return
        self._owed.append(engine.pid)
        posts, engine.posts = engine.posts, {}
        for post in posts.values():
            post.release()
            _fail(post.future, _EngineGoneError(engine))

    # Errands

    def copy(self, view: memoryview) -> Buffer:
        with self._lock:
            near = bool(self._engines) and all(one.near for one in self._engines.values())
        return self._nearby.copy(view) if near else super().copy(view)

    def publish(self, parcel: Parcel) -> str:
        handle = uuid.uuid4().hex
        self._published[handle] = parcel
        return handle

    def retract(self, handle: str) -> None:
        with self._lock:
            self._published.pop(handle, None)
            for engine in self._engines.values():
                if handle in engine.has:
                    engine.has.discard(handle)
                    with suppress(*self._no_such_engine):
                        engine.view.apply_async(self._forget, handle)

    def post(self, handle: str | None, parcel: Parcel) -> Future:
        post = _Post(handle, parcel)
        with self._lock:
            self._waiting.append(post)
            self._hand_out()
        return post.future

    def _hand_out(self) -> None:
        """Give engines what waits; the share of those who have not answered yet waits for them."""
        while self._waiting and (met := [one for one in self._engines.values() if one.met]):
            engine = min(met, key=lambda engine: len(engine.posts))
            posts = len(self._waiting) + sum(len(one.posts) for one in met)
            if len(engine.posts) * len(self._engines) >= posts:
                return
            post = self._waiting[0]
            published = None
            if post.handle is not None and post.handle not in engine.has:
                published = sendable(self._published[post.handle])
            near, parcel, post.segments = self._stored(engine, post.parcel)
            try:
                answer = engine.view.apply_async(
                    self._errand, post.token, post.handle, published, sendable(parcel), near
                )
            except self._no_such_engine:
                post.release()
                self._lose(engine)
                continue
            self._waiting.popleft()
            engine.has |= {post.handle}
            engine.posts[post.token] = post
            answer.add_done_callback(partial(self._answered, engine, post))

    def _stored(self, engine: _Engine, parcel: Parcel) -> Stored:
        return self._nearby.store(parcel) if engine.near else Stored({}, parcel, [])

    def _answered(self, engine: _Engine, post: _Post, answer: Any) -> None:
        error = answer.exception()
        with self._lock:
            engine.posts.pop(post.token, None)
            post.release()
            engine.heard = monotonic()
            if error is not None and getattr(error, "ename", "") == "EngineError":
                self._lose(engine)
                error = _EngineGoneError(engine)
            self._hand_out()
        if error is None:
            if not post.future.done():
                post.future.set_result(answer.result())
        elif isinstance(error, _EngineGoneError):
            _fail(post.future, error)
        else:
            said = f"engine {engine.number} of {self.name} could not do its errand: {error}"
            _fail(post.future, self._unfit or EngineLost(said))

    def cancel(self, future: Future) -> None:
        with self._lock:
            self._waiting = deque(post for post in self._waiting if post.future is not future)
            for engine in self._engines.values():
                for post in engine.posts.values():
                    if post.future is future:
                        self._client.abort([post.token], targets=[engine.number], block=False)

    def lost(self, error: BaseException) -> Loss | None:
        if not isinstance(error, _EngineGoneError):
            return None
        engine = error.engine
        return Loss(engine.worker, self._cluster.exitcode(engine.pid), engine.pid or None)

    def close(self) -> None:
        self._cluster.stop()
        for engine in self._engines.values():
            for post in engine.posts.values():
                post.release()


def _unfit(engine: _Engine, name: str, python: str, fanfold: str | None) -> StartupFailed:
    here_python, here = versions()
    return StartupFailed(
        f"engine {engine.number} of {name} runs Python {python} with "
        f"{f'fanfold {fanfold}' if fanfold else 'no fanfold'}, and here is Python "
        f"{here_python} with fanfold {here}: functions cannot travel between them. Start "
        "the engines from the same environment, or one with the same versions"
    )


def _heard(engine: _Engine) -> None:
    engine.heard, engine.looks, engine.answers = monotonic(), 0, True


def _fail(future: Future, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
