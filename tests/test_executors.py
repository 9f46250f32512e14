"""The executors, fanfold's and the standard ones, under the same contract.

The standard executors validate the kit: what they do is what PEP 3148 means.
"""

import concurrent.futures as cf
import multiprocessing
import sys

import fanfold as ff
from fanfold.testing import ExecutorTests
from fanfold.testing.futures import FutureTests
from fanfold.testing.lifetimes import LifetimeTests
from fanfold.testing.maps import MapTests
from fanfold.testing.values import ValueTests


class TestSerial(ExecutorTests):
    inline = True

    def make(self, **options):
        return ff.SerialExecutor(**options)


class TestThreads(ExecutorTests):
    def make(self, **options):
        return ff.ThreadExecutor(**options)


class TestProcesses(ExecutorTests):
    remote = True

    def make(self, **options):
        return ff.ProcessExecutor(**options)


class TestProcessesBySpawn(ExecutorTests):
    remote = True

    def make(self, **options):
        return ff.ProcessExecutor(mp_context=multiprocessing.get_context("spawn"), **options)


class TestProcessesByFork(ExecutorTests):
    remote = True

    def make(self, **options):
        return ff.ProcessExecutor(mp_context=multiprocessing.get_context("fork"), **options)


class StandardTests(FutureTests, LifetimeTests, MapTests, ValueTests):
    """What applies to the standard executors: all but `StreamTests`, fanfold's own contract."""

    buffersize = sys.version_info >= (3, 14)


class TestStandardThreads(StandardTests):
    def make(self, **options):
        return cf.ThreadPoolExecutor(**options)


class TestStandardProcesses(StandardTests):
    remote = True

    def make(self, **options):
        context = multiprocessing.get_context("forkserver")
        return cf.ProcessPoolExecutor(mp_context=context, **options)
