"""Where errands run: what an engine (MPI, Dask, IPython) must be able to do to become an executor.

It is a `Site`, and a subclass of `remote.executor.RemoteExecutor` that makes it. Batches, deaths,
timeouts, retries and order are done by the base.
"""

from __future__ import annotations

import concurrent.futures
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from fanfold.executors.remote.errand import Buffer, Parcel, copied

__all__ = ["Loss", "Site"]


class Loss(NamedTuple):
    """A worker died: its name, as errands that were lost with it have it too, and what is known of
    its end. Without a name nobody is blamed for it alone. ``blameless``: it was taken away, as when
    a cluster shrinks, and nothing that it had is to blame."""

    worker: str = ""
    exitcode: int | None = None
    pid: int | None = None
    blameless: bool = False


class Site(ABC):
    """Where errands run. Its methods are called by several threads, one at a time.

    ``name`` is in messages: "the Dask cluster at tcp://10.0.0.1:8786". ``takes`` says that `post`
    needs the buffers of a parcel no more when it returns, so that they need not be copied before.
    """

    name: str
    takes: ClassVar[bool] = False

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many errands can run at once; none is posted while it is 0. Asked often."""

    def copy(self, view: memoryview) -> Buffer:
        """A copy of a buffer whose owner may change it, to be a part of a parcel."""
        return copied(view)

    @abstractmethod
    def publish(self, parcel: Parcel) -> object:
        """Put a large function where every worker can reach it; the handle for `post`."""

    @abstractmethod
    def retract(self, handle: Any) -> None:
        """Nobody needs what has been published any more."""

    @abstractmethod
    def post(self, handle: Any, parcel: Parcel) -> concurrent.futures.Future[Parcel]:
        """Have a free worker run `remote.errand.run_errand` on what has been published
        (None where ``handle`` is None) and ``parcel``; the future of its answer.

        Must not wait for the worker. The future need not be a running one.
        """

    @abstractmethod
    def cancel(self, future: concurrent.futures.Future[Parcel]) -> None:
        """Nobody wants this answer: as far as the engine can, do not run it, or stop it."""

    @abstractmethod
    def lost(self, error: BaseException) -> Loss | None:
        """Does this exception of a future mean that the worker died? None: it does not."""

    @abstractmethod
    def check(self) -> None:
        """Called every half second while answers are awaited; must not wait long.

        Raises `EngineLost` when no answer can be expected any more.
        """

    @abstractmethod
    def close(self) -> None:
        """All is done: end what was started for this executor. Called once."""
