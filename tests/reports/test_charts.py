"""The charts and figures of a report say what the history says, and no more."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fanfold.history import Session
from fanfold.reports.document import Facts, Histogram, Timeline
from fanfold.reports.episodes import episodes
from fanfold.reports.memory import memory
from fanfold.reports.pieces import Pieces
from fanfold.reports.scales import DURATION, SIZE, counts_axis, linear_axis, log_axis
from fanfold.reports.timeline import MOST_BARS, MOST_LANES, timeline
from fanfold.reports.times import times

BEGAN = 1_790_000_000.0


def facts_of(section):
    return dict(row for item in section.items if isinstance(item, Facts) for row in item.rows)


def chart_of(history):
    pieces = Pieces(history.pieces)
    section = timeline(history, pieces, episodes(history, pieces))
    return next(item for item in section.items if isinstance(item, Timeline))


# ---- episodes and lanes


def test_session_resumed_later_is_an_episode_of_its_own(piece, history_of):
    """Sessions apart in time have an axis each; elements side by side share one."""
    history = history_of(
        piece(0, seconds=2.0),
        piece(1, began=1.0, seconds=2.0, writer="e1-a1"),
        piece(2, began=100.0, writer="e0-a2"),
        sessions=[
            Session("e0-a1", "here", 1, BEGAN, BEGAN + 2, "interrupted"),
            Session("e1-a1", "there", 1, BEGAN + 1, BEGAN + 3, "done"),
            Session("e0-a2", "here", 2, BEGAN + 99, BEGAN + 101, "done"),
        ],
    )
    first, second = episodes(history, Pieces(history.pieces))
    assert (first.began - BEGAN, first.ended - BEGAN) == (0, 3)
    assert [lane.writer for lane in first.lanes] == ["e0-a1", "e1-a1"]
    assert (second.began - BEGAN, second.ended - BEGAN) == (99, 101)


def test_replacement_continues_the_lane_of_the_dead(death_of, piece, history_of):
    """Who begins after a worker has died takes its lane; who is only idle keeps it."""
    pieces = [
        piece(0, worker=0, seconds=1.0, ok=False),
        piece(1, worker=1, seconds=5.0),
        piece(2, worker=2, began=1.5, seconds=3.5),
    ]
    history = history_of(*pieces, failures=[death_of(0, worker="worker 0")])
    (episode,) = episodes(history, Pieces(history.pieces))
    assert [lane.names for lane in episode.lanes] == [("worker 0", "worker 2"), ("worker 1",)]
    assert episode.busy == pytest.approx(9.5 / 10)
    history = history_of(*pieces)
    (episode,) = episodes(history, Pieces(history.pieces))
    assert len(episode.lanes) == 3


def test_lanes_in_natural_order(piece, history_of):
    """Worker 10 stands after worker 9."""
    history = history_of(*(piece(index, worker=index) for index in (10, 9, 1)))
    (episode,) = episodes(history, Pieces(history.pieces))
    assert [lane.names[0] for lane in episode.lanes] == ["worker 1", "worker 9", "worker 10"]


# ---- the timeline


def test_each_task_has_its_bar(piece, history_of):
    """Few tasks: one bar each, in its place and of its length; what is between is idle."""
    history = history_of(piece(0, 0, 0, 2), piece(1, 0, 6, 4), piece(2, 1, 1, 3, ok=False))
    chart = chart_of(history)
    first, second = chart.lanes
    assert [(bar.first, bar.start, bar.end) for bar in first.bars] == [(0, 0, 0.2), (1, 0.6, 1.0)]
    assert [(bar.first, bar.start, bar.end) for bar in second.bars] == [(2, 0.1, 0.4)]
    assert [bar.failed for bar in (*first.bars, *second.bars)] == [False, False, True]
    assert [lane.share for lane in chart.lanes] == ["60 %", "30 %"]


def test_short_tasks_are_merged_and_counted(piece, history_of):
    """What is too short to be seen is one bar that knows how many tasks it holds and how busy."""
    short = [piece(index, 0, index * 0.002, 0.001) for index in range(1000)]
    history = history_of(*short, piece(1000, 0, 50.0, 50.0))
    (lane,) = chart_of(history).lanes
    merged, long = lane.bars
    assert (merged.tasks, merged.first, long.tasks, long.first) == (1000, 0, 1, 1000)
    assert merged.busy == pytest.approx(0.5, abs=0.01)
    assert long.busy == pytest.approx(1.0)


def test_tasks_that_can_be_seen_stay(piece, history_of):
    """Tasks three pixels long, one right after the other, have a bar each."""
    history = history_of(*(piece(index, 0, index * 1.0, 1.0) for index in range(300)))
    (lane,) = chart_of(history).lanes
    assert [bar.tasks for bar in lane.bars] == [1] * 300


def test_pauses_that_can_be_seen_stay(piece, history_of):
    """Short tasks far apart are not merged: the pause between them is drawn."""
    history = history_of(*(piece(index, 0, index * 1.0, 0.0001) for index in range(100)))
    (lane,) = chart_of(history).lanes
    assert [bar.tasks for bar in lane.bars] == [1] * 100


@pytest.mark.parametrize(("tasks", "workers"), [(200_000, 1), (200_000, 64), (20_000, 500)])
def test_shapes_are_bounded(tasks, workers, piece, history_of):
    """However many tasks and workers: some thousand bars, in which every attempt is counted."""
    rows = np.random.default_rng(1).exponential(1.0, tasks)
    pieces, ends = [], [0.0] * workers
    for index, seconds in enumerate(rows.tolist()):
        worker = index % workers
        pieces.append(piece(index, worker, ends[worker], seconds))
        ends[worker] += seconds + (1.0 if index % 3 else 0.0)
    chart = chart_of(history_of(*pieces))
    assert len(chart.lanes) == min(workers, MOST_LANES)
    assert sum(len(lane.bars) for lane in chart.lanes) <= MOST_BARS
    drawn = sum(bar.tasks for lane in chart.lanes for bar in lane.bars)
    assert drawn == sum(1 for one in pieces if int(one.worker[7:]) < MOST_LANES)


def test_unknown_begin_is_told(piece, history_of):
    """A piece of which the begin is not known is not drawn, and that is said."""
    lost = piece(1)._replace(began=None)
    history = history_of(piece(0), sessions=[])
    history = dataclasses.replace(history, pieces=[piece(0), lost], total=2, done=2)
    pieces = Pieces(history.pieces)
    section = timeline(history, pieces, episodes(history, pieces))
    assert "1 attempt not drawn" in section.items[-1].text


# ---- axes


@pytest.mark.parametrize("span", [0.0013, 0.7, 3, 59, 61, 4000, 90_000, 40 * 86400])
def test_marks_are_round_and_few(span):
    """From a millisecond to weeks an axis has 4 to 8 marks, evenly apart."""
    ticks = linear_axis(0, span, DURATION, "time").ticks
    assert 4 <= len(ticks) <= 8
    assert ticks[0].label == "0"
    assert len({tick.label for tick in ticks}) == len(ticks)
    assert np.ptp(np.diff([tick.at for tick in ticks])) < 1e-9
    assert all(len(tick.label) <= 6 for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (0.5, 86400), (1e-6, 1e7), (2, 50)])
def test_logarithmic_marks(low, high):
    """A logarithmic axis has 2 to 7 marks inside it."""
    ticks = log_axis(low, high, "time").ticks
    assert 2 <= len(ticks) <= 7
    assert all(0 <= tick.at <= 1.000001 for tick in ticks)


def test_marks_of_sizes_and_counts():
    """Sizes go by powers of two, counts are whole."""
    labels = [tick.label for tick in linear_axis(0, 1 << 30, SIZE, "memory").ticks]
    assert labels == ["0", "256 MB", "512 MB", "768 MB", "1 GB"]
    assert [tick.label for tick in counts_axis(3)[0].ticks] == ["0", "1", "2", "3"]
    assert [tick.label for tick in counts_axis(180_000)[0].ticks][:2] == ["0", "50k"]


# ---- times and memory


def test_times_count_every_task(piece, history_of):
    """Tasks timed together count each; the bins hold every attempt once."""
    history = history_of(
        piece(0, seconds=1.0, count=10), *(piece(10 + i, seconds=1 + i) for i in range(5))
    )
    section = times(Pieces(history.pieces))
    (chart,) = [item for item in section.items if isinstance(item, Histogram)]
    assert sum(bin_.done + bin_.failed for bin_ in chart.bins) == 15
    facts = facts_of(section)
    assert (facts["fastest"], facts["median"], facts["slowest"]) == ("100ms", "100ms", "5.00s")
    assert "10 of the attempts were too short" in section.items[2].text


def test_slowest_come_first(piece, history_of):
    """The slowest are listed by name with what is known of them; unknown columns are left out."""
    told = [piece(index, seconds=float(index % 50)) for index in range(1, 101)]
    history = history_of(*(one._replace(cpu_time=None) for one in told))
    table = times(Pieces(history.pieces)).items[-1]
    assert [row[0] for row in table.rows[:3]] == ["task 49", "task 99", "task 48"]
    assert "CPU time" not in table.columns


@pytest.mark.parametrize("tasks", [1, 3])
def test_few_tasks_are_listed_only(tasks, piece, history_of):
    """Of one or three tasks no distribution is drawn: the list of them says it all."""
    history = history_of(*(piece(index) for index in range(tasks)))
    pieces = Pieces(history.pieces)
    for section in (times(pieces), memory(pieces)):
        (table,) = section.items
        assert len(table.rows) == tasks


def test_equal_values_have_a_histogram(piece, history_of):
    """Values that are all the same, or zero, are one column."""
    for seconds in (0.0, 1.0, 1e5):
        history = history_of(*(piece(index, seconds=seconds) for index in range(30)))
        section = times(Pieces(history.pieces))
        (chart,) = [item for item in section.items if isinstance(item, Histogram)]
        assert [bin_.done for bin_ in chart.bins if bin_.done] == [30]


def test_memory_that_is_not_known(piece):
    """No section when no peak is known; a sentence when some are not."""
    known, lost = piece(0), piece(1)._replace(peak_memory=None)
    assert memory(Pieces([lost])) is None
    assert (
        memory(Pieces([known, lost])).items[-1].text
        == "Of 1 attempts the peak memory is not known."
    )
