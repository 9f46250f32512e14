"""What a worker answers, made ready for the way: values packed, exceptions with their traceback."""

from __future__ import annotations

import copyreg
import io
from collections.abc import Callable
from typing import Any

from fanfold.errors import RemoteError
from fanfold.transport.pickling import THRESHOLD, Packed, pack, unpack
from fanfold.transport.segments import Segment, attach

__all__ = ["Put", "Read", "all_plain", "pack_answer", "pack_error", "text_of"]

Put = Callable[[memoryview], Segment]
Read = Callable[[Segment], memoryview]

_PLAIN = {int, float, bool, complex, type(None)}
_TEXT = {str, bytes}
_PLAIN_OR_TEXT = _PLAIN | _TEXT

_READ_ONLY = (
    "fanfold: large arrays are shared by all workers and cannot be changed in place: "
    "change a copy, made with array.copy()"
)


def all_plain(values: list[Any]) -> bool:
    """May they travel in the message as they are? Nothing can go wrong with them."""
    kinds = set(map(type, values))
    return kinds <= _PLAIN or (
        kinds <= _PLAIN_OR_TEXT
        and all(len(value) < THRESHOLD for value in values if type(value) in _TEXT)
    )


def pack_answer(
    entry: tuple[Any, ...], peak: int, put: Put, read: Read = attach
) -> tuple[Any, ...]:
    """An entry of a worker's message (see `fanfold.executors.pool.worker`) as it is sent."""
    if entry[0] != "done":
        return entry
    kind, identity, folded, offset, values, failed, *rest = entry
    if failed or not all_plain(values):
        values = [
            (1, *pack_error(value, put, read))
            if offset + i in failed
            else _pack_value(value, put, read)
            for i, value in enumerate(values)
        ]
    else:
        values = (values,)
    return (kind, identity, folded, offset, values, failed, *rest, peak)


def _pack_value(value: Any, put: Put, read: Read) -> tuple[Any, ...]:
    try:
        return (0, *pack(value, put))
    except BaseException as error:  # noqa: BLE001 - it belongs to this task alone
        return (1, *pack_error(error, put, read))


def pack_error(error: BaseException, put: Put, read: Read = attach) -> Packed:
    """The exception and its traceback as text; a `RemoteError` where it cannot be rebuilt.

    ``read`` finds again what ``put`` has stored.
    """
    if isinstance(error, ValueError) and "read-only" in text_of(error):
        error.add_note(_READ_ONLY)
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        packed = _pack_plainly((error, text)) if _has_reducer(error) else pack((error, text), put)
        if type(unpack(packed, read)[0]) is type(error):
            return packed
    except BaseException:  # noqa: BLE001, S110 - anything wrong with it leads to the same
        pass
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    remote = RemoteError(f"{name}: {text_of(error)}", original_type=name)
    notes = getattr(error, "__notes__", None)
    for note in notes if isinstance(notes, list) else ():
        remote.add_note(text_of(note))
    return pack((remote, text), put)


def _has_reducer(error: BaseException) -> bool:
    """Has some library its own way of pickling it? Those that keep tracebacks (tblib, which comes
    with Dask) forget attributes that Python keeps."""
    return type(error) in copyreg.dispatch_table


def _pack_plainly(value: object) -> Packed:
    """As Python pickles exceptions, whatever libraries have changed."""
    import cloudpickle

    table = {
        kind: reducer
        for kind, reducer in cloudpickle.Pickler.dispatch_table.items()
        if not (isinstance(kind, type) and issubclass(kind, BaseException))
    }
    plain = type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})
    stream = io.BytesIO()
    plain(stream, 5).dump(value)
    return Packed(stream.getvalue(), ())


def text_of(value: object) -> str:
    """What ``str`` makes of it, whatever its ``__str__`` does."""
    try:
        return str(value)
    except Exception as failure:  # noqa: BLE001 - a broken __str__ must not hide the failure
        return f"<its text raises {type(failure).__name__}>"
