"""What a study says: each sentence with its number, and why not to trust it."""

from __future__ import annotations

import json
import re

import pytest

IDEAL = {1: [10.0, 10.1, 9.9], 2: [5.0, 5.05, 4.95], 4: [2.5, 2.52, 2.48]}
STUCK = {1: [10.0, 10.1, 9.9], 2: [7.5, 7.55, 7.45], 4: [6.25, 6.3, 6.2]}  # half of it is serial


def said(study, part):
    """The one sentence with these words."""
    (sentence,) = (one for one in study.sentences() if part in one)
    return sentence


def test_arithmetic(study_of):
    """Speed-up, efficiency and cost are what their names say."""
    study = study_of(STUCK)
    assert study.speedup(1) == 1
    assert study.speedup(4) == pytest.approx(1.6)
    assert study.efficiency(4) == pytest.approx(0.4)
    assert study.cost(4) == pytest.approx(4 * 6.25 / 100)
    assert study.results_per_second(4) == pytest.approx(16)


def test_weak_study(study_of):
    """Where each worker brings its own work, the same time is a perfect speed-up."""
    study = study_of({1: [10.0] * 3, 4: [10.0] * 3}, mode="weak", profiles={4: {"work": 40.0}})
    assert study.speedup(4) == pytest.approx(4)
    assert study.efficiency(4) == pytest.approx(1)
    assert study.shares(4)["work"] == pytest.approx(1)
    assert study.laws["Gustafson"].serial.value == pytest.approx(0)


def test_without_one_worker(study_of):
    """Speed-ups are relative to one of the fewest workers that were tried."""
    study = study_of({2: IDEAL[2], 4: IDEAL[4]})
    assert study.speedup(2) == 2
    assert study.speedup(4) == pytest.approx(4)
    assert study.expected(4) == pytest.approx(4, rel=0.01)


def test_law_passes_where_it_was_measured(study_of):
    """What the law tells is on the scale of what was measured, and in its own band."""
    study = study_of(STUCK)
    for n in study.workers:
        low, high = study.band(n)
        assert low <= study.expected(n) <= high
        assert study.expected(n) == pytest.approx(study.speedup(n), rel=0.02)


def test_advice_has_its_numbers(study_of):
    """The advice names the workers, the time and the speed-up, and what more would bring."""
    advice = study_of({**STUCK, 8: [6.2, 6.3, 6.25]}).sentences()[0]
    assert advice == "Take 4 workers: 6.25s, 1.60 times one. With 8 it takes 6.25s."
    assert study_of(IDEAL).sentences()[0] == (
        "Take 4 workers: 2.50s, 4.00 times one. More were not tried; 100% of each is used."
    )


def test_law_has_its_numbers(study_of):
    """The law is told with its serial part and the interval of it."""
    serial = re.search(
        r"serial part ([\d.]+) \(([\d.]+) to ([\d.]+)\)", said(study_of(STUCK), "law")
    )
    value, low, high = map(float, serial.groups())
    assert low <= value <= high
    assert value == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("given", "words", "share"),
    [
        ({"work": 20.0}, "tasks wait for a core or for a lock", 10 / 25),
        ({"work": 20.0, "cpu": 20.0}, "memory, caches or clock are shared", 10 / 25),
        ({"idle": 10.0}, "workers wait for the last tasks", 10 / 25),
        ({}, "handing out tasks and taking in results", 15 / 25),
    ],
    ids=["waiting", "slower", "imbalance", "serial"],
)
def test_limits_have_their_numbers(study_of, given, words, share):
    """What was measured tells what the workers' time was lost to, and how much of it."""
    study = study_of(STUCK, profiles={4: given})
    assert f"With 4 workers {share:.0%} of their time is lost" in said(study, words)
    assert sum(study.shares(4).values()) == pytest.approx(1)


@pytest.mark.parametrize("seconds", [0.001, 2.5, 1000.0])
def test_shares_sum_to_one(study_of, seconds):
    """However the runs contradict one another, no share is negative, and there is one whole."""
    times = {1: [10.0] * 3, 4: [seconds] * 3}
    study = study_of(times, profiles={4: {"work": 30.0, "cpu": 50.0, "idle": 7.0}})
    shares = study.shares(4).values()
    assert min(shares) >= 0
    assert sum(shares) == pytest.approx(1)


def test_longest_task(study_of):
    """Wildly unequal tasks: the longest bounds the speed-up, and that bound is told."""
    study = study_of(STUCK, profiles={1: {"longest": 6.0}})
    assert "takes 6.00s of 10.0s for all: more than 1.7 times one" in said(study, "longest task")


def test_fewer_tasks_than_workers(study_of):
    """One input keeps one worker busy, however many there are."""
    study = study_of({1: [10.0] * 3, 4: [10.0] * 3}, tasks=1)
    assert said(study, "keeps") == "1 task keeps 1 worker busy: of 4 workers 3 have nothing to do."


def test_more_workers_than_cores(study_of):
    """Workers beyond the cores are named, with what a task needs of a core."""
    told = said(study_of(IDEAL, cores=2, profiles={1: {"cpu": 0.5}}), "share")
    assert told == "4 workers share 2 cores; alone a task keeps 5% of a core busy."
    assert not any("share" in one for one in study_of(IDEAL, cores=4).sentences())


def test_law_ends_at_the_cores(study_of):
    """Where times follow no law beyond the cores, the law is that of the numbers up to them, and
    what the workers lack there is a core."""
    times = {**IDEAL, 8: [2.5, 2.51, 2.49]}
    study = study_of(times, cores=4)
    assert study.reach == 4
    assert study.follows
    assert study.doubts == []
    assert study.best == 4
    assert "law, up to 4 workers: serial part 0.0" in said(study, "law")
    assert study.shares(8)["waiting"] == pytest.approx(0.5, abs=0.01)
    assert study.to_json()["workers"][3]["law"] is None
    assert "◆" not in next(one for one in study.text().splitlines() if one.startswith("8 workers"))
    assert study_of(times).reach == 8  # with cores enough that is no reason


def test_law_ends_where_workers_want_more_cores(study_of):
    """Tasks that compute follow no law beyond the cores, though one may happen to fit; of tasks
    that wait it tells more. What is recommended there is what was measured."""
    times = {1: [10.0, 10.1, 9.9], 2: [5.4, 5.41, 5.39], 4: [5.31, 5.32, 5.3]}
    computing = study_of(times, cores=2, profiles={1: {"cpu": 10.0}})
    assert (computing.reach, computing.best) == (2, 2)
    assert list(computing.laws) == ["Amdahl"]
    assert study_of(IDEAL, cores=2, profiles={1: {"cpu": 10.0}}).reach == 2
    assert study_of(IDEAL, cores=2, profiles={1: {"cpu": 0.5}}).reach == 4


def test_slow_first_run(study_of):
    """A function that is slower the first time: that is told, and is in none of the times."""
    told = said(study_of(IDEAL, profiles={4: {"first": 9.0}}), "first run")
    assert told.startswith("The first run takes 9.00s, later ones 2.50s")


def test_slow_start(study_of):
    """Starting workers is paid once; it is told where it is much beside the work."""
    told = said(study_of(IDEAL, profiles={4: {"start": 3.0}}), "Starting")
    assert told == "Starting 4 workers takes 3.00s, once; a run then takes 2.50s."


@pytest.mark.parametrize(
    ("times", "given", "doubt"),
    [
        ({1: [10.0, 14.0, 8.0], 2: [5.0, 7.0, 4.0]}, {}, "the machine is not quiet"),
        (IDEAL, {"load": 3.0, "cores": 4}, "others kept 3.0 of 4 cores busy"),
        ({1: [0.01] * 3, 2: [0.005] * 3}, {}, "at most 10.0ms: give more inputs"),
        ({1: [10.0], 2: [5.0]}, {}, "fewer than three repeats"),
        ({1: [10.0] * 3, 2: [2.0] * 3, 4: [9.0] * 3}, {}, "follow no simple law"),
    ],
    ids=["noisy", "busy", "short", "few repeats", "no law"],
)
def test_doubts(study_of, times, given, doubt):
    """What is not to be trusted says so, and why, in the sentences, the page and the JSON."""
    study = study_of(times, **given)
    assert any(doubt in one for one in study.doubts)
    assert doubt in " ".join(study.text(200).split())
    assert doubt in study.html()
    assert any(doubt in one for one in study.to_json()["doubts"])
    assert study.text().splitlines()[0] == "Scaling of work.f: in doubt"


def test_quiet_study_has_no_doubts(study_of):
    """What can be trusted has no doubt."""
    assert study_of(IDEAL).doubts == []
    assert study_of(IDEAL, load=3.0, cores=8).doubts == []  # there are cores enough for all
    assert study_of(IDEAL).text().splitlines()[0] == "Scaling of work.f: done"


def test_law_is_not_told_from_noise(study_of):
    """Where equal runs differ by more than a tenth, no law is stated."""
    study = study_of({1: [10.0, 14.0, 8.0], 2: [5.0, 7.0, 4.0]})
    assert not any("law" in one for one in study.sentences())


def test_terminal(study_of):
    """80 columns suffice; the bars are as long as the speed-ups, the ideal and the law beside."""
    text = study_of(STUCK).text(80)
    assert max(map(len, text.splitlines())) <= 80
    bars = {
        int(n): bar
        for n, bar in re.findall(r"^ *(\d) workers?  \d\.\d\d  (.*)$", text, re.MULTILINE)
    }
    assert sorted(bars) == [1, 2, 4]
    assert bars[4].count("█") / bars[1].count("█") == pytest.approx(1.6, abs=0.1)
    assert "◆" in bars[4]
    assert "│" in bars[2]
    assert "│" not in bars[4]  # it lies outside the chart


def test_terminal_without_unicode(study_of):
    """A terminal that shows ASCII alone gets no other character, and the same bars."""
    text = study_of(STUCK).text(80, ascii_only=True)
    assert text.isascii()
    assert re.search(r"^4 workers  1\.60  #+\+", text, re.MULTILINE)


def test_faster_than_ideal(study_of):
    """More than ideal, as caches may make it, is drawn in full."""
    text = study_of({1: [10.0, 10.1, 9.9], 2: [3.0, 3.01, 2.99]}).text(80)
    (bar,) = re.findall(r"^2 workers  3\.33  (.*)$", text, re.MULTILINE)
    assert bar.startswith("█" * 30)
    assert "│" in bar


def test_too_few_runs_for_an_interval(study_of):
    """An interval that nothing bounds is said to be unknown, and is null in the JSON."""
    study = study_of({1: [10.0], 2: [6.0]})
    assert "serial part 0.200 (too few runs for an interval)" in said(study, "law")
    record = study.to_json()
    serial = record["laws"]["Amdahl"]["serial"]
    assert serial == {"value": pytest.approx(0.2), "low": 0.0, "high": None}
    assert record["workers"][1]["law"]["band"] is None


def test_one_number_of_workers(study_of):
    """One number of workers has a table and advice, and no law."""
    study = study_of({2: [5.0, 5.1, 4.9]})
    assert study.law is None
    assert study.to_json()["laws"] == {}
    assert study.sentences()[0].startswith("Take 2 workers: 5.00s")
    assert "law" not in study.text().lower()


def test_json_is_json(study_of):
    """The record is plain JSON, with everything that is drawn."""
    record = json.loads(json.dumps(study_of(STUCK).to_json(), allow_nan=False))
    assert record["best"] == 4
    assert [row["workers"] for row in record["workers"]] == [1, 2, 4]
    assert record["workers"][2]["speedup"] == pytest.approx(1.6)
    assert record["laws"]["universal"]["serial"]["value"] == pytest.approx(0.5, abs=0.05)
