"""What Dask's workers import: the task that Dask knows, and how its parcels travel."""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any

from distributed import get_worker
from distributed.protocol import dask_deserialize, dask_serialize

from fanfold.executors.remote.errand import Parcel, run_errand

__all__ = ["Crate", "run", "same"]


class Crate:
    """A parcel as Dask carries it: a buffer is a frame of a message, and not copied where Dask lets
    us (its scheduler speaks only pickle's protocol 4)."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel

    def __reduce_ex__(self, protocol: Any) -> Any:
        wrap: Any = PickleBuffer if protocol >= 5 else bytes
        return Crate, ([wrap(buffer) for buffer in self.parcel],)

    def __sizeof__(self) -> int:
        return sum(memoryview(buffer).nbytes for buffer in self.parcel)


@dask_serialize.register(Crate)  # type: ignore[untyped-decorator]
def _to_frames(crate: Crate) -> tuple[dict[str, Any], Parcel]:
    return {}, crate.parcel


@dask_deserialize.register(Crate)  # type: ignore[untyped-decorator]
def _from_frames(header: dict[str, Any], frames: Parcel) -> Crate:
    return Crate(list(frames))


def same(crate: Crate) -> Crate:
    """Brings what is published to wherever it is needed."""
    return crate


def run(published: Crate | None, crate: Crate) -> Crate:
    """Does an errand, on a worker; it is left behind when nobody waits for it any more."""
    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    function = None if published is None else published.parcel
    return Crate(run_errand(function, crate.parcel, worker=f"dask {worker.name}", wanted=wanted))
