"""The inputs of a map: checked, listed, and drawn by dispatch, a few at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, Protocol

from fanfold.errors import UsageError

__all__ = ["Source", "listed", "readable", "source_of"]

_MOMENT = 0.002  # seconds that inputs which come quickly get to come together


def readable(inputs: Iterable[Any]) -> Iterable[Any]:
    """The inputs as a sequence where they have a length, else an iterator.

    Raises `UsageError` for what is no iterable.
    """
    if isinstance(inputs, (list, tuple, range)):
        return inputs
    try:
        iterator = iter(inputs)
    except TypeError:
        raise UsageError(
            f"the inputs must be iterable, as a list or a generator is, not {inputs!r}"
        ) from None
    return list(iterator) if isinstance(inputs, Sized) else iterator


def listed(inputs: Iterable[Any]) -> Sequence[Any]:
    """All inputs, drawn now; see `readable`."""
    found = readable(inputs)
    return found if isinstance(found, (list, tuple, range)) else list(found)


class Source(Protocol):
    """Inputs to draw. ``ended`` when there are no more; ``error`` is what drawing them raised."""

    error: BaseException | None
    position: int  # the index of the next input

    @property
    def ended(self) -> bool: ...

    def draw(self, count: int) -> Sequence[Any]:
        """Up to ``count`` inputs; fewer when no more are there now, or at all."""
        ...

    def close(self) -> None: ...


def source_of(
    inputs: Iterable[Any],
    *,
    only: Sequence[range] | None = None,
    wake: Callable[[], None] | None = None,
) -> Source:
    """The source of ``inputs``; of a sequence ``only`` those at these ranges of indices, in order.

    With ``wake`` they are drawn in a thread of their own, and ``wake`` is called when some have
    come after `Source.draw` gave fewer than it was asked for.
    """
    if isinstance(inputs, (list, tuple, range)):
        return _Sequence(inputs, [range(len(inputs))] if only is None else only)
    return _Drawn(iter(inputs)) if wake is None else _DrawnApart(iter(inputs), wake)


class _Sequence:
    """Inputs that are all there. What is drawn together has consecutive indices."""

    error: BaseException | None = None

    def __init__(self, inputs: Sequence[Any], ranges: Sequence[range]) -> None:
        self._inputs = inputs
        self._ranges = deque(part for part in ranges if part)
        self.position = self._ranges[0].start if self._ranges else 0

    @property
    def ended(self) -> bool:
        return not self._ranges

    def draw(self, count: int) -> Sequence[Any]:
        if not self._ranges:
            return ()
        stop = min(self.position + count, self._ranges[0].stop)
        items = self._inputs[self.position : stop]
        self.position = stop
        if stop == self._ranges[0].stop:
            self._ranges.popleft()
            self.position = self._ranges[0].start if self._ranges else stop
        return items  # a part of a range stays one: it travels as three numbers

    def close(self) -> None:
        pass


class _Drawn:
    """Inputs drawn in the caller's thread."""

    def __init__(self, inputs: Iterator[Any]) -> None:
        self.error: BaseException | None = None
        self.ended = False
        self.position = 0
        self._inputs = inputs

    def draw(self, count: int) -> Sequence[Any]:
        items: list[Any] = []
        try:
            items.extend(islice(self._inputs, count))  # keeps what came before an exception
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - raised in its place, after the inputs before
            self.error = error
        self.ended = len(items) < count
        self.position += len(items)
        return items

    def close(self) -> None:
        pass


class _DrawnApart:
    """Inputs drawn in a thread of their own, only as many as were asked for."""

    def __init__(self, inputs: Iterator[Any], wake: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self.position = 0
        self._inputs = inputs
        self._wake = wake
        self._changed = threading.Condition()
        self._items: deque[Any] = deque()
        self._wanted = 0
        self._hungry = False
        self._exhausted = False
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def ended(self) -> bool:
        with self._changed:
            return self._exhausted and not self._items

    def draw(self, count: int) -> Sequence[Any]:
        if self._thread is None:  # not sooner: a Ctrl-C finds a source that can be closed
            self._thread = threading.Thread(target=self._main, name="fanfold-inputs", daemon=True)
            self._thread.start()
        with self._changed:
            self._wanted = count - len(self._items)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._wanted <= 0 or self._exhausted, _MOMENT)
            items = [self._items.popleft() for _ in range(min(count, len(self._items)))]
            self._hungry = len(items) < count
            self.position += len(items)
            return items

    def _main(self) -> None:
        try:
            while self._may_draw():
                item = next(self._inputs)
                with self._changed:
                    self._items.append(item)
                    self._wanted -= 1
                self._tell()
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - raised in its place by the consumer
            self.error = error
        with self._changed:
            self._exhausted = True
        self._tell()

    def _tell(self) -> None:
        """Somebody waits in `draw`, or has gone to wait for something else."""
        with self._changed:
            if self._wanted <= 0 or self._exhausted:
                self._changed.notify_all()
            hungry, self._hungry = self._hungry, False
        if hungry:
            self._wake()

    def _may_draw(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted > 0 or self._closed)
            return not self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
