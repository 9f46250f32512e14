"""The specification of ff.map: the same on every place, for any number of workers."""

import functools
import gc
import itertools
import threading
import time
import traceback

import numpy as np
import pytest

import fanfold as ff
from fanfold.testing import Script, exit_now, kill_self
from fanfold.testing.functions import KitError, fail, quit_softly, square, unsteady

everywhere = pytest.mark.parametrize("on", ["serial", "threads", "processes"])
concurrently = pytest.mark.parametrize("on", ["threads", "processes"])


class LocalError(Exception):
    """An exception of a module that a worker cannot import."""


def mapped(function, *inputs, **options):
    """The four ways to the same list of results."""
    return {
        "map": ff.map(function, *inputs, **options),
        "starmap": ff.starmap(function, zip(*inputs, strict=False), **options),
        "imap": list(ff.imap(function, *inputs, **options)),
        "unordered": sorted(ff.imap_unordered(function, *inputs, **options)),
    }


# Results


@everywhere
def test_results_are_in_order(on, workers):
    """map, starmap and imap give what the built-in map gives; imap_unordered the same, shuffled."""
    expected = [number**2 for number in range(300)]
    for way, results in mapped(square, range(300), on=on, workers=workers).items():
        assert results == expected, way


@everywhere
def test_order_does_not_depend_on_duration(on):
    """Results come in the order of the inputs although early tasks take longest."""
    naps = [0.1, 0.05, 0.02, 0.0, 0.0]
    assert ff.map(lambda nap: time.sleep(nap) or nap, naps, on=on, workers=2) == naps


@concurrently
def test_unordered_results_come_as_they_end(on, gate):
    """imap_unordered gives a quick task's result while a slow one, begun earlier, still runs."""
    results = ff.imap_unordered(Script({0: gate.wait}), [0, 1, 2], on=on, workers=2, chunk=1)
    assert next(results) in (1, 4)
    assert next(results) in (1, 4)
    gate.open()
    assert list(results) == ["task"]


@everywhere
def test_several_iterables(on, workers):
    """With several iterables the function gets one item of each; the shortest ends it."""
    for way, results in mapped(pow, [2, 3, 4], range(9), on=on, workers=workers).items():
        assert results == [1, 3, 16], way


@everywhere
def test_empty_input(on, workers):
    """No inputs, no results, no error."""
    for way, results in mapped(square, [], on=on, workers=workers).items():
        assert results == [], way
    assert ff.map(pow, [1, 2], [], on=on, workers=workers) == []


@everywhere
def test_inputs_of_every_kind(on):
    """Inputs may be any iterable: a generator, a set, a dict, a string, an array."""
    assert ff.map(abs, (n - 2 for n in range(4)), on=on) == [2, 1, 0, 1]
    assert sorted(ff.map(abs, {-1, -2}, on=on)) == [1, 2]
    assert ff.map(str.upper, {"a": 1, "b": 2}, on=on) == ["A", "B"]
    assert ff.map(ord, "abc", on=on) == [97, 98, 99]
    assert ff.map(float, np.arange(3), on=on) == [0, 1, 2]


def test_auto_place():
    """on="auto", the default, gives the same as any place: for no task, one task, and many."""
    for count in (0, 1, 50):
        assert ff.map(square, range(count)) == [number**2 for number in range(count)]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@everywhere
def test_chunk_changes_nothing(on, chunk):
    """Results do not depend on chunk."""
    options = {"on": on, "workers": 2, "chunk": chunk, "errors": "return"}
    for results in mapped(square, range(50), **options).values():
        assert results == [number**2 for number in range(50)]


@everywhere
def test_executor_as_place(on):
    """An executor is a place too: used as it is, and left open."""
    with ff.executor(on, workers=2) as pool:
        assert ff.map(square, range(10), on=pool) == [number**2 for number in range(10)]
        assert ff.map(square, range(3), on=pool) == [0, 1, 4]
        assert pool.submit(square, 4).result() == 16


# Failures


def description(error):
    """What must not depend on place or workers: type, arguments, note without its worker."""
    (note,) = error.__notes__
    return type(error), error.args, note.rpartition(", ")[0]


@everywhere
def test_errors_in_place(on, workers):
    """errors="return" puts each exception in the place of its result, whatever the place."""
    script = Script({2: fail, 3: functools.partial(divmod, 1, 0), 9: quit_softly})
    found = ff.map(script, range(12), on=on, workers=workers, errors="return")
    failed = {index: description(found[index]) for index in (2, 3, 9)}
    assert [found[n] for n in range(12) if n not in failed] == [
        n * n for n in range(12) if n not in failed
    ]
    serial = ff.map(script, range(12), on="serial", errors="return")
    assert failed == {index: description(serial[index]) for index in failed}
    assert [kind for kind, *_ in failed.values()] == [KitError, ZeroDivisionError, SystemExit]


@everywhere
def test_errors_raise(on, workers):
    """errors="raise", the default, raises the user's own exception, with its attributes."""
    with pytest.raises(KitError) as caught:
        ff.map(Script({3: fail}), range(10), on=on, workers=workers)
    assert caught.value.args == ("as asked", 42)
    assert caught.value.code == 42


@everywhere
def test_note(on):
    """An exception has one note, with the task's index, its input and the attempt."""
    with pytest.raises(KitError) as caught:
        ff.map(lambda text: fail() if text == "c" else text, "abcde", on=on, workers=2)
    (note,) = caught.value.__notes__
    assert "task 2" in note
    assert "'c'" in note
    assert "attempt 1" in note


@everywhere
def test_traceback(on):
    """A printed exception shows the user's own line, wherever it ran."""

    def divide(number):
        return 1 / number  # this very line

    with pytest.raises(ZeroDivisionError) as caught:
        ff.map(divide, [1, 0], on=on, workers=2)
    assert "this very line" in "".join(traceback.format_exception(caught.value))


def test_remote_traceback_is_the_cause():
    """An exception from another process has the traceback there as its __cause__."""
    with pytest.raises(KitError) as caught:
        ff.map(fail, ["x"] * 3, on="processes", workers=2)
    assert "raise KitError(message, 42)" in str(caught.value.__cause__)


@everywhere
def test_exception_classes_of_the_user(on):
    """An exception class that workers cannot import is caught as itself."""

    def refuse(number):
        raise LocalError(number)

    with pytest.raises(LocalError) as caught:
        ff.map(refuse, [7, 8], on=on, workers=1)
    assert caught.value.args == (7,)


@concurrently
def test_raising_is_prompt(on, gate):
    """The first failure is raised although other tasks are far from their end."""
    began = time.monotonic()
    with pytest.raises(KitError):
        ff.map(Script({0: gate.wait, 1: fail}), [0, 1, 2], on=on, workers=2, chunk=1)
    assert time.monotonic() - began < 40  # nobody opens the gate, where they wait for 60 s


@everywhere
def test_raising_cancels_the_rest(on):
    """After a failure no further input is drawn: even an infinite input ends."""
    with pytest.raises(KitError):
        ff.map(Script({50: fail}), itertools.count(), on=on, workers=2)


@everywhere
def test_imap_gives_what_came_before_the_failure(on, workers):
    """imap gives the results before the failed task, then raises its exception."""
    results = ff.imap(Script({4: fail}), range(10), on=on, workers=workers)
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(KitError):
        next(results)


@pytest.mark.parametrize("fault", [kill_self, exit_now], ids=["killed", "exited"])
def test_death_fails_its_task_alone(fault, workers):
    """A task that ends its worker fails with WorkerDied; the others lose nothing."""
    found = ff.map(Script({7: fault}), range(20), on="processes", workers=workers, errors="return")
    died = found.pop(7)
    assert isinstance(died, ff.WorkerDied)
    assert died.index == 7
    assert died.exitcode == (-9 if fault is kill_self else 0)
    assert "task 7" in " ".join([str(died), *getattr(died, "__notes__", [])])
    assert found == [n * n for n in range(20) if n != 7]


# Retries and timeouts


@everywhere
def test_retries(on, workers, tmp_path):
    """A task that fails twice and then succeeds has its result with retries=2: three attempts."""
    task = functools.partial(unsteady, tmp_path, 2)
    assert ff.map(task, range(5), on=on, workers=workers, retries=2) == [0, 1, 2, 3, 4]
    assert len(list(tmp_path.iterdir())) == 15


@everywhere
def test_retries_end(on, tmp_path):
    """When the retries are used up the last attempt's exception comes back, and says so."""
    task = functools.partial(unsteady, tmp_path, 5)
    (error,) = ff.map(task, [0], on=on, workers=2, retries=1, errors="return")
    assert error.args == ("attempt 2 of 0",)
    (note,) = error.__notes__
    assert "attempt 2" in note
    assert len(list(tmp_path.iterdir())) == 2


@everywhere
def test_success_is_not_retried(on, tmp_path):
    """Tasks beside a failing one run once."""
    task = functools.partial(unsteady, tmp_path, 0)
    assert ff.map(task, range(5), on=on, workers=2, retries=3) == [0, 1, 2, 3, 4]
    assert len(list(tmp_path.iterdir())) == 5


def test_death_is_retried(tmp_path):
    """A task whose worker died is retried as one that raised."""

    def task(number):
        try:
            return unsteady(tmp_path, 1, number)
        except ConnectionError:
            kill_self()

    assert ff.map(task, range(3), on="processes", workers=2, retries=1) == [0, 1, 2]


@everywhere
def test_timeout(on, gate):
    """A task beyond its timeout fails with TaskTimeout, soon; its neighbours finish."""
    script = Script({3: gate.wait})
    began = time.monotonic()
    found = ff.map(script, range(8), on=on, workers=2, timeout=1.5, errors="return")
    assert time.monotonic() - began < 40  # nobody opens the gate, where it waits for 60 s
    late = found.pop(3)
    assert isinstance(late, ff.TaskTimeout)
    assert isinstance(late, TimeoutError)
    assert late.index == 3
    assert found == [n * n for n in range(8) if n != 3]


@everywhere
def test_timeout_is_each_task_s_own(on):
    """The limit is one task's, not the map's: many short tasks together may take longer."""
    naps = [0.5] * 7
    assert ff.map(time.sleep, naps, on=on, workers=1, timeout=3) == [None] * 7


# Inputs


@everywhere
def test_infinite_input(on, workers):
    """imap draws from an infinite input as far as is needed; leaving it stops everything."""
    squares = ff.imap(square, itertools.count(), on=on, workers=workers)
    assert list(itertools.islice(squares, 20)) == [number**2 for number in range(20)]
    squares.close()


@everywhere
def test_leaving_the_loop(on):
    """break leaves an endless imap_unordered; no worker goes on (`nothing_left` looks)."""
    for count, _ in enumerate(ff.imap_unordered(square, itertools.count(), on=on, workers=2)):
        if count == 30:
            break
    gc.collect()


def broken_input():
    yield from range(10)
    raise LocalError("the input is broken")


@everywhere
def test_input_that_raises(on, workers):
    """When the input raises at item 10, imap gives the ten results, then that error."""
    results = ff.imap(square, broken_input(), on=on, workers=workers)
    assert [next(results) for _ in range(10)] == [number**2 for number in range(10)]
    with pytest.raises(LocalError, match="the input is broken"):
        next(results)


@everywhere
def test_map_of_input_that_raises(on):
    """map of a broken input raises its error, also with errors="return": it is no task's."""
    with pytest.raises(LocalError):
        ff.map(square, broken_input(), on=on, workers=2, errors="return")


@concurrently
def test_window_is_bounded(on, gate):
    """While results are not ready, a bounded number of inputs is drawn from an endless one."""
    drawn = itertools.count()
    results = ff.imap(Script({5: gate.wait}), drawn, on=on, workers=2, chunk=1)
    opener = threading.Thread(target=lambda: (gate.wait_for(1), gate.open()))
    opener.start()
    assert list(itertools.islice(results, 6)) == [0, 1, 4, 9, 16, "task"]
    opener.join()
    results.close()
    assert next(drawn) < 1000


@everywhere
def test_slow_consumer_bounds_the_window(on):
    """Results that nobody takes hold up the drawing of inputs: memory stays bounded."""
    drawn = itertools.count()
    results = ff.imap(bytes, (next(drawn) for _ in itertools.count()), on=on, workers=2)
    for _ in range(3):
        next(results)
        time.sleep(0.05)
    results.close()
    assert next(drawn) < 100_000


# Random numbers


def draw(_):
    return ff.rng().random()


def draw_at_second_attempt(folder, number):
    value = ff.rng().random()
    unsteady(folder, 1, number)
    return value


def expected_draws(seed, count):
    """What the documentation of `ff.rng` promises, said once more."""
    streams = [np.random.SeedSequence(seed, spawn_key=(index,)) for index in range(count)]
    return [np.random.default_rng(stream).random() for stream in streams]


@pytest.mark.parametrize("chunk", [None, 1, 3])
@everywhere
def test_seed(on, workers, chunk):
    """The numbers of a task depend on seed and index only: not on place, workers or chunk."""
    found = ff.map(draw, range(20), seed=7, on=on, workers=workers, chunk=chunk)
    assert found == expected_draws(7, 20)


@everywhere
def test_seed_and_retries(on, tmp_path):
    """A retried task draws the same numbers again."""
    task = functools.partial(draw_at_second_attempt, tmp_path)
    assert ff.map(task, range(6), seed=7, on=on, workers=2, retries=1) == expected_draws(7, 6)


@everywhere
def test_without_seed(on):
    """Without seed every task, and every map, draws other numbers."""
    found = ff.map(draw, range(10), on=on, workers=2) + ff.map(draw, range(10), on=on, workers=2)
    assert len(set(found)) == 20
