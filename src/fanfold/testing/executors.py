"""The conformance suite for executors: `ExecutorTests`, from its parts."""

from __future__ import annotations

from fanfold.testing.futures import FutureTests
from fanfold.testing.lifetimes import LifetimeTests
from fanfold.testing.maps import MapTests
from fanfold.testing.streams import StreamTests
from fanfold.testing.values import ValueTests

__all__ = ["ExecutorTests"]


class ExecutorTests(FutureTests, LifetimeTests, MapTests, ValueTests, StreamTests):
    """Hold an executor to PEP 3148 and, where it is fanfold's own kind, to `Executor.open`.

    Subclass it in a test file, and say how the executor is made; pytest does the rest:

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> class TestThreadPool(ExecutorTests):
    ...     buffersize = False  # the standard executors take it since Python 3.14
    ...     def make(self, **options):
    ...         return ThreadPoolExecutor(**options)

    ``make`` is called with ``max_workers`` (1 or 2), ``initializer`` and ``initargs``. What the
    executor can do is said by class attributes; tests of what it cannot do are skipped, and
    their reasons are shown:

    - ``inline`` (False): tasks run in the caller, so that a future is finished when submit returns;
    - ``remote`` (False): tasks run in other processes, which can die, and must be sent there;
    - ``initializes`` (True): it takes ``initializer`` and ``initargs``;
    - ``buffersize`` (True): its ``map`` takes ``buffersize``.
    """
