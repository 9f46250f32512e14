"""Values as bytes: pickle protocol 5, big buffers out of band in segments.

Plain pickle is tried first, because it is fast. cloudpickle takes over where plain pickle fails
(lambdas, closures) and where its bytes would refer to a module that workers cannot import:
``__main__``, a notebook, a file that is no module. Those travel by value.
"""

from __future__ import annotations

import importlib.machinery
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pickle import PickleBuffer
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from fanfold.errors import NotSerializable
from fanfold.tasks import short_repr
from fanfold.transport.segments import Segment

__all__ = ["THRESHOLD", "Packed", "dumps", "pack", "pack_function", "pack_small", "unpack"]

#: Buffers of this many bytes or more travel in segments, smaller ones inside the message.
THRESHOLD = 1 << 17

_PROTOCOL = 5
_local_modules = {"__main__"}
_local_names = [b"__main__"]
_known_modules: set[str] = set()
_texts: set[bool] = set()  # not empty once texts mention local modules: more such streams come


class Packed(NamedTuple):
    """A value ready to travel: the pickle stream, and the segments of its big buffers."""

    stream: bytes | Segment
    buffers: tuple[Segment, ...]

    def segments(self) -> tuple[Segment, ...]:
        return (*self.buffers, self.stream) if isinstance(self.stream, Segment) else self.buffers


def pack(
    value: object,
    put: Callable[[memoryview], Segment],
    share: Callable[[PickleBuffer], Segment] | None = None,
) -> Packed:
    """Pickle ``value``; ``put`` stores a big buffer (``share`` one that may come again).

    Raises `NotSerializable`, which names the part that cannot be sent.
    """
    buffers: list[PickleBuffer] = []
    stream = _dumps(value, buffers)
    store = share or (lambda buffer: put(buffer.raw()))
    segments = tuple(map(store, buffers)) if buffers else ()
    if len(stream) >= THRESHOLD:
        return Packed(put(memoryview(stream)), segments)
    return Packed(stream, segments)


def pack_small(value: object) -> bytes | None:
    """The stream of a value without big buffers; None where `pack` is needed.

    The quick way for the many: it fails early at the first big buffer.
    """
    try:
        stream = pickle.dumps(value, _PROTOCOL, buffer_callback=_refuse_big)
        return _dumps_by_name(value, _refuse_big) if _mentions_local_module(stream) else stream
    except Exception:  # noqa: BLE001 - pack() finds out and tells
        return None


def _refuse_big(buffer: PickleBuffer) -> bool:
    if buffer.raw().nbytes >= THRESHOLD:
        raise BufferError
    return True


def pack_function(
    functions: tuple[Any, ...],
    put: Callable[[memoryview], Segment],
    share: Callable[[PickleBuffer], Segment] | None = None,
) -> Packed:
    """`pack` for functions: by value where their module cannot be imported by a worker."""
    for function in functions:
        inner = function
        while isinstance(inner, partial):
            inner = inner.func
        _note_module(getattr(inner, "__module__", None) or "")
    return pack(functions, put, share)


def dumps(value: object) -> bytes:
    """One stream with everything inside, for what is kept rather than sent.

    What workers cannot import goes in by value. Raises `NotSerializable`.

    >>> pickle.loads(dumps({"mean": 1.5}))
    {'mean': 1.5}
    """
    with suppress(Exception):  # cloudpickle knows more types
        stream = pickle.dumps(value, _PROTOCOL)
        if not _mentions_local_module(stream):
            return stream
    return _dumps_by_value(value, None)


def unpack(packed: bytes | Packed, read: Callable[[Segment], memoryview]) -> Any:
    """The value again. ``read`` maps a segment."""
    if isinstance(packed, bytes):
        return pickle.loads(packed)
    stream, buffers = packed
    source: Any = read(stream) if isinstance(stream, Segment) else stream
    if not buffers:
        return pickle.loads(source)
    return pickle.loads(source, buffers=[read(segment) for segment in buffers])


def _dumps(value: object, buffers: list[PickleBuffer]) -> bytes:
    def keep_small(buffer: PickleBuffer) -> bool:
        """True keeps a buffer in the stream, as pickle's ``buffer_callback`` has it."""
        try:
            size = buffer.raw().nbytes
        except BufferError:  # not contiguous
            return True
        if size < THRESHOLD:
            return True
        buffers.append(buffer)
        return False

    try:
        if not _texts:
            stream = pickle.dumps(value, _PROTOCOL, buffer_callback=keep_small)
            if not _mentions_local_module(stream):
                return stream
            buffers.clear()
        return _dumps_by_name(value, keep_small)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError):
        pass  # cloudpickle knows more types; if it fails too, its error is the better one
    except Exception as error:  # whatever a user's __reduce__ raises
        raise _not_serializable(value, error) from error
    buffers.clear()
    return _dumps_by_value(value, keep_small)


class _NamePickler(pickle.Pickler):
    """Refuses to refer to what workers cannot import."""

    def reducer_override(self, value: Any) -> Any:
        module = getattr(value, "__module__", "")
        if module is None or module in _local_modules:
            raise pickle.PicklingError
        return NotImplemented


def _dumps_by_name(value: object, keep_small: Callable[[PickleBuffer], Any]) -> bytes:
    """For a stream that mentions a local module, which a text may do, too: scikit-learn sends the
    filters of warnings with each task. Raises `pickle.PicklingError` where it is no text."""
    stream = io.BytesIO()
    _NamePickler(stream, _PROTOCOL, buffer_callback=keep_small).dump(value)
    _texts.add(True)
    return stream.getvalue()


def _dumps_by_value(value: object, keep_small: Callable[[PickleBuffer], Any] | None) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value, _PROTOCOL, buffer_callback=keep_small))
    except Exception as error:  # as above
        raise _not_serializable(value, error) from error


def _mentions_local_module(stream: bytes) -> bool:
    for name in _local_names:  # noqa: SIM110 - half the time of any(), and on the way of each task
        if name in stream:
            return True
    return False


def _note_module(name: str) -> None:
    """Remember a module that workers cannot import; its functions then travel by value."""
    if name in _known_modules:
        return
    _known_modules.add(name)
    module = sys.modules.get(name)
    if module is None or name in _local_modules or _importable(name):
        return
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    _local_modules.add(name)
    _local_names.append(name.encode())


def _importable(name: str) -> bool:
    """Would a new process, with our ``sys.path``, import the same file under this name?"""
    module = sys.modules[name]
    if getattr(module, "__file__", None) is None:  # built in, or made by hand
        return name in sys.builtin_module_names or getattr(module, "__spec__", None) is not None
    spec = _find(name)
    return spec is not None and spec.origin in (module.__file__, "frozen")  # the latter: os, codecs


def _find(name: str) -> importlib.machinery.ModuleSpec | None:
    """What ``sys.path`` holds under this name, parent packages included."""
    spec, path = None, None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        parent = ".".join(parts[:depth])
        # Every finder is asked: editable installs and zipped packages have their own.
        found = (finder.find_spec(parent, path) for finder in sys.meta_path)
        spec = next((one for one in found if one is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _not_serializable(value: object, error: BaseException) -> NotSerializable:
    reason = " ".join(str(error).split()) or type(error).__name__
    where = _guilty_member(value)
    return NotSerializable(
        f"cannot send {where or short_repr(value)} to another process: {reason}. "
        "Pass what it is made from instead (a path for an open file, numbers for a generator), "
        'or use on="threads".'
    )


def _guilty_member(value: object, path: str = "", depth: int = 0) -> str:
    """The path to the innermost member that cannot be pickled, such as ``[1]['lock']``."""
    if depth > 8:
        return ""
    for label, member in _members(value):
        try:
            pickle.dumps(member, _PROTOCOL)
            continue
        except Exception:  # noqa: BLE001, S110 - this is a search for what fails
            pass
        try:
            import cloudpickle

            cloudpickle.dumps(member, _PROTOCOL)
        except Exception:  # noqa: BLE001
            inner = _guilty_member(member, path + label, depth + 1)
            return inner or f"{short_repr(member)} (at {path + label})"
    return ""


def _members(value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", member) for key, member in list(value.items())[:100]]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{index}]", member) for index, member in enumerate(list(value)[:100])]
    if isinstance(value, partial):
        return [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
    if isinstance(value, MethodType):
        return [(".__self__", value.__self__)]
    if isinstance(value, FunctionType):
        return list(_referred(value))
    state = getattr(value, "__dict__", None)
    if isinstance(state, dict) and not isinstance(value, type):
        return [(f".{key}", member) for key, member in state.items()]
    return []


def _referred(function: FunctionType) -> Iterator[tuple[str, object]]:
    """What a function that travels by value takes along: its closure, and the globals it names."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # an empty cell
            yield f".{name}", cell.cell_contents
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f".{name}", function.__globals__[name]
