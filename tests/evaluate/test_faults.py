"""Bad input, floating-point events, threads and forks."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

import numpy as np
import pytest

import fanfold as ff
from fanfold.errors import UsageError
from fanfold.expressions.threads import Pieces, spread

N = 70_000

BAD = {
    "dtype object": np.array([1, None]),
    "holds <U1": np.array(["a"]),
    "is structured: pass its fields, a": np.zeros(2, [("x", float)]),
    "is a MaskedArray": np.ma.masked_array([1.0], [True]),
    "is a matrix": np.ones((1, 1)).view(np.matrix),
    "is no array": [[1], [2, 3]],
    "a holds Python objects": None,
    "a holds <U4": "text",
}


@pytest.mark.parametrize("words", BAD)
def test_what_is_no_array_of_numbers_is_refused(words: str) -> None:
    """Objects, text, structures, masked arrays and matrices: the message says what to pass."""
    with pytest.raises(UsageError, match=words):
        ff.evaluate("a + 1", {"a": BAD[words]})


def test_lists_and_other_arrays_are_taken() -> None:
    """What NumPy makes an array of numbers of is one."""
    assert ff.evaluate("a + b", {"a": [1, 2], "b": memoryview(b"\1\2")}).tolist() == [2, 4]
    with ff.share(np.arange(3.0)) as shared:
        assert ff.evaluate("a * 2", {"a": shared}).tolist() == [0, 2, 4]


def test_shapes_that_do_not_broadcast_are_named() -> None:
    """Every name with its shape, in elementwise expressions and inside reductions."""
    given = {"a": np.ones((3, 4)), "b": np.ones(5), "c": 1.0}
    for text in ("a + b * c", "sum(a + b * c)"):
        with pytest.raises(UsageError, match=r"do not go together: a \(3, 4\), b \(5,\)\."):
            ff.evaluate(text, given)


def test_what_numpy_refuses_is_refused_with_its_words() -> None:
    """An operation without a loop for the dtypes, a number that does not fit, a negative power."""
    given = {"a": np.ones(3, np.uint8), "f": np.ones(3), "t": np.ones(3, bool), "n": np.arange(9)}
    for text, words in {
        "~f": "~ of float64: .*not supported",
        "t - t": "- of bool and bool: ",
        "n ** -2": "negative integer powers",
        "1 // 0 + n": "by zero",
    }.items():
        with pytest.raises(UsageError, match=words):
            ff.evaluate(text, given)


@pytest.mark.skipif(np.__version__ < "2", reason="NumPy 1 finds a wider dtype for the number")
def test_a_number_that_no_element_can_hold_is_refused() -> None:
    """NEP 50: a Python number takes the dtype of the array, or does not fit."""
    with pytest.raises(UsageError, match="out of bounds for uint8"):
        ff.evaluate("a + 300", {"a": np.ones(3, np.uint8)})


EVENTS = {
    "a / 0": "divide by zero",
    "a * 1e308 * 10": "overflow",
    "sqrt(0 - a)": "invalid value",
    "log(a - 1)": "divide by zero",
    "sum(a * 1e308)": "overflow",
    "n // 0": "divide by zero",
}


@pytest.mark.parametrize("text", EVENTS)
def test_an_event_is_told_once_where_the_user_is(way: str, text: str) -> None:
    """One warning for all tiles and threads, that points to the line of the caller."""
    a, n = np.ones(N), np.arange(N)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ff.evaluate(text, {"a": a, "n": n}, workers=3)
    assert [str(one.message) for one in told] == [f"{EVENTS[text]} encountered in evaluate"]
    assert told[0].filename == __file__


def test_errstate_of_the_caller_counts_in_every_thread(way: str) -> None:
    """ignore, raise and call do what they do in NumPy, whatever thread saw the event."""
    a = np.ones(N)
    with np.errstate(divide="ignore"):
        assert np.isinf(ff.evaluate("a / 0", {"a": a}, workers=3)).all()
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError, match="divide by zero"):
        ff.evaluate("a / 0", {"a": a}, workers=3)
    seen: list[str] = []
    with np.errstate(divide="call", call=lambda words, _: seen.append(words)):
        ff.evaluate("a / 0", {"a": a}, workers=3)
    assert seen == ["divide by zero"]
    with np.errstate(under="raise"), pytest.raises(FloatingPointError, match="underflow"):
        ff.evaluate("a * 1e-300 * 1e-300", {"a": a})


def test_quiet_arithmetic_tells_nothing(way: str) -> None:
    """NaN that goes in and comes out is no event, nor is what happened before."""
    a = np.resize([np.nan, 1.0, np.inf, -0.0], N)
    with np.errstate(all="ignore"):
        np.float64(1) / np.float64(0)
    with np.errstate(all="raise"):
        ff.evaluate("where(a > 0, a, -a) * 2 + a", {"a": a})


def test_an_error_in_a_thread_ends_them_all() -> None:
    """The first error is raised, and no piece is begun after it."""
    begun: list[int] = []

    def work(pieces: Pieces) -> None:
        for number in pieces:
            begun.append(number)
            if number == 3:
                raise KeyError(number)

    with pytest.raises(KeyError):
        spread(work, 10**6, 4)
    assert len(begun) < 10**6


def test_every_piece_is_done_once() -> None:
    """Pieces are shared out among the threads without a gap or a repetition."""
    done: list[int] = []
    spread(lambda pieces: done.extend(pieces), 1000, 5)
    assert sorted(done) == list(range(1000))


def test_evaluations_in_several_threads_do_not_mix(way: str) -> None:
    """Each has its own buffers and results."""
    found: dict[int, Any] = {}

    def compute(number: int) -> None:
        a = np.full(N, float(number))
        found[number] = [ff.evaluate("sum(a * a + a)", {"a": a}) for _ in range(5)]

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [N * (number * number + number)] * 5 for number in range(6)}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """After a fork the pool is made anew: nothing waits for threads that are not there."""
    a = np.ones(10 * N)
    assert ff.evaluate("sum(a * 2)", {"a": a}, workers=3) == 20 * N
    child = os.fork()
    if child == 0:
        os._exit(0 if ff.evaluate("sum(a * 2)", {"a": a}, workers=3) == 20 * N else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_memory_stays_that_of_the_tiles() -> None:
    """No temporary array of the size of the operands is made."""
    import tracemalloc

    a, out = np.ones(2**21), np.empty(2**21)
    tracemalloc.start()
    try:
        ff.evaluate("sin(a) * a + a % 3 + where(a > 0, a, 1)", {"a": a}, out=out, workers=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < a.nbytes / 2
