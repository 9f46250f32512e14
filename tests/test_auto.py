"""``on="auto"``: what is chosen for which tasks; and that the choice changes but the time."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tries import tried

import fanfold as ff
from fanfold.executors.auto import executor
from fanfold.executors.auto.belongings import Belongings
from fanfold.executors.auto.choice import SHORT, Choice, Facts, choose
from fanfold.executors.auto.executor import AutoExecutor, work_at_once
from fanfold.executors.auto.sizes import sending_time
from fanfold.executors.auto.watch import Watch
from fanfold.tasks import Call, Chunk, Report

COMPUTING = Facts(
    left=1000, pace=0.01, busy=1.0, held=1.0, sending=0.0, function=0.0, done=1, cores=4,
    workers=None, start="cold",
)  # fmt: skip


# The calculation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "place"),
    [
        (COMPUTING, "processes"),
        (COMPUTING._replace(left=1), "serial"),
        (COMPUTING._replace(left=3, pace=0.003), "serial"),
        (COMPUTING._replace(pace=1e-7, left=10**6), "serial"),
        (COMPUTING._replace(held=0.0), "threads"),
        (COMPUTING._replace(busy=0.01, held=0.01), "threads"),
        (COMPUTING._replace(sending=0.02), "serial"),
        (COMPUTING._replace(sending=0.02, held=0.1), "threads"),
        (COMPUTING._replace(function=60.0), "serial"),
        (COMPUTING._replace(loading=60.0), "serial"),
        (COMPUTING._replace(busy=4.0, held=0.0), "serial"),  # one task keeps all cores busy
        (COMPUTING._replace(room=1), "serial"),
        (COMPUTING._replace(barred=(("processes", "why"),)), "serial"),
        (COMPUTING._replace(held=0.0, barred=(("threads", "why"),)), "processes"),
        (COMPUTING._replace(cores=1), "serial"),
        (COMPUTING._replace(cores=1, busy=0.0, held=0.0), "threads"),
    ],
)
def test_the_cheapest_place_is_chosen(facts, place):
    """Work goes to processes; what waits or lets go of the lock to threads; what is short, or costs
    more to send than to do, stays."""
    assert choose(facts).place == place


def test_copies_pay_sooner():
    """Workers that are copies of the program start sooner than new interpreters, of which the first
    is the slowest, and import nothing."""
    short = COMPUTING._replace(pace=0.0003, cores=2, left=240, loading=0.0)
    assert choose(short._replace(start="copied")).place == "processes"
    assert choose(short._replace(start="cold")).place == "serial"


def test_tasks_that_wait_get_more_threads_than_cores():
    """How many is a matter of how much they wait, and of how many there are."""
    waiting = COMPUTING._replace(busy=0.01, held=0.01, pace=0.1)
    assert choose(waiting).workers == 256
    assert choose(waiting._replace(left=40)).workers == 40
    assert choose(waiting._replace(workers=8)).workers == 8


def test_nobody_knows_how_many_are_left():
    """Of inputs without an end as many are expected as have come, times ten."""
    assert choose(COMPUTING._replace(left=None, done=1)).place == "processes"
    assert choose(COMPUTING._replace(left=None, done=1, pace=0.001)).place == "serial"


@given(
    left=st.integers(0, 10**7), pace=st.floats(0, 100), busy=st.floats(0, 1), held=st.floats(0, 1),
    sending=st.floats(0, 1), cores=st.integers(1, 64), workers=st.none() | st.integers(1, 64),
    start=st.sampled_from(["cold", "warm", "copied"]),
)  # fmt: skip
def test_there_is_always_a_choice(left, pace, busy, held, sending, cores, workers, start):
    """Whatever was measured, there is a place with a worker, and none is clearly cheaper."""
    facts = Facts(left, pace, busy, held, sending, 0.0, 1, cores, workers, start)
    choice = choose(facts)
    assert choice.workers >= 1
    assert 0.9 * choice.prices[choice.place] - 0.001 <= min(choice.prices.values())


def test_who_is_there_stays_unless_it_pays():
    """What has begun in a place goes on there, unless another is clearly cheaper; and never back
    to the caller's thread."""
    assert choose(COMPUTING, "processes", 4)[:2] == ("processes", 4)
    assert choose(COMPUTING, "threads", 4)[:2] == ("processes", 4)
    assert choose(COMPUTING._replace(left=3), "threads", 4)[:2] == ("threads", 4)
    assert choose(COMPUTING._replace(busy=0.01, held=0.01), "processes", 4).place == "threads"


@given(st.recursive(st.none() | st.floats() | st.binary() | st.text(), st.lists, max_leaves=50))
def test_the_time_to_send_is_never_negative(value):
    """Anything can be asked about, and costs at least a message."""
    assert sending_time(value) > 0


# The executor -------------------------------------------------------------------------------------


def decided(func, inputs, **options):
    """The results of a map, and where its later tasks ran."""
    place = AutoExecutor(total=len(inputs))
    results = ff.map(func, inputs, on=place, progress=False, **options)
    return results, [one.choice.place for one in place.decisions] or ["serial"]


def spin(seconds):
    """Computes, in Python."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return os.getpid()


def nap(seconds):
    time.sleep(seconds)
    return threading.get_ident()


def sort(size):
    """Computes, and lets go of the interpreter's lock."""
    for _ in range(4):
        np.sort(np.random.default_rng(size).random(200_000))
    return os.getpid()


@tried
def test_short_work_starts_nothing():
    """A pool is never started for a few milliseconds of work."""
    results, places = decided(spin, [0.0001] * 10)
    assert places == ["serial"]
    assert set(results) == {os.getpid()}


@tried
def test_tasks_that_compute_go_to_processes():
    """But for the first, which was run here to find out."""
    results, places = decided(spin, [0.05] * 12)
    assert places[-1] == "processes"
    assert results[0] == os.getpid()
    assert os.getpid() not in results[-2:]


@tried
def test_tasks_that_wait_do_not_stay():
    """Or, on a machine so busy that it cannot be told from work, to processes: they do not stay."""
    results, places = decided(nap, [0.05] * 30)
    assert places != ["serial"]
    assert len(set(results)) > 1


@tried
def test_long_tasks_get_workers():
    """Threads where NumPy lets go of the lock, or processes where that cannot be seen."""
    results, places = decided(sort, range(30))
    assert places != ["serial"]
    assert len(results) == 30


def wait_for_others(argument):
    """Task 0 ends when another task has begun."""
    number, folder = argument
    Path(folder, str(number)).touch()
    while number == 0 and len(os.listdir(folder)) < 2:
        time.sleep(0.001)
    return number


def test_nothing_waits_behind_a_long_first_task(tmp_path):
    """While the first still runs here, the others are already at work elsewhere."""
    inputs = [(number, str(tmp_path)) for number in range(8)]
    results, places = decided(wait_for_others, inputs)
    assert results == list(range(8))
    assert places != ["serial"]


def count_others(argument):
    """Task 0 computes until ten others have begun: in which processes?"""
    number, folder = argument
    Path(folder, f"{os.getpid()}-{number}").touch()
    spin(0.02)
    while number == 0 and len(os.listdir(folder)) < 12:
        pass
    return {name.partition("-")[0] for name in os.listdir(folder)}


@tried
def test_a_long_first_task_keeps_its_core(monkeypatch, tmp_path_factory):
    """While a task computes here, there is a worker for each other core; then for all of them."""
    monkeypatch.setenv("FANFOLD_CORES", "2")
    folder = str(tmp_path_factory.mktemp("begun"))
    results, places = decided(count_others, [(number, folder) for number in range(30)], workers=2)
    assert places[0] == "processes"
    assert (len(results[0]), len(set().union(*results))) == (2, 3)


def grow(number):
    """Tasks 0 to 199 take no time, the later ones do."""
    if number >= 200:
        spin(0.02)
    return number


@tried
def test_it_changes_its_mind():
    """When tasks turn out longer than the first were, they go elsewhere, though it began here."""
    results, places = decided(grow, range(230))
    assert results == list(range(230))
    assert places != ["serial"]


def note(argument):
    number, folder = argument
    with open(Path(folder, f"{number}-{os.getpid()}-{threading.get_ident()}"), "x"):
        spin(0.002)
    return number


def test_no_task_is_run_twice(tmp_path):
    """What was measured is kept: each task runs once, wherever it runs."""
    results, _ = decided(note, [(number, str(tmp_path)) for number in range(100)])
    assert results == list(range(100))
    assert sorted(int(name.split("-")[0]) for name in os.listdir(tmp_path)) == list(range(100))


def draw(scale):
    if scale > 3:
        spin(0.01)
    return float(ff.rng().random()) * scale


@tried
def test_the_place_changes_no_result():
    """Seeds, folds and order are as everywhere."""
    inputs = [1, 2, 3, *range(4, 40)]
    expected = ff.map(draw, inputs, on="serial", seed=7)
    results, places = decided(draw, inputs, seed=7)
    assert places != ["serial"]
    assert results == expected
    folded = {
        on: ff.map_reduce(draw, inputs, on=on, seed=7)
        for on in ("serial", "processes", AutoExecutor(total=len(inputs)))
    }
    assert len(set(folded.values())) == 1


def fail(number):
    if number % 3 == 0:
        raise ValueError(number)
    spin(0.01)
    return number


def test_who_fails_at_once_is_told_as_everywhere():
    """The first failure is raised as itself, or all of them come back, each in its place."""
    with pytest.raises(ValueError, match="0"):
        decided(fail, range(30))
    results, _ = decided(fail, range(30), errors="return")
    assert [type(result) for result in results[:4]] == [ValueError, int, int, ValueError]


def test_what_must_be_stopped_runs_where_it_can_be():
    """With a timeout all tasks run in processes: in the caller's thread nobody could stop them."""
    results, _ = decided(nap, [0.0, 60.0, 0.0], timeout=0.5, errors="return")
    assert isinstance(results[1], ff.TaskTimeout)
    assert threading.get_ident() not in results[:1]


def compute_then_wait(number):
    """Tasks 0 to 99 compute, the later ones wait."""
    if number < 100:
        spin(0.004)
    else:
        time.sleep(0.03)
    return number


@tried
def test_tasks_that_come_to_wait_move_on():
    """From processes to threads, when later tasks only wait, and many can wait together."""
    results, places = decided(compute_then_wait, range(400))
    assert results == list(range(400))
    assert places[-1] == "threads"


@tried
def test_short_tasks_go_on_here_while_workers_start():
    """The caller's thread does not stand by until the first worker is there: it runs more than the
    tasks that had ended, and the one that ran, when the workers were asked for."""
    place = AutoExecutor(total=200)
    results = ff.map(spin, [0.002] * 200, on=place, progress=False)
    assert place.decisions
    asked = place.decisions[0]
    assert asked.choice.place == "processes"
    assert asked.facts.pace < SHORT
    assert results.count(os.getpid()) > asked.facts.done + 1


def test_what_cannot_be_sent_is_not_sent():
    """Inputs and functions that no other process could get stay in this one, and are no error."""
    lock = threading.Lock()
    for func, inputs in (
        (lambda one: spin(0.01) or one.locked(), [lock] * 12),
        (lambda number: spin(0.01) and lock.locked(), range(12)),
    ):
        results, places = decided(func, inputs)
        assert "processes" not in places
        assert len(results) == 12


def random_sort(seed):
    np.random.seed(seed)
    return float(np.sort(np.random.random(300_000))[7])


def test_tasks_that_change_what_all_threads_share_get_no_threads():
    """A global random generator that is seeded in each task gives what it gives in a loop."""
    results, places = decided(random_sort, range(20))
    assert "threads" not in places
    assert results == [random_sort(seed) for seed in range(20)]


@pytest.mark.parametrize("change", ["folder", "variable", "generator", "global"])
def test_changes_of_the_program_are_seen(change, tmp_path, monkeypatch):
    """The working directory, an environment variable, a random generator, a global variable."""
    monkeypatch.chdir(tmp_path)
    before = Belongings(test_changes_of_the_program_are_seen)
    assert before.changed() is None
    if change == "folder":
        (tmp_path / "other").mkdir()
        os.chdir("other")
    elif change == "variable":
        monkeypatch.setenv("FANFOLD_TESTED", "1")
    elif change == "generator":
        random.random()
    else:
        monkeypatch.setitem(globals(), "COMPUTING", None)
    assert before.changed() is not None


@tried
def test_what_is_just_imported_has_not_changed(monkeypatch):
    """A task may be in the middle of the import of NumPy's generators when they are looked at."""
    before = Belongings(abs)
    monkeypatch.setitem(sys.modules, "numpy.random", ModuleType("numpy.random"))
    assert before.changed() is None


def test_no_input_and_one():
    """Nothing to do is done at once; one task runs here."""
    assert decided(nap, []) == ([], ["serial"])
    assert decided(nap, [0.05]) == ([threading.get_ident()], ["serial"])


@tried
def test_more_workers_than_cores():
    """Who asks for so many gets them."""
    place = AutoExecutor(2 * int(ff.cores()), total=40)
    ff.map(nap, [0.03] * 40, on=place, progress=False)
    assert place.decisions[-1].choice.workers == 2 * int(ff.cores())


@tried
def test_a_map_without_a_place_is_measured():
    """on="auto" is the default: a few short tasks run in this process, and start no other."""
    assert set(ff.map(spin, [0.0] * 5)) == {os.getpid()}
    assert list(ff.imap(spin, [0.0] * 3)) == [os.getpid()] * 3
    with ff.executor("auto", workers=1) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()


def test_an_interrupt_in_the_callers_thread_is_an_interrupt():
    """Ctrl-C during a first task is no failure of that task."""

    def interrupted(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decided(interrupted, range(5), errors="return")


def branch_at(stream, outstanding):
    """A place that is none."""
    return SimpleNamespace(
        place=SimpleNamespace(batch=False), stream=stream, outstanding=outstanding,
        close=lambda: None,
    )  # fmt: skip


class OneReport:
    """A place that tells of one task, to who asks first, and slowly."""

    def __init__(self):
        self.asked = threading.Event()
        self.asked_again = threading.Event()

    def receive(self, timeout):
        if self.asked.is_set():
            self.asked_again.set()
            return None
        self.asked.set()
        self.asked_again.wait(0.3)
        return Report(0, ["done"])

    def wake(self):
        """Who waits is told that the caller is back."""


def test_nobody_waits_for_what_another_thread_has_taken():
    """While the watching thread takes in the last report, the caller does not go to wait for it."""
    stream = AutoExecutor(2).open(Call(abs))
    place = OneReport()
    stream._branches.append(branch_at(place, 1))
    stream._here = False
    with stream:
        watching = threading.Thread(target=stream._look, args=[1.0])
        watching.start()
        assert place.asked.wait(60)
        report = stream.receive(timeout=30)
        watching.join()
    assert report.values == ["done"]
    assert not place.asked_again.is_set()


@pytest.mark.parametrize(
    ("place", "facts", "seconds"),
    [
        ("processes", COMPUTING._replace(pace=0.001), 0.04),
        ("processes", COMPUTING._replace(pace=0.001, sending=0.0005), 0.02),  # inputs are large
        ("processes", COMPUTING, 0.02),  # a death would repeat long tasks
        ("threads", COMPUTING._replace(pace=0.001), 0.02),
    ],
)
def test_how_much_is_sent_at_once(place, facts, seconds):
    """Larger pieces where each takes time from busy cores, tasks are short and inputs small."""
    assert work_at_once(place, facts) == seconds


def test_looks_are_rare_while_only_processes_work():
    """A look takes a core from the workers; threads are looked at, for they share one lock."""
    with AutoExecutor(2).open(Call(abs)) as stream:
        for place, rare in (("threads", False), ("processes", False)):
            stream._move(Choice(place, 2, {}))
            assert stream._watch.resting == rare  # the threads still end what they have
    with AutoExecutor(2).open(Call(abs)) as stream:
        for place, rare in (("processes", True), ("threads", False)):
            stream._move(Choice(place, 2, {}))
            assert stream._watch.resting == rare


def test_until_workers_are_there_half_is_kept_here():
    """Short tasks go on here meanwhile, and do not run out."""
    sent = []
    branch = branch_at(None, 0)
    branch.place.name = "processes"

    def send(chunk):
        sent.extend(chunk.items)
        branch.outstanding = len(sent)

    branch.send = send
    with AutoExecutor(2).open(Call(abs)) as stream:
        stream._branches.append(branch)
        stream._meter.pace = 1e-5
        stream._waiting.append(Chunk(0, range(400)))
        stream._feed()
        assert sent == list(range(200))
        stream._hand_over()
        assert sent == list(range(300))  # three of the new pieces for each worker


@tried
@pytest.mark.parametrize("begins", ["in a turn", "between two"])
@pytest.mark.parametrize("turn_ends", [False, True])
def test_a_lock_that_is_free_for_a_turn_is_over(begins, turn_ends, monkeypatch):
    """says nothing of the tasks: a look that found it so does not count. (Between two turns for
    ever is who has handed all tasks over.)"""

    def lateness(own, tick):
        spin(0.002)
        if turn_ends:
            watch.end()
        return 0.0

    watch = Watch(lambda running: None)
    monkeypatch.setattr(watch, "_lateness", lateness)
    if begins == "in a turn":
        watch._running = SimpleNamespace(began=time.perf_counter())
    watch._look(watch._caller)
    watch.stop()
    assert watch.window.looks == (0 if turn_ends else 1)


@pytest.mark.parametrize("queued", [0.0, 100.0])
def test_a_look_that_waits_for_a_core_found_no_lock(queued, monkeypatch):
    """A look is late when it waited for the interpreter's lock, and not for a core that another
    program had."""
    clock = SimpleNamespace(times=iter([(0.0, 0.0), (0.0, queued)]).__next__)
    watch = Watch(lambda running: None)
    monkeypatch.setattr(watch._stopped, "wait", lambda tick: time.sleep(0.01))
    late = watch._lateness(clock, 0.001)
    watch.stop()
    assert late < 0 if queued else late > 0.008


def test_each_look_counts_how_long_the_caller_queued(monkeypatch):
    """for a core: who queues computes too. Each second counts once."""
    watch = Watch(lambda running: None)
    began, told = watch._queued, iter(range(1, 100))
    monkeypatch.setattr(watch._caller, "times", lambda: (0.0, began + next(told)))
    monkeypatch.setattr(watch, "_lateness", lambda own, tick: 0.0)
    counted = []
    for _ in range(3):
        watch._look(watch._caller)
        counted.append(watch.window.queued)
    watch.stop()
    assert counted == pytest.approx([2, 4, 6])  # it is asked before and after each wait


def test_who_waits_at_an_earlier_place_is_woken():
    """When tasks go to another place, the caller does not go on waiting at the first alone: a long
    task there would hold up what the second has done."""
    woken = []
    earlier = SimpleNamespace(wake=lambda: woken.append("earlier"))
    with AutoExecutor(2).open(Call(abs)) as stream:
        stream._branches.append(branch_at(earlier, 1))
        stream._move(Choice("threads", 2, {}))
    assert woken == ["earlier"]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_mixture_of_tasks(data):
    """Long and short, waiting and computing and failing ones, in any order, lazily or not."""
    kinds = st.sampled_from(["spin", "nap", "fail"])
    times = st.sampled_from([0.0, 1e-5, 1e-4, 2e-3, 2e-2])
    inputs = data.draw(st.lists(st.tuples(kinds, times), min_size=2, max_size=40))
    lazy = data.draw(st.booleans())
    place = AutoExecutor(
        data.draw(st.sampled_from([None, 1, 3])), total=None if lazy else len(inputs)
    )
    given = iter(inputs) if lazy else inputs
    results = ff.map(mixture, given, on=place, errors="return", progress=False)
    assert [
        result if isinstance(result, tuple) else ("fail", result.args[0]) for result in results
    ] == inputs


def mixture(task):
    kind, seconds = task
    if kind == "fail":
        raise ValueError(seconds)
    {"spin": spin, "nap": nap}[kind](seconds)
    return task


# How it starts workers, and what it leaves as it was ----------------------------------------------

PROGRAM = """
import ctypes, os, random, socket, sys, threading, time
from fanfold.executors.auto.watch import WATCHING
from fanfold.executors.pool.copied import Copied

def copied():
    launcher = Copied.made(WATCHING)
    print(launcher is not None)
    if launcher is not None:
        launcher.close()

def in_thread(call, name):
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    return thread

def another_librarys_thread():
    system = ctypes.CDLL(None)
    system.pthread_create(ctypes.byref(ctypes.c_ulong()), None, system.pause, None)
"""


@pytest.mark.parametrize(
    ("lines", "copied"),
    [
        ("copied()", True),
        ("in_thread(threading.Event().wait, WATCHING); copied()", True),
        ("in_thread(copied, WATCHING).join()", False),
        ("in_thread(threading.Event().wait, 'another'); copied()", False),
        ("sys.modules['mpi4py.MPI'] = sys; copied()", False),
        ("data = bytearray(os.urandom(1)) * (1 << 28); copied()", False),
        ("file = open(sys.argv[0]); copied()", False),
        ("connection = socket.socketpair(); copied()", False),
        ("pipe = os.pipe(); copied()", False),
        ("null = open(os.devnull); copied()", True),
        ("import numpy; copied()", True),
        ("another_librarys_thread(); copied()", False),
        ("import numpy; another_librarys_thread(); copied()", False),
        ("import numpy; os.fork() or os._exit(0); another_librarys_thread(); copied()", False),
    ],
    ids=[
        "alone", "watched", "in the middle of a task", "another thread", "MPI", "much memory",
        "a file", "a connection", "a pipe", "nothing in the file", "BLAS", "another library",
        "BLAS and another library", "another library instead of BLAS",
    ],
)  # fmt: skip
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it never copies")
def test_programs_are_copied_only_where_that_is_safe(tmp_path, lines, copied):
    """Between two tasks. Not where other threads are: what such a thread holds would be held for
    ever in the copy. (Of those of OpenBLAS there is one here; they end before a fork.) Nor where
    several copies would read and write in turn what is open. Nor where to copy would take long."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + lines)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (str(copied), "")


DRAWING = """
import random, sys, time
import numpy as np

loaded_by = __import__("os").getpid()
draws = [np.random.random, np.random.standard_normal, np.random.default_rng(1).random,
         np.random.RandomState(2).standard_normal, random.random, random.Random(3).gauss]
held = [np.random.Generator(np.random.Philox(4)).integers]

class Unhashable(type):
    def __eq__(self, other):
        return self is other

class Odd(metaclass=Unhashable):
    pass

held.append(Odd())
held[-1].kind = random.Random  # it refers to a generator's class itself
for draw in draws:
    draw(*(0, 1) if "gauss" in draw.__name__ else ())  # of a pair the second is left

def draw(number):
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        pass
    drawn = [one(*(0, 1) if "gauss" in one.__name__ else ()) for one in draws]
    return loaded_by, drawn + [int(held[0](1 << 62))]
"""

DRAWN = """
import gc, os, sys
import drawing
import fanfold as ff
from fanfold.executors.auto.executor import AutoExecutor

if sys.argv[1:] == ["frozen"]:
    gc.freeze()
place = AutoExecutor(2, total=300)
rows = ff.map(drawing.draw, range(300), on=place)
assert [decision.choice.place for decision in place.decisions] == ["processes"]
assert place.decisions[0].facts.start == "copied"
assert {row[0] for row in rows} == {os.getpid()}, "the module was loaded again"
print([len(set(column)) for column in zip(*(row[1] for row in rows))])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it never copies")
@tried
@pytest.mark.parametrize("state", ["usual", "frozen"])
def test_copies_draw_random_numbers_of_their_own(tmp_path, state):
    """Workers that are copies of the program have what it has loaded, and not what its random
    generators will say next: no two tasks draw the same. (Nor do those that `gc.freeze` has set
    aside; and classes without a hash do no harm.)"""
    (tmp_path / "drawing.py").write_text(DRAWING)
    (tmp_path / "drawn.py").write_text(DRAWN)
    done = subprocess.run(
        [sys.executable, "drawn.py", state], cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=120,
        capture_output=True, text=True, check=False, env={**os.environ, "FANFOLD_CORES": "2"},
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (str([300] * 7), "")


def test_the_switch_interval_is_as_it_was():
    """While the watching thread looks, or workers start, threads take turns faster; only then."""
    before = sys.getswitchinterval()
    seen = []

    def look(number):
        end = time.thread_time() + (0.3 if number == 0 else 0.02)
        while time.thread_time() < end:
            seen.append(sys.getswitchinterval())

    ff.map(look, range(20), on=AutoExecutor(2, total=20))
    assert sys.getswitchinterval() == before
    assert min(seen) < before


HURRY = """
import os, signal, sys
from fanfold.executors.auto.watch import Hurry

usual = sys.getswitchinterval()
Hurry().begin()
assert sys.getswitchinterval() < usual
with Hurry._lock:  # another thread has it
    child = os.fork()
if child == 0:
    signal.alarm(10)
    seen = [sys.getswitchinterval()]
    hurry = Hurry()
    hurry.begin()
    hurry.end()
    os._exit([*seen, sys.getswitchinterval()] != [usual, usual])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_is_in_no_hurry():
    """Who is forked while a thread is in a hurry begins with the usual interval, and never waits
    for that thread, which it does not have."""
    assert subprocess.run([sys.executable, "-c", HURRY], timeout=60, check=False).returncode == 0


def test_a_map_that_is_given_up_leaves_the_switch_interval():
    """It is as it was too when nobody waits for the task that was running."""
    before = sys.getswitchinterval()
    with AutoExecutor(2).open(Call(abs)) as stream:
        stream._hurry.begin()
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


def touch(number):
    """Use memory in C, without a moment for other threads, as NumPy does."""
    return float((np.ones(4_000_000) + number)[number])


@tried
def test_work_in_c_is_no_wait():
    """A thread that is deep in C is at work, though the kernel counts that only now and then."""
    for _ in range(5):
        told = ff.explain(touch, range(30))
        assert told.facts.busy > 0.5


SIZES = """
import numpy as np
from fanfold.executors.auto.meter import Meter
from fanfold.tasks import Call

meter = Meter(Call(abs), 3, None)
for megabytes in (100, 300, 100):
    held = np.ones(megabytes << 17)
    meter.see_large_memory()
    print(meter.memory >> 20)
    del held
"""


def test_only_large_memory_is_looked_at():
    """Of a task that takes little nobody reads how much; of one that takes more than 256 MB it is
    known, also when it has ended."""
    told = subprocess.run([sys.executable, "-c", SIZES], capture_output=True, text=True, timeout=60)
    sizes = [int(line) for line in told.stdout.split()]
    assert sizes[0] == 0, told.stderr
    assert 290 < sizes[1] < 350
    assert sizes[2] == sizes[1]


def test_nobody_thinks_about_a_last_task(monkeypatch):
    """Of a task that runs nothing can move: to think about it would only take its time."""
    thought = []
    monkeypatch.setattr(executor, "choose", lambda *given: thought.append(given) or choose(*given))
    assert ff.map(spin, [0.06], on="auto", progress=False) == [os.getpid()]
    assert thought == []
    ff.map(spin, [0.06] * 2, on="auto", progress=False)
    assert thought
