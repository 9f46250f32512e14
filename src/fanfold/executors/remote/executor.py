"""The base of executors whose workers are somewhere else: MPI ranks, Dask workers, IPython engines.

An engine is a `Site`, which carries parcels to workers and back, and a subclass that makes it:

    class MyExecutor(RemoteExecutor):
        name = "mine"

        def __init__(self, max_workers=None, initializer=None, initargs=()):
            super().__init__(MySite(max_workers), initializer, initargs)

Workers need fanfold in the same version and Python in the same one up to its second number.
"""

from __future__ import annotations

import concurrent.futures
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any

from fanfold.errors import NotSerializable
from fanfold.executors.base import Executor, MailboxStream, Stream, check_owner
from fanfold.executors.remembered import Remembered, sent_by_name
from fanfold.executors.remote.cargo import SiteCall
from fanfold.executors.remote.site import Site
from fanfold.executors.remote.traffic import Traffic
from fanfold.tasks import Call, Chunk
from fanfold.transport.pickling import dumps
from fanfold.transport.watch import watch

__all__ = ["RemoteExecutor"]

_REMEMBERED = 16  # functions whose packed form is kept for the next submit


class RemoteExecutor(Executor):
    """An executor on a `Site`, which it closes when it is shut down.

    ``initializer(*initargs)`` runs once in each thread of a worker that runs tasks, before the
    first task of this executor.
    """

    stride = 0.05

    def __init__(
        self,
        site: Site,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self.site = site
        first = None if initializer is None else dumps((initializer, initargs))
        self._traffic = Traffic(site, first)
        self._owner = os.getpid()
        self._calls: OrderedDict[int, Remembered[SiteCall]] = OrderedDict()
        weakref.finalize(self, self._traffic.shut_down).atexit = False

    @property
    def workers(self) -> int:  # type: ignore[override]
        """How many tasks run at once now; they may become more."""
        return max(1, self.site.workers)

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Queue a call; its future. The arguments are copied now: later changes do not matter.

        Raises `NotSerializable` when the function or an argument cannot be sent.
        """
        check_owner(self._owner)
        known = self._calls.get(id(fn))
        remembered = known is not None and known.packs(fn)
        call = known.call if known is not None and remembered else self._new_call(fn)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._traffic.put(call.lot(0, ((args, kwargs),), future=future))
        if id(fn) not in self._calls:
            future.add_done_callback(lambda _: self._traffic.forget(call))
        return future

    def _new_call(self, fn: Callable[..., Any]) -> SiteCall:
        """Pack a function, and remember it for the next submit if it cannot change unnoticed."""
        call = SiteCall(Call(fn, "both"), self.site)
        self._traffic.begin(call)
        replaced = self._calls.pop(id(fn), None)  # the function has changed since
        if replaced is not None:
            self._traffic.forget(replaced.call)
        watched = watch(fn)
        if call.definition is not None and (watched or sent_by_name(fn, call.definition)):
            self._calls[id(fn)] = Remembered(call, watched)
            if len(self._calls) > _REMEMBERED:
                _, oldest = self._calls.popitem(last=False)
                self._traffic.forget(oldest.call)
        return call

    def open(self, call: Call) -> Stream:
        check_owner(self._owner)
        return _SiteStream(self._traffic, call)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Ctrl-C ends what runs, as far as that can be stopped."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._traffic.abandon()
        return super().__exit__(kind, error, traceback)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with ``wait``, return when all is done and the site is closed."""
        if cancel_futures:
            self._traffic.cancel_queued()
        self._traffic.shut_down()
        if wait:
            self._traffic.join()


class _SiteStream(MailboxStream):
    def __init__(self, traffic: Traffic, call: Call) -> None:
        super().__init__(call)
        self._traffic = traffic
        self._call = SiteCall(call, traffic.site, self._reports.put)
        traffic.begin(self._call)

    def send(self, chunk: Chunk) -> None:
        try:
            lot = self._call.lot(chunk.first, chunk.items, chunk.attempt)
        except NotSerializable as error:
            self._refuse(chunk, error)
            return
        self._traffic.put(lot)

    def close(self) -> None:
        self._traffic.end(self._call)
