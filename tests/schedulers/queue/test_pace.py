"""How often the queue is looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanfold.schedulers.pace import Clock, Pace


class Hand(Clock):
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def looks(changes: list[bool], chance: list[float]) -> list[float]:
    """The times of looks that show these changes."""
    clock, times = Hand(), []
    chances = iter(chance)
    pace = Pace(clock=clock, random=lambda: next(chances))
    for changed in changes:
        clock.now += pace.wait(changed)
        times.append(clock.now)
    return times


def test_it_grows() -> None:
    """While nothing changes, looks begin after half a second and become rarer, up to 2 minutes."""
    times = looks([False] * 20, [0.5] * 20)
    waits = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert waits[0] == 0.5
    assert waits == sorted(waits)
    assert max(waits) == 120
    assert sum(time < 60 for time in times) == 10


def test_a_change_begins_anew() -> None:
    """After a change the next look is soon."""
    clock = Hand()
    pace = Pace(clock=clock, random=lambda: 0.5)
    for _ in range(30):
        clock.now += pace.wait(changed=False)
    assert pace.wait(changed=True) == 0.5
    assert pace.wait(changed=False) == 0.75


def test_chance_spreads_processes() -> None:
    """S23: no two processes keep the same times: waits are a quarter longer or shorter."""
    assert [looks([False], [chance]) for chance in (0.0, 0.5, 1.0)] == [[0.375], [0.5], [0.625]]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=200))
def test_never_often(seen: list[tuple[bool, float]]) -> None:
    """S23: whatever changes how often, in the long run there is one look in 30 seconds."""
    times = looks([changed for changed, _ in seen], [chance for _, chance in seen])
    for count, time in enumerate(times, start=1):
        assert count <= 12 + 2 + time / 30
