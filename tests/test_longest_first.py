"""Tasks of known cost begin longest first, and nothing but the time depends on it."""

from __future__ import annotations

import heapq
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runs.small import Site, site_in

import fanfold as ff
from fanfold.costs import dealt, longest_first, read_costs
from fanfold.errors import UsageError
from fanfold.executors.work import evidence
from fanfold.runs.arrays import read_array
from fanfold.runs.learned import learned
from fanfold.runs.plan import plan
from fanfold.runs.prepare import load
from fanfold.schedulers.base import Limits
from fanfold.store.directory import RunDirectory

LENGTHS = [3, 1, 9, 2, 7, 2, 8, 1]
DESCENDING = sorted(LENGTHS, reverse=True)

costs_of_many = st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, 1e9]), min_size=1)


def indices(ranges: Sequence[range]) -> list[int]:
    return list(chain.from_iterable(ranges))


def makespan(costs: Sequence[float], order: Sequence[int], workers: int) -> float:
    """When the last worker ends if a free one takes the next task."""
    ends = [0.0] * workers
    for index in order:
        heapq.heapreplace(ends, ends[0] + costs[index])
    return max(ends)


def draw(_: object) -> float:
    return float(ff.rng().random())


class Noted:
    """A function that notes in what order it is called; for the caller's own process."""

    def __init__(self) -> None:
        self.order: list[int] = []

    def __call__(self, length: int) -> int:
        self.order.append(length)
        return 10 * length


# The order ----------------------------------------------------------------------------------------


@given(costs_of_many, st.integers(1, 9))
def test_every_task_once(costs: list[float], workers: int) -> None:
    """Each task is in the order exactly once, and in exactly one share."""
    tasks = [range(len(costs) // 2), range(len(costs) // 2, len(costs))]
    assert sorted(indices(longest_first(costs, tasks, workers))) == list(range(len(costs)))
    shares = dealt(costs, tasks, workers)
    assert sorted(indices(list(chain.from_iterable(shares)))) == list(range(len(costs)))
    assert all(shares)


@given(costs_of_many, st.integers(1, 9))
def test_no_bad_end(costs: list[float], workers: int) -> None:
    """Workers end no later than in the order of the costs, task by task, but for 1/64 of a worker's
    share, since cheap tasks travel together; the shares of elements cost no more either."""
    order = indices(longest_first(costs, [range(len(costs))], workers))
    exact = sorted(range(len(costs)), key=lambda index: -costs[index])
    allowed = makespan(costs, exact, workers) + sum(costs) / workers / 64
    assert makespan(costs, order, workers) <= allowed * (1 + 1e-9)
    shares = dealt(costs, [range(len(costs))], workers)
    dearest = max(sum(costs[index] for index in indices(share)) for share in shares)
    assert dearest <= allowed * (1 + 1e-9)


@given(st.lists(st.floats(0.5, 100), min_size=1, max_size=60), st.integers(1, 9))
def test_longest_is_first(costs: list[float], workers: int) -> None:
    """The first task is the longest there is, or in a block with others that cost more together."""
    blocks = longest_first(costs, [range(len(costs))], workers)
    assert sum(costs[index] for index in blocks[0]) >= max(costs)


def test_equal_costs_change_nothing() -> None:
    """Tasks of equal cost go in the order of the inputs."""
    assert indices(longest_first([1.0] * 100, [range(100)], 2)) == list(range(100))


def test_costs_of_nothing() -> None:
    """Where all costs are 0, shares have as many tasks each, as without costs."""
    assert sorted(map(len, map(indices, dealt([0.0] * 7, [range(7)], 3)))) == [2, 2, 3]


def test_cheap_tasks_stay_together() -> None:
    """A million cheap tasks are a few hundred blocks, which can travel in chunks."""
    random_costs = random.Random(1)
    costs = [random_costs.random() for _ in range(100_000)] + [1e4]
    blocks = longest_first(costs, [range(len(costs))], 2)
    assert blocks[0] == range(100_000, 100_001)
    assert len(blocks) < 4 * 64 * 2
    assert longest_first([], [], 3) == []


@given(costs_of_many, st.integers(1, 30), st.integers(1, 7))
def test_shares_keep_the_limits(costs: list[float], elements: int, most: int) -> None:
    """S15: with costs, too, no array has more elements than the site allows."""
    arrays = plan([range(len(costs))], min(elements, len(costs)), Limits(most, most - 1), costs)
    assert max(map(len, arrays)) <= most
    assert sum(map(len, arrays)) <= elements
    everything = indices(list(chain.from_iterable(chain.from_iterable(arrays))))
    assert sorted(everything) == list(range(len(costs)))


# What a cost is -----------------------------------------------------------------------------------


def test_cost_gets_what_the_function_gets() -> None:
    """A cost that is a function is called as the function is: with one input, with one of each
    iterable, with the parts of a tuple, with keywords."""
    assert read_costs(lambda x: x, [2, 3]) == [2, 3]
    assert read_costs(lambda x, y: x * y, [(2, 3)], "star") == [6]
    assert read_costs(lambda x, y: x + y, [{"x": 1, "y": 2}], "keywords") == [3]
    assert ff.map(pow, [2, 3], [5, 2], cost=lambda x, y: y, on="serial") == [32, 9]
    assert ff.starmap(pow, [(2, 5), (3, 2)], cost=lambda x, y: y, on="serial") == [32, 9]


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ([1, 2], "cost has 2 numbers for 3 inputs"),
        ([1, -2, 3], "the cost of task 1, input 'b', is -2: it must be a number from 0"),
        ([1, math.nan, 3], "task 1"),
        ([1, 2, math.inf], "task 2"),
        (lambda _: "long", "the cost of task 0, input 'a', is 'long'"),
        (lambda _: None, "is None"),
        ("minutes", "a function of the input, or a number for each, not 'minutes'"),
        (7, "not 7"),
    ],
)
def test_wrong_costs(cost: object, words: str) -> None:
    """A cost that is none is refused before any task begins, and what is wrong with it is told."""
    called: list[str] = []
    with pytest.raises(UsageError) as refused:
        ff.map(called.append, ["a", "b", "c"], cost=cost, on="serial")  # type: ignore[arg-type]
    assert words in str(refused.value)
    assert called == []


def test_a_cost_that_raises() -> None:
    """What the function of the costs raises is its own error, and comes as it is."""
    with pytest.raises(KeyError, match="size"):
        ff.map(abs, [1], cost=lambda _: {}["size"], on="serial")


# Maps ---------------------------------------------------------------------------------------------


def test_longest_begin_first() -> None:
    """Tasks begin in the order of their costs; the results are in that of the inputs."""
    noted = Noted()
    assert ff.map(noted, LENGTHS, cost=lambda x: x, on="serial") == [10 * x for x in LENGTHS]
    assert noted.order == DESCENDING


def test_inputs_from_a_generator() -> None:
    """Inputs that come one by one are drawn first: all costs must be known."""
    noted = Noted()
    assert ff.map(noted, iter(LENGTHS), cost=LENGTHS, on="serial") == [10 * x for x in LENGTHS]
    assert noted.order == DESCENDING


@pytest.mark.parametrize("on", ["serial", "threads", "processes", "auto"])
def test_random_numbers_do_not_change(on: str) -> None:
    """Random streams are those of the tasks, whatever the order in which they run."""
    assert ff.map(draw, LENGTHS, seed=7, cost=LENGTHS, on=on, workers=2) == ff.map(
        draw, LENGTHS, seed=7, on="serial"
    )


def test_failures_in_their_place() -> None:
    """A failure is in the place of its result, and retried tasks stay themselves."""
    found = ff.map(
        lambda x: 12 // x, [3, 0, 4], cost=[1, 3, 2], on="threads", errors="return", retries=1
    )
    assert [type(one) for one in found] == [int, ZeroDivisionError, int]
    assert (found[0], found[2]) == (4, 3)


# Runs ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(length: float) -> float:
    with Path("order").open("a") as file:
        file.write(f"{length} ")
    return length


def recorded() -> list[int]:
    """What `record` was called with, in order; forgets it."""
    path = Path("order")
    told = [int(word) for word in path.read_text().split()]
    path.unlink()
    return told


def slow(length: int) -> int:
    return int(record(length))


@pytest.fixture
def clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes when a task is recorded, the more the longer it is, and else stands still."""

    def passed() -> float:
        path = folder / "order"
        told = path.read_text().split() if path.exists() else []
        return sum(math.log2(float(word)) for word in told)

    monkeypatch.setattr(evidence, "perf_counter", passed)


def test_run_with_costs(folder: Path) -> None:
    """`ff.run` takes costs as `ff.map` does; a run that goes on keeps the order for the rest."""
    run = ff.run(record, LENGTHS, name="r", on="serial", cost=lambda x: x).wait()
    assert run.results() == LENGTHS
    assert recorded() == DESCENDING
    again = ff.run(record, [*LENGTHS, 4, 6, 5], name="r", on="serial", cost=lambda x: x).wait()
    assert again.results() == [*LENGTHS, 4, 6, 5]
    assert recorded() == [6, 5, 4]


def test_learned_from_an_earlier_run(folder: Path, clock: None) -> None:
    """A new run of the same target takes the times of the one before, whatever the order of the
    inputs now; so does a run that is run again from the start."""
    lengths = [1, 4, 64, 16]
    ff.run(slow, lengths, name="first", on="serial").wait()
    assert recorded() == lengths
    second = ff.run(slow, lengths[::-1], name="second", on="serial").wait()
    assert second.results() == lengths[::-1]
    assert recorded() == [64, 16, 4, 1]
    second.retry(all=True).wait()
    assert recorded() == [64, 16, 4, 1]


def test_nothing_to_learn_from(folder: Path, clock: None) -> None:
    """Other functions and other inputs teach nothing, and a damaged run does not stand in the way;
    of an input that is new the mean is assumed."""
    lengths = [1, 4, 64, 16]
    run = ff.run(slow, lengths, name="first", on="serial").wait()
    ff.run(record, lengths, name="other", on="serial").wait()
    ff.run(slow, [5, 6, 7], name="apart", on="serial").wait()
    work = load(RunDirectory.open(Path("fanfold-runs", "apart")), trust=False)
    assert learned(work) is None
    third = ff.run(slow, [4, 64, 9, 1], name="third", on="serial").wait()
    recorded()
    work = load(RunDirectory.open(third.path), trust=False)
    found = learned(work)
    assert found is not None
    assert found.index(max(found)) == 1
    assert found[0] < found[2] < found[1]
    for path in run.path.glob("journals/*"):
        path.write_bytes(b"torn")
    assert learned(work) is None


# Job arrays ---------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site_in(tmp_path, monkeypatch) as site:
        yield site


def test_elements_get_the_same_work(site: Site) -> None:
    """The elements of an array get about the same cost each, with the longest first, and the run
    has its results in order."""
    import chores

    costs = [1, 1, 30, 1, 1, 10, 10, 10, 1]
    run = ff.run(chores.square, range(9), name="r", on="slurm", elements=2, cost=costs)
    assert run.wait().results() == [n * n for n in range(9)]
    shares = read_array(RunDirectory.open(run.path), 1).shares
    loads = sorted(sum(costs[index] for index in indices(share)) for share in shares)
    assert loads == [32, 33]
    assert [costs[share[0].start] for share in shares] == [30, 10]


def test_map_on_a_scheduler(site: Site) -> None:
    """`ff.map(on="slurm")` shares the tasks out in the same way."""
    import chores

    with ff.executor("slurm", elements=2) as pool:
        found = ff.map(chores.square, range(6), on=pool, cost=[1, 1, 1, 1, 1, 5])
    assert found == [n * n for n in range(6)]
    assert len(site.jobs()) == 1


# The command --------------------------------------------------------------------------------------

TASKS = """
def record(x):
    with open("order", "a") as file:
        file.write(f"{x} ")
    return x


def both(x, minutes):
    return x * minutes
"""


@pytest.fixture
def fanfold(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in a folder with a module of tasks and a table."""
    (folder / "work.py").write_text(TASKS)
    (folder / "table.csv").write_text("x,minutes,name\n1,5,a\n2,90,b\n3,20,c\n")

    def fanfold(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "fanfold", "run", *arguments, "--on", "serial", "--quiet"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done

    return fanfold


def test_column_of_costs(fanfold: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """--cost names a column: the longest begin first, and results stay in the order of the table. A
    function gets the column where it has an argument of that name, and a program where it has a
    place for it."""
    Path("table.csv").write_text("x,minutes\n1,5\n2,90\n3,20\n")
    done = fanfold("work.py:record", "--over", "table.csv", "--cost", "minutes")
    assert done.stdout == "index\tx\tresult\n0\t1\t1\n1\t2\t2\n2\t3\t3\n"
    assert recorded() == [2, 3, 1]
    done = fanfold("work.py:both", "--over", "table.csv", "--cost", "minutes")
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == ["5", "180", "60"]
    done = fanfold("--command", "echo {x}", "--over", "table.csv", "--cost", "minutes")
    assert done.stdout.splitlines()[1:] == ["0\t1\t1", "1\t2\t2", "2\t3\t3"]


def test_inputs_are_the_costs(fanfold: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Plain inputs are one column, named input: where they are numbers, they may be the costs."""
    fanfold("work.py:record", "3", "9", "1", "--cost", "input")
    assert recorded() == [9, 3, 1]


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ("hours", "--cost hours: no such column; there is x, minutes, name"),
        ("name", "is 'a': it must be a number from 0"),
    ],
)
def test_wrong_columns(
    fanfold: Callable[..., subprocess.CompletedProcess[str]], cost: str, words: str
) -> None:
    """A column that is not there, or holds no numbers, is refused before any work."""
    done = fanfold("work.py:record", "--over", "table.csv", "--cost", cost, code=2)
    assert words in done.stderr
    assert not Path("order").exists()
