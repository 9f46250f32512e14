"""A queue whose nodes can be lost, with what runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanfold.schedulers.local import LocalElement, LocalQueue
from fanfold.schedulers.local.process import Ending
from fanfold.schedulers.local.running import Running

__all__ = ["NodeQueue"]

Indices = Sequence[int | None]


class NodeQueue(LocalQueue):
    """A queue that can let an element begin again while its processes are still there, and that
    holds elements that are about to wait again."""

    _left: tuple[Running, ...] = ()
    _kept: frozenset[tuple[int, int | None]] = frozenset()

    def _raw(self, number: int) -> int:
        """PBS does not count the elements of arrays as jobs."""
        return super()._raw(number) if self.jobs[number].job.dialect == "slurm" else number

    def skip(self) -> None:
        """Use up the number of a job."""
        self._next += 1

    def hold(self, number: int, indices: Indices | None = None) -> None:
        super().hold(number, indices)
        self._kept |= {(number, one.index) for one in self._chosen(number, indices)}

    def release(self, number: int, indices: Indices | None = None) -> None:
        self._kept -= {(number, one.index) for one in self._chosen(number, indices)}
        super().release(number, indices)

    def _wait_again(self, number: int, element: LocalElement, delay: float) -> None:
        super()._wait_again(number, element, delay)
        if (number, element.index) in self._kept:
            element.state = "held"

    def leave(self, number: int, index: int | None) -> None:
        """Let an element that runs wait to begin again; its processes are left to themselves."""
        (element,) = self._chosen(number, [index])
        running = self._running.pop(element)
        running.begin = running.begin._replace(element=replace(element))
        self._left += (running,)
        self._free.append(element.node)
        self._wait_again(number, element, 0.0)

    def signal_left(self, signum: int) -> None:
        """Send a signal to all processes that were left."""
        for running in self._left:
            running.process.signal(signum)

    def _finish(self, ending: Ending | None) -> None:
        left = [one for one in self._left if ending and one.process is ending.process]
        if not left or ending is None:
            super()._finish(ending)
            return
        self._left = tuple(one for one in self._left if one not in left)
        left[0].finish(ending)

    def close(self) -> None:
        """End every process that it started, those that were left too."""
        for running in self._left:
            running.kill()
        while self._left:
            self._reap(1.0)
        super().close()
