"""What an IPython engine does for fanfold; imported there (and by the driver for `sendable`).

The driver names these functions by expressions, which any version of Python can read.
"""

from __future__ import annotations

from typing import Any

from fanfold.executors.remote.errand import Parcel, run_errand
from fanfold.executors.remote.nearby import fetched
from fanfold.transport.segments import Segment

__all__ = ["errand", "forget", "sendable"]

_MOST = 60  # items of a list that ipyparallel looks into for buffers; it pickles longer ones

_published: dict[str, Parcel] = {}


def errand(
    token: str,
    handle: str | None,
    published: Parcel | None,
    parcel: Parcel,
    near: dict[int, Segment],
) -> Parcel:
    """Run the errand ``parcel``, and leave it behind when a request to abort ``token`` comes.

    What was published comes with the first errand that an engine gets of it; the parts ``near`` are
    in segments of this machine.
    """
    if handle is not None and published is not None:
        _published[handle] = published
    aborted = _aborted()
    try:
        answer = run_errand(
            None if handle is None else _published[handle],
            fetched(near, parcel),
            wanted=lambda: token not in aborted,
        )
    finally:
        aborted.discard(token)
    return sendable(answer)


def sendable(parcel: Parcel) -> Parcel:
    """The same parcel, as ipyparallel sends it without a copy, where it can.

    >>> sendable([b"message", bytearray(8)])
    [<memory at 0x...>, <memory at 0x...>]
    """
    kind = memoryview if len(parcel) <= _MOST else bytes
    return [kind(buffer) for buffer in parcel]


def forget(handle: str) -> None:
    """Nobody needs what was published under ``handle`` any more."""
    _published.pop(handle, None)


def _aborted() -> Any:
    """The set into which the engine's control thread puts what it is asked to abort."""
    from IPython import get_ipython

    shell: Any = get_ipython()
    return shell.kernel.aborted
