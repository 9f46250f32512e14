"""``ff.explain`` and ``fanfold run --explain``: what was measured, what follows, how sure it is.

Times on a busy machine mean little, so these tests ask for what does not depend on them.
"""

import ast
import json
import math
import os
import subprocess
import sys
import time

import pytest
from tests.tries import tried

import fanfold as ff
from fanfold.executors.auto.choice import Choice, Facts
from fanfold.executors.auto.probe import Probe
from fanfold.explanations import _chosen, _doubts, _multiprocessing
from fanfold.schedulers.scripts.translate import translate

FACTS = Facts(100, 0.05, busy=1.0, held=1.0, sending=1e-5, function=1e-5, done=5, cores=4,
              workers=None, start="cold")  # fmt: skip


def nap(seconds):
    time.sleep(seconds)


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


# What it finds ------------------------------------------------------------------------------------


@tried
def test_little_work_stays():
    """A few short tasks are for a plain loop, and that is what stands under "by hand"."""
    told = ff.explain(abs, [-1, -2, -3])
    assert (told.place, told.workers) == ("serial", 1)
    assert told.multiprocessing == "results = list(map(abs, inputs))"
    assert told.seconds["serial"] < told.seconds["processes"]


@tried
def test_tasks_that_wait():
    """They get threads, more than there are cores."""
    told = ff.explain(nap, [0.02] * 50)
    assert told.place == "threads"
    assert told.workers > 4
    assert "ThreadPool" in told.multiprocessing


@tried
def test_tasks_that_compute(monkeypatch):
    """They are worth processes; each price is there, the cheapest is the chosen one."""
    monkeypatch.setenv("FANFOLD_CORES", "4")
    told = ff.explain(spin, [0.03] * 200)
    assert told.place == "processes"
    assert min(told.seconds, key=told.seconds.get) == "processes"
    assert told.seconds["serial"] == pytest.approx(200 * told.facts.pace)


@tried
def test_few_tasks_are_run():
    """Not more than some tenths of a second of them, and at least one, however long it is."""
    ran = []
    ff.explain(lambda n: ran.append(n) or spin(0.02), range(10_000))
    assert 1 <= len(ran) < 100
    ran.clear()
    ff.explain(lambda n: ran.append(n) or nap(0.4), range(10))
    assert ran == [0]


@tried
def test_several_iterables():
    """As for map: one of each is an argument."""
    told = ff.explain(pow, [2, 3], [5, 4])
    assert told.facts.done == 2
    assert not any("failed" in doubt for doubt in told.doubts)
    assert told.multiprocessing == "results = list(map(pow, *inputs))"


@tried
def test_workers_are_kept():
    """Who says how many workers there shall be is told about so many."""
    assert ff.explain(nap, [0.02] * 50, workers=3).workers == 3


def test_one_and_none():
    """One input is run; of none nothing is said but that."""
    assert ff.explain(abs, [-1]).facts.done == 1
    none = ff.explain(abs, [])
    assert none.facts.done == 0
    assert "no input" in str(none)


@pytest.mark.parametrize("wrong", [(3, [1]), (abs,), (abs, 3)])
def test_wrong_arguments(wrong):
    """No function, no inputs, or what is none, is refused in one sentence."""
    with pytest.raises(ff.UsageError) as caught:
        ff.explain(*wrong)
    assert "\n" not in str(caught.value)


# What it doubts -----------------------------------------------------------------------------------


@tried
def test_tasks_that_fail():
    """A function that fails on its first inputs is told, with its first error, and not raised."""
    told = ff.explain(lambda n: 1 // n, [0, 0, 1])
    assert "2 of the first 3 tasks failed (ZeroDivisionError" in told.doubts[0]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Probe(FACTS, (0.05,) * 5, (), 0.5, 0), "waited for a core 50% of the time"),
        (Probe(FACTS, (2.0, 0.05, 0.05, 0.05, 0.05), (), 0.0, 0), "the first task took 2.00s"),
        (Probe(FACTS, (0.01, 0.01, 0.01, 0.01, 3.0), (), 0.0, 0), "very unequal"),
        (Probe(FACTS._replace(done=1), (0.05,), (), 0.0, 0), "only one task was run"),
    ],
)
def test_doubts(found, says):
    """A busy machine, a slow first task, unequal tasks, a single one: each is a reason not to trust
    the rest, and says so."""
    assert any(says in doubt for doubt in _doubts(found))


def test_nothing_to_doubt():
    """Equal tasks on a machine that is free raise none."""
    assert list(_doubts(Probe(FACTS, (0.05,) * 5, (), 0.0, 0))) == []


def test_global_state_is_told(monkeypatch):
    """Tasks that change what belongs to the whole program get no threads, and that is told."""

    def change(number):
        os.environ["FANFOLD_TESTED"] = str(number)

    monkeypatch.setenv("FANFOLD_TESTED", "")
    told = ff.explain(change, range(3))
    assert math.isinf(told.seconds["threads"])
    assert "Not threads: tasks change the environment variables" in str(told)


def test_what_cannot_be_sent_is_told():
    """Results that cannot travel rule processes out, and the reason is told."""
    told = ff.explain(lambda n: (n for _ in range(3)), range(3))
    assert math.isinf(told.seconds["processes"])
    assert "Not processes: a result cannot be sent" in str(told)
    assert told.to_dict()["seconds"]["processes"] is None


# What it says -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "facts", "says"),
    [
        ("serial", FACTS, "would not win back"),
        ("serial", FACTS._replace(cores=1), "one core"),
        ("processes", FACTS, "take turns"),
        ("threads", FACTS._replace(busy=0.1, held=0.1), "mostly wait"),
    ],
)
def test_the_reason_goes_with_the_choice(place, facts, says):
    """Each choice says in a clause why it is one."""
    assert says in _chosen(facts, Choice(place, 2, {}))


@pytest.mark.parametrize("place", ["serial", "threads", "processes"])
@pytest.mark.parametrize("style", ["one", "star", "keywords"])
def test_the_text_by_hand_is_python(place, style):
    """What learners copy can be compiled, for every place and every kind of input."""
    ast.parse(_multiprocessing(pow, style, Choice(place, 2, {}), 100))


def test_the_text_by_hand_gives_the_same(tmp_path):
    """And run: it gives what the map gives."""
    text = _multiprocessing(pow, "star", Choice("processes", 2, {}), 3)
    program = f"inputs = [[2, 3, 4], [5, 2, 1]]\n{text}\n        print(results)\n"
    (tmp_path / "by_hand.py").write_text(program)
    ran = subprocess.run(
        [sys.executable, tmp_path / "by_hand.py"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"{ff.map(pow, [2, 3, 4], [5, 2, 1])}\n"


@tried
def test_the_scripts_say_the_same():
    """The two job scripts ask for the cores chosen, and one is the other, translated."""
    told = ff.explain(spin, [0.02] * 100)
    assert f"ncpus={told.workers}" in told.pbs
    translated = translate(told.pbs, "slurm").text.splitlines()
    assert set(told.slurm.splitlines()) <= set(translated)


# On the command line ------------------------------------------------------------------------------


@pytest.fixture
def fanfold(tmp_path):
    """Runs the command in a folder with a model.py; what it said."""
    (tmp_path / "model.py").write_text("def double(x):\n    print('said')\n    return 2 * x\n")

    def run(*arguments):
        command = [sys.executable, "-m", "fanfold", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    return run


@tried
def test_command(fanfold, tmp_path):
    """fanfold run --explain says it in a few lines, keeps nothing, and ends with 0; what the tasks
    print is no part of it; and a job would run the same command at the place chosen."""
    ran = fanfold("run", "--explain", "model.py:double", "--range", "1-3")
    assert (ran.returncode, ran.stderr.count("said")) == (0, 3)
    assert ran.stdout.startswith("double over 3 inputs\nMeasured: 3 tasks.")
    assert "said" not in ran.stdout
    assert "fanfold run model.py:double --range 1-3 --on serial --workers 1" in ran.stdout
    assert not (tmp_path / "fanfold-runs").exists()


@tried
def test_command_for_programs(fanfold):
    """With --json a program reads the same."""
    told = json.loads(fanfold("run", "--explain", "--json", "model.py:double", "1", "2").stdout)
    assert (told["name"], told["place"], told["workers"]) == ("double", "serial", 1)
    assert told["facts"]["done"] == 2
