"""Outcomes, failures, advice and what was asked: what the history says, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from fanfold.history import Session
from fanfold.reports.advice import advice, longest_first
from fanfold.reports.asked import asked
from fanfold.reports.document import Advice, Facts, Group, Table
from fanfold.reports.episodes import episodes
from fanfold.reports.failures import failures, grouped, recovered
from fanfold.reports.outcomes import outcomes, sessions
from fanfold.reports.pieces import Pieces

BEGAN = 1_790_000_000.0
MB = 1 << 20


def facts_of(section):
    return dict(row for item in section.items if isinstance(item, Facts) for row in item.rows)


def advice_of(history):
    """The findings on a history, each as text and basis."""
    pieces = Pieces(history.pieces)
    groups = grouped(history.failures)
    worked = episodes(history, pieces)
    section = advice(history, pieces, worked, groups, recovered(history, pieces))
    return [] if section is None else list(section.items)


def said(history, words):
    """The one finding that holds these words."""
    (found,) = [one for one in advice_of(history) if words in one.text]
    return found


# ---- outcomes


def test_states_sum_to_the_total(piece, history_of):
    """R24: done, failed and missing are the total, whatever the state."""
    history = history_of(piece(0), piece(1, ok=False), total=10)
    proportion = outcomes(history, Pieces(history.pieces), []).items[0]
    assert [part.value for part in proportion.parts] == [1, 1, 8]


def test_figures_of_a_run(piece, history_of):
    """Wall time, work time, speed-up and attempts are those of the records."""
    history = history_of(
        piece(0, 0, 0, 4), piece(1, 1, 0, 2, ok=False), piece(1, 1, 2, 2, attempt=2), total=2,
        done=2, failed=0, duplicates=3,
    )  # fmt: skip
    pieces = Pieces(history.pieces)
    facts = facts_of(outcomes(history, pieces, episodes(history, pieces)))
    assert facts == {
        "wall time": "4.00s",
        "work time": "8.00s",
        "speed-up": "2.00",
        "workers busy": "100 %",
        "peak memory": "100.0 MB",
        "attempts": "3 (1 again)",
        "done twice": "3",
    }


def test_damage_is_told(history_of):
    """What could not be read is said; of much damage, how much more there is."""
    history = history_of(damage=[f"line {n} is damaged" for n in range(25)])
    items = outcomes(history, Pieces([]), []).items
    assert items[2].text == "line 0 is damaged"
    assert items[2].warning
    assert items[-1].text == "15 more damaged places could not be read."


def test_sessions_say_how_they_ended(history_of):
    """Who drove when, and how each session ended; the latest when they are many."""
    many = [Session(f"e0-a{n}", "node17", n, BEGAN + n, None, "died") for n in range(1, 30)]
    section = sessions(history_of(sessions=many))
    table, note = section.items
    assert table.rows[-1][:3] == ("e0-a29", "node17", "29")
    assert table.rows[-1][-1] == "died"
    assert note.text == "9 earlier sessions not shown."


# ---- failures


def test_alike_but_for_numbers(failure_of):
    """One cause: same class, same place, and the same message with its numbers masked."""
    found = [
        *(failure_of(index) for index in range(40)),
        failure_of(40, line=99),
        failure_of(41, "KeyError", "'tail'"),
        failure_of(42, message="row 0x7f3a has 1.5e-3 columns, not 19"),
    ]
    groups = grouped(found)
    assert [len(group.failures) for group in groups] == [41, 1, 1]
    assert groups[0].place == "in read (flights.py:12)"


def test_group_tells_its_tasks(failure_of, history_of):
    """A group has the count, some inputs, one traceback, and where it was raised."""
    history = history_of(failures=[failure_of(index) for index in range(40)])
    section = failures(history, grouped(history.failures), set())
    (group,) = [item for item in section.items if isinstance(item, Group)]
    assert group.title == "ValueError: row # has # columns, not 19 (40 tasks failed)"
    facts = facts_of(group)
    assert facts["raised"] == "in read (flights.py:12)"
    assert facts["tasks and inputs"].startswith("task 0 (2013-01.csv), task 1 (2013-02.csv)")
    assert facts["tasks and inputs"].endswith("and 35 more")
    assert "line 12, in read" in group.items[-1].text


def test_certificate_of_death(death_of, history_of):
    """A death tells input, signal, exit code, phase, peak memory, the kernel's part, the log."""
    history = history_of(failures=[death_of(7)])
    section = failures(history, grouped(history.failures), set())
    (group,) = [item for item in section.items if isinstance(item, Group)]
    (table,) = [item for item in group.items if isinstance(item, Table)]
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "task": "7",
        "input": "2013-08.csv",
        "signal": "SIGKILL",
        "exit code": "-9",
        "while": "running",
        "peak memory": "3.0 GB",
        "killed for memory": "yes, by the kernel",
    }
    assert group.items[-1].text.splitlines()[-1] == "growing the table"


def test_recovered_by_a_further_try(failure_of, piece, history_of):
    """A task that failed first and has a result later is no failure of the run, and is counted."""
    history = history_of(
        piece(0, seconds=1, ok=False), piece(0, began=1, attempt=2), piece(1, began=2, ok=False),
        total=2, done=1, failed=1,
        failures=[failure_of(0, final=False), failure_of(1)],
    )  # fmt: skip
    saved = recovered(history, Pieces(history.pieces))
    assert saved == {0}
    section = failures(history, grouped(history.failures), saved)
    assert section.items[0].text == (
        "2 attempts failed, of 1 cause; 1 task without a result; 1 task done by a further attempt."
    )


def test_many_causes_are_cut(failure_of, history_of):
    """Of many causes the most frequent are shown, and how many are not is said."""
    found = [
        failure_of(index, f"Error{letter}")
        for index, letter in enumerate("abcdefghijklmnopqrstuvwxy")
    ]
    section = failures(history_of(failures=found), grouped(found), set())
    assert section.items[-1].text == "5 further causes not shown, with 5 attempts."


# ---- advice


def test_nothing_to_say(history_of):
    """Of a run of which nothing is known nothing is said."""
    assert advice_of(history_of(total=5)) == []


def test_peak_memory_and_what_all_workers_need(piece, history_of):
    """The largest peak, of which task, and what the workers need together."""
    history = history_of(piece(0), piece(1, 1, peak_memory=310 * MB))
    found = said(history, "Peak memory")
    assert found.text == "Peak memory 310.0 MB a task; 2 workers at once need up to 620.0 MB"
    assert found.basis == "The largest of 2 measured attempts: task 1."


def test_workers_kept_busy(piece, history_of):
    """The share of the workers' time that was work, with its sums."""
    history = history_of(piece(0, 0, 0, 10), piece(1, 1, 0, 8.6))
    found = said(history, "kept busy")
    assert found.text == "2 workers kept busy 93 %"
    assert found.basis == "18.6s of work in 2 x 10.0s."


def test_sort_the_longest_first(piece, history_of):
    """A long end is worth a word only where another order of the same tasks would be shorter."""
    short = [piece(index, index % 2, index // 2, 1.0) for index in range(10)]
    found = said(history_of(*short, piece(10, 0, 5, 6.0)), "longest first")
    assert found.text == "55 % of the time went to the last task (10): sort the longest first"
    assert "end after about 8.00s" in found.basis
    alone = advice_of(history_of(piece(0, 0, 0, 10), piece(1, 1, 0, 3)))
    assert not any("longest first" in one.text for one in alone)


def test_no_word_on_the_end_of_what_was_interrupted(piece, history_of):
    """The end of an interrupted session says nothing about the order of its tasks."""
    short = [piece(index, index % 2, index // 2, 1.0) for index in range(10)]
    cut = [Session("e0-a1", "here", 1, BEGAN, BEGAN + 11, "interrupted")]
    found = advice_of(history_of(*short, piece(10, 0, 5, 6.0), sessions=cut))
    assert not any("longest first" in one.text for one in found)


def test_one_task_is_the_run(piece, history_of):
    """A task that takes nearly all of the time is named: more workers will not help."""
    found = said(history_of(piece(0, 0, 0, 10), piece(1, 1, 0, 1)), "cannot be shorter")
    assert found.text.startswith("The run cannot be shorter than task 0: divide it")
    assert found.basis == "It took 10.0s of 10.0s."


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_longest_first_is_a_makespan(workers):
    """It is no shorter than the longest task or an even share, and hardly above the best."""
    seconds = np.random.default_rng(workers).exponential(1.0, 200)
    least = max(seconds.max(), seconds.sum() / workers)
    assert least <= longest_first(seconds, workers) <= least * 4 / 3


def test_tiny_tasks(piece, history_of):
    """Tiny tasks are named only when the workers were mostly waiting for them."""
    tiny = [piece(index, 0, index * 0.001, 0.0001) for index in range(2000)]
    assert "100us each" in said(history_of(*tiny), "tiny").basis
    full = [piece(index, 0, index * 0.0001, 0.0001) for index in range(2000)]
    assert not any("tiny" in one.text for one in advice_of(history_of(*full)))


@pytest.mark.parametrize(
    ("cpu", "words"), [(0.08, "computed for 8 %"), (3.8, "used 3.8 cores"), (0.9, None)]
)
def test_what_the_processor_did(cpu, words, piece, history_of):
    """Tasks that wait, and tasks that use several cores, are told; others are not."""
    found = advice_of(history_of(piece(0, seconds=10.0, cpu_time=10 * cpu)))
    told = [one.text for one in found if "comput" in one.text or "cores" in one.text]
    assert [words in text for text in told] == ([True] if words else [])


def test_failures_alike(failure_of, history_of):
    """When most failures have one cause, that one is named."""
    found = [failure_of(index) for index in range(9)]
    history = history_of(failures=[*found, failure_of(9, "KeyError", "'x'")], total=10, failed=10)
    assert said(history, "alike").text == (
        "9 of 10 failures are alike, ValueError in read (flights.py:12): "
        "mend that cause, then: fanfold retry run-1"
    )


def test_timeouts(failure_of, piece, history_of):
    """Timeouts are counted, beside the slowest task that ended well."""
    history = history_of(
        piece(0, seconds=58), total=2, failed=1, asked={"timeout": 60},
        failures=[failure_of(1, "TaskTimeout", "longer than 60s")],
    )  # fmt: skip
    found = said(history, "timeout")
    assert found == Advice(
        "1 attempt ran into the timeout of 1m00s",
        "The slowest that ended well, task 0, took 58.0s.",
    )


def test_killed_for_memory(death_of, history_of):
    """Kills by the kernel for want of memory are counted."""
    found = said(
        history_of(failures=[death_of(1), death_of(2)], total=2, failed=2), "want of memory"
    )
    assert found.text.startswith("2 attempts were killed for want of memory")


def test_peak_that_the_kernel_ended(death_of, piece, history_of):
    """A task killed for want of memory would have needed more than it had reached."""
    history = history_of(piece(0), failures=[death_of(1)], total=2, failed=1)
    found = said(history, "Peak memory")
    assert found.text == "Peak memory at least 3.0 GB a task"
    assert found.basis == "Task 1 had reached it when the kernel ended its worker."


def test_retries_that_helped_and_that_did_not(failure_of, piece, history_of):
    """Retries are told by what came of them."""
    helped = history_of(
        piece(0, ok=False), piece(0, began=1, attempt=2), total=1, done=1, failed=0,
        failures=[failure_of(0, "ConnectionError", final=False)],
    )  # fmt: skip
    assert said(helped, "Retries helped").basis == "They had failed with ConnectionError (1 task)."
    lost = history_of(
        piece(0, ok=False), piece(0, began=1, attempt=2, ok=False), total=1, failed=1,
        failures=[failure_of(0, final=False), failure_of(0, attempt=2)],
    )  # fmt: skip
    assert "did not help" in said(lost, "Retries").text
    assert said(lost, "attempts that failed").basis == "2.00s of 2.00s."


# ---- what was asked


def test_secrets_are_hidden(history_of):
    """X09: no value whose name looks like a secret's is shown, nor any environment."""
    canary = "canary-4711"
    told = {
        "HF_TOKEN": canary,
        "options": {"api_key": canary, "dbPassword": canary, "retries": 3, "nested": [[canary]]},
        "environment": {"HOME": canary},
        "command": ["train.py", "--auth-token", canary, f"AWS_SECRET_KEY={canary}", "--seed", "1"],
        "params": [["PASSPHRASE", canary], ["x", 1]],
        "remote": f"https://me:{canary}@host/repository",
        "note": f"with MY_KEY: '{canary}' set",
    }
    told["options"].pop("nested")
    shown = facts_of(asked(history_of(asked=told)))
    assert canary not in str(shown)
    assert shown["options.retries"] == "3"
    assert shown["HF_TOKEN"] == "(hidden)"
    assert shown["command"].endswith("--seed 1")
    assert "environment" not in shown


def test_what_was_asked_is_cut(history_of):
    """Very much is cut, and that is said."""
    section = asked(history_of(asked={f"x{n}": "y" * 10_000 for n in range(200)}))
    assert section.items[-1].text == "140 more values not shown."
    assert max(len(value) for value in facts_of(section).values()) <= 400
