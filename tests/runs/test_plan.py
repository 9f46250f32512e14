"""How tasks are shared among the elements of job arrays."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.runs.plan import common, element_count, plan
from fanfold.schedulers.base import Limits


@st.composite
def stretches(draw: st.DrawFn) -> list[range]:
    """Ascending ranges of tasks that do not touch one another."""
    lengths = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), max_size=12))
    found, position = [], 0
    for gap, length in lengths:
        found.append(range(position + gap, position + gap + length))
        position = found[-1].stop
    return found


def tasks_of(parts: list[range]) -> list[int]:
    return list(chain.from_iterable(parts))


limits = st.builds(Limits, st.integers(1, 30), st.integers(0, 30))


@given(stretches().filter(bool), st.integers(1, 500), limits)
def test_shares(tasks: list[range], wanted: int, limits: Limits) -> None:
    """Together the shares are the tasks, each once and in their order; they differ by one task at
    most, none is empty, and none has an empty part."""
    total = sum(map(len, tasks))
    elements = min(wanted, total)
    shares = list(chain.from_iterable(plan(tasks, elements, limits)))
    assert len(shares) == elements
    assert tasks_of(list(chain.from_iterable(shares))) == tasks_of(tasks)
    sizes = {sum(map(len, share)) for share in shares}
    assert max(sizes) - min(sizes) <= 1
    assert all(part for share in shares for part in share)


@given(stretches().filter(bool), st.integers(1, 500), limits)
def test_arrays(tasks: list[range], wanted: int, limits: Limits) -> None:
    """S15: no array has more elements, or a higher index, than the site allows; and there are no
    more arrays than it takes for that."""
    elements = min(wanted, sum(map(len, tasks)))
    arrays = plan(tasks, elements, limits)
    most = min(limits.elements, limits.highest_index + 1)
    assert max(map(len, arrays)) <= most
    assert len(arrays) == math.ceil(elements / most)


@given(
    st.integers(1, 10**7),
    st.integers(1, 256),
    st.floats(1e-6, 1e5),
    st.none() | st.floats(1, 1e6),
)
def test_elements_are_worth_their_start(
    tasks: int, workers: int, seconds: float, walltime: float | None
) -> None:
    """Where it is known how long a task takes, an element has work for a minute or half of its
    walltime, or a task for each worker where these take longer; half of that at least, and all is
    done in one element where it is less."""
    elements = element_count(tasks, workers=workers, seconds=seconds, walltime=walltime)
    worth = min(60.0, math.inf if walltime is None else walltime / 2)
    together = max(workers, worth * workers / seconds)  # tasks in an element that is just right
    largest = math.ceil(tasks / elements)
    assert 1 <= elements <= tasks
    assert largest <= together + 1
    if elements > 1:
        assert tasks / elements >= (together - 1) / 2


@given(st.integers(1, 10**6), st.integers(1, 256))
def test_nothing_is_known_yet(tasks: int, workers: int) -> None:
    """As long as it is not known how long a task takes there are 40 elements at most, and of
    several each has tasks for half of its workers, or more."""
    elements = element_count(tasks, workers=workers)
    assert 1 <= elements <= 40
    if elements > 1:
        assert tasks / elements > workers / 2


@given(st.integers(1, 1000), st.integers(1, 2000))
def test_as_asked(tasks: int, asked: int) -> None:
    """There are as many elements as the user asks for; but none without a task."""
    assert element_count(tasks, workers=4, seconds=1.0, asked=asked) == min(tasks, asked)


@given(stretches(), stretches())
def test_common(one: list[range], other: list[range]) -> None:
    """The tasks that are in both, ascending, in as few parts as can be."""
    found = common(one, other)
    assert tasks_of(found) == sorted({*tasks_of(one)} & {*tasks_of(other)})
    assert all(found)
    assert all(before.stop < after.start for before, after in pairwise(found))


@pytest.mark.parametrize("elements", [1, 7, 1000])
def test_many_tasks_are_few_ranges(elements: int) -> None:
    """A million tasks cost no more than their elements do: a share is a range, not a list."""
    shares = list(chain.from_iterable(plan([range(10**6)], elements, Limits())))
    assert sum(map(len, shares)) == elements
