"""ff.share: one array, whatever its type and shape, and whoever looks at it."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from tests.arrays.conftest import output

import fanfold as ff
from fanfold.arrays.array import _mapping_of

PLACES = ["serial", "threads", "processes"]
POINT = np.dtype([("x", ">f8"), ("label", "U3"), ("when", "M8[s]"), ("box", "i2", (2, 2))])


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal in dtype, shape and every bit."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def again(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, 5))


# What it looks like


@given(
    hnp.arrays(hnp.array_dtypes() | hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0))
)
@settings(max_examples=60, deadline=None)
def test_every_array_comes_back_bit_by_bit(array: np.ndarray) -> None:
    """Any dtype without objects, byte-swapped and structured ones too, any number of dimensions,
    empty ones too: what is shared, and what another process would load, are equal to it."""
    with ff.share(array) as shared:
        same(shared, array)
        same(again(shared), array)


LAYOUTS = {
    "every second": lambda a: a[::2, 1::3],
    "negative strides": lambda a: a[::-1, ::-2],
    "transposed": lambda a: a.T,
    "fortran": np.asfortranarray,
    "repeated": lambda a: np.broadcast_to(a[0], (7, *a[0].shape)),
    "one number": lambda a: a[3, 4],
    "0-d": lambda a: a[3, 4].reshape(()),
    "none": lambda a: a[5:5],
    "points": lambda a: np.zeros(a.shape, POINT)[:, ::2],
    "misaligned": lambda a: np.frombuffer(b"-" + a.tobytes(), a.dtype, offset=1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    """An array that does not lie in one piece, or in another order, is shared all the same, and
    the order of Fortran stays."""
    array = LAYOUTS[layout](np.arange(2e6).reshape(1000, 2000))
    with ff.share(array) as shared:
        same(shared, np.asarray(array))
        assert shared.flags.f_contiguous >= np.asarray(array).flags.f_contiguous


def test_handles_of_slices() -> None:
    """A slice, a field and a reversed view travel as handles of the same memory."""
    with ff.share(np.zeros((100, 100), POINT), writable=True) as shared:
        views = [shared[10:20, ::-3], shared["box"], shared[::-1].T, shared[3, 4:4]]
        for view in views:
            found = again(view)
            assert len(pickle.dumps(view, 5)) < 700
            same(found, view)
            assert np.shares_memory(found, view) or view.size == 0
        shared["x"][17, 0] = 5
        assert again(shared[10:20])["x"][7, 0] == 5


@pytest.mark.parametrize("writable", [False, True])
def test_a_handle_is_small(writable: bool) -> None:
    """A handle has a few hundred bytes, inside nested arguments too, whatever the array has."""
    with ff.share(np.zeros(10**6), writable=writable) as shared:
        nested = {"a": [shared, (shared, partial(len, shared))]}
        assert len(pickle.dumps(shared, 5)) < 500
        assert len(pickle.dumps(nested, 5)) < 700


def test_results_are_plain() -> None:
    """What is computed from a shared array is a plain array or number; what is written into it
    is in it."""
    with ff.share(np.arange(6.0).reshape(2, 3), writable=True) as shared:
        for result in (shared + 1, shared.mean(axis=0), np.sqrt(shared), shared @ shared.T):
            assert type(result) is np.ndarray
        assert type(shared.sum()) is np.float64
        assert np.negative(shared, out=shared) is shared
        shared += 1
        assert again(shared).tolist() == [[1, 0, -1], [-2, -3, -4]]


def test_copies_are_private() -> None:
    """A copy has memory of its own: it travels as any array, and says that it is not shared."""
    with ff.share(np.arange(4)) as shared:
        for copy in (shared.copy(), shared[shared > 1], shared[[0, 1]]):
            assert type(again(copy)) is np.ndarray
            with pytest.raises(ff.UsageError, match="private copy"):
                copy.path  # noqa: B018 - asking is what is refused


def test_what_is_shared_is_not_shared_again() -> None:
    """Sharing what is shared, or a plain view of it, costs nothing; asked for in another mode it
    is a new copy."""
    with ff.share(np.arange(4)) as shared:
        for view in (shared, np.asarray(shared)):
            assert ff.share(view).path == shared.path
        with ff.share(shared, writable=True) as other:
            other[0] = 9
            assert shared[0] == 0


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([{}, 1], object), "dtype object holds Python objects"),
        (np.zeros(2, [("a", "i4"), ("b", "O")]), "Python objects"),
        ([[1, 2], [3]], "no array"),
        (np.ma.array([1, 2], mask=[0, 1]), "two arrays"),
    ],
)
def test_what_cannot_be_shared(value: object, says: str) -> None:
    """A07: what would share pointers, or half of the data, is refused with the remedy."""
    with pytest.raises(ff.UsageError, match=says):
        ff.share(value)


def test_strings_of_any_length_are_refused() -> None:
    """NumPy's StringDType keeps its text elsewhere: refused, with fixed-width text as remedy."""
    if not hasattr(getattr(np, "dtypes", None), "StringDType"):
        pytest.skip("this NumPy has no StringDType")
    with pytest.raises(ff.UsageError, match="astype"):
        ff.share(np.array(["a"], np.dtypes.StringDType()))


def test_it_is_not_made_by_its_class() -> None:
    """SharedArray(...) would be private memory by a wrong name: it says what to write."""
    with pytest.raises(ff.UsageError, match=r"ff\.share"):
        ff.SharedArray((2, 3))


# Who sees it


def total_and_place(parts: dict[str, list[ff.SharedArray]], scale: int) -> tuple[float, str]:
    [array] = parts["here"]
    return float(array.sum()) * scale, array.path


@pytest.mark.parametrize("on", PLACES)
def test_every_place_sees_one_memory(on: str) -> None:
    """Serial, threads and processes get the same file, inside nested arguments too."""
    with ff.share(np.arange(1000.0)) as shared:
        found = ff.map(partial(total_and_place, {"here": [shared]}), range(4), on=on)
        assert found == [(499500.0 * scale, shared.path) for scale in range(4)]


def negate(array: ff.SharedArray, index: int) -> None:
    array[index] = -array[index]


@pytest.mark.parametrize("on", PLACES)
def test_workers_write_into_it(on: str) -> None:
    """E19: process i negates element i of a writable array; the owner sees all of it."""
    with ff.share(np.arange(10.0), writable=True) as shared:
        ff.map(partial(negate, shared), range(10), on=on)
        assert shared.tolist() == [-n for n in range(10)]


@pytest.mark.parametrize("on", PLACES)
def test_it_is_read_only_unless_asked(on: str) -> None:
    """Nobody can change it by accident: not the workers, not the owner, not by setflags."""
    with ff.share(np.arange(10.0)) as shared:
        [error] = ff.map(partial(negate, shared), [3], on=on, errors="return")
        assert "read-only" in str(error)
        with pytest.raises(ValueError, match="WRITEABLE"):
            shared.setflags(write=True)
        with pytest.raises(ff.UsageError, match="writable=True"):
            shared.lock  # noqa: B018


def test_a_read_only_view_stays_read_only() -> None:
    """The owner may write, and hand out views that nobody can write to."""
    with ff.share(np.zeros(3), writable=True) as shared:
        view = shared[:]
        view.flags.writeable = False
        [error] = ff.map(partial(negate, view), [0], on="processes", errors="return")
        assert "read-only" in str(error)
        found = again(view)
        shared[1] = 7
        assert found.tolist() == [0, 7, 0]


def test_a_result_may_be_a_slice() -> None:
    """A worker that returns a part of what it was given returns a handle, not a copy."""
    with ff.share(np.arange(10**6)) as shared:
        [part] = ff.map(lambda array: array[10:20], [shared], on="processes")
        assert part.path == shared.path
        assert part.tolist() == list(range(10, 20))


def test_many_handles_are_one_mapping() -> None:
    """Ten thousand handles of one array cost a process one mapping, and few descriptors."""
    with ff.share(np.arange(10**4)) as shared:
        before = len(os.listdir("/proc/self/fd"))
        found = again(list(shared.reshape(-1, 1)))
        assert len({id(_mapping_of(row)) for row in found}) == 1
        assert len(os.listdir("/proc/self/fd")) - before <= 1


RANKS = """
from mpi4py import MPI
world = MPI.COMM_WORLD
shared = ff.share(np.arange(10.0), writable=True) if world.rank == 0 else None
count = ff.SharedValue(0) if world.rank == 0 else None
array, counter = world.bcast((shared, count))
with array.lock:
    array[world.rank] = -1
counter.add(5)
world.Barrier()
if world.rank == 0:
    say(array[:3].tolist(), counter.value)
world.Barrier()
"""


def test_mpi_ranks_see_one_memory(script: Any) -> None:
    """Ranks of one node get handles by any message of MPI."""
    pytest.importorskip("mpi4py", reason="the mpi extra is not installed")
    mpiexec = Path(sys.executable).parent / "mpiexec"
    if not mpiexec.exists():
        pytest.skip("no mpiexec beside this Python")
    ranks = script(RANKS, prefix=[str(mpiexec), "-n", "3"])
    assert output(ranks) == ["[-1.0, -1.0, -1.0] 15"]


# How long it lives


def test_the_last_reference_frees_it() -> None:
    """The name goes with the last reference of its owner, views included, and not before."""
    shared = ff.share(np.arange(10))
    path = Path(shared.path)
    view = np.asarray(shared)[2:4]
    del shared
    gc.collect()
    assert path.exists()
    del view
    assert not path.exists()


def test_closing_leaves_who_has_it() -> None:
    """After close nobody can attach, and a handle is not sent; who is attached may go on."""
    shared = ff.share(np.arange(10))
    handle = pickle.dumps(shared)
    found = pickle.loads(handle)
    shared.close()
    shared.close()
    assert found.sum() == shared.sum() == 45
    assert not Path(found.path).exists()
    with pytest.raises(ff.errors.SharedGone, match=f"owner, process {os.getpid()}, has closed"):
        pickle.loads(handle)
    with pytest.raises(ff.errors.SharedGone, match="close it after the work"):
        pickle.dumps(shared)


def test_closing_elsewhere_does_nothing() -> None:
    """Only the owner removes it: a worker that closes or drops what it was given does not."""
    with ff.share(np.arange(10)) as shared:
        assert ff.map(lambda array: array.close(), [shared] * 3, on="processes") == [None] * 3
        assert Path(shared.path).exists()


FORKS = """
shared = ff.share(np.arange(10))
path = shared.path
if os.fork() == 0:
    del shared
    raise SystemExit
os.wait()
say(os.path.exists(path))
del shared
say(os.path.exists(path))
"""


def test_a_forked_child_frees_nothing(script: Any) -> None:
    """A forked child that drops its copy, and ends, leaves the owner's memory where it is."""
    assert output(script(FORKS)) == ["True", "False"]


def test_threads_attach_at_once() -> None:
    """Threads that load the same handle at the same time get one mapping."""
    with ff.share(np.arange(10), writable=True) as shared, ThreadPoolExecutor(8) as pool:
        handle = pickle.dumps(shared[3:])
        barrier = threading.Barrier(8)

        def load(_: int) -> ff.SharedArray:
            barrier.wait()
            return pickle.loads(handle)

        found = list(pool.map(load, range(8)))
        assert len({id(_mapping_of(one)) for one in found}) == 1
