"""What elements asked for and used: in words, in tables, and as advice for the next time."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.counted import calls_of

from fanfold.history import Element, History
from fanfold.reports import render_html, render_text, render_usage
from fanfold.reports.document import Advice, Code, Facts, Paragraph, Table
from fanfold.reports.pieces import Pieces
from fanfold.reports.sizing import percentile, sizing, uses
from fanfold.reports.usage import elements, usage
from fanfold.schedulers.base import ENDED
from fanfold.schedulers.scripts.lines import parse
from fanfold.schedulers.scripts.reading import read
from fanfold.schedulers.scripts.writing import DIALECTS

GB, MB = 1 << 30, 1 << 20


def element_of(number=1, *, cpu=None, used=None, **given):
    """An element that asked for 4 cores, 8 GB and an hour; ``used`` is its peak memory."""
    told = {
        "job": "812", "index": number - 1, "node": f"node{number % 3}", "state": "done",
        "tasks": 20, "cores": 4, "memory": 8 * GB, "walltime": 3600, "began": 1.79e9,
        "seconds": 600.0,
    }  # fmt: skip
    return Element(number=number, **{**told, "cpu_time": cpu, "peak_memory": used, **given})


def history_of(*found, on="slurm", resources=None, pieces=()):
    history = History("pi-1", "runs/pi-1", "pi.py:inside", 9, 4, 1.79e9, pieces=list(pieces))
    history.asked = {"on": on, "cluster": {"resources": resources or {"nodes": 1, "gpus": 0}}}
    history.elements = list(found)
    return history


def section_of(*found, **given):
    history = history_of(*found, **given)
    return usage(history, Pieces(history.pieces))


def texts(section, *, warning=True):
    return [
        item.text
        for item in section.items
        if isinstance(item, Paragraph) and item.warning == warning
    ]


def _piece(piece, worker, peak_memory):
    return piece(0, peak_memory=peak_memory)._replace(worker=worker)


def the(section, kind):
    (found,) = (item for item in section.items if isinstance(item, kind))
    return found


def advised(*found):
    return [one and one.amount for one in sizing(uses(found, Pieces([])))]


# ---- what counts


def test_no_elements_no_section():
    """A run without job arrays, and one of which no element has ended, tells nothing of them."""
    assert section_of() is None
    assert section_of(element_of(state="running"), element_of(2, state="waiting")) is None


def test_finished_elements_count():
    """Elements that have ended count, whatever they ended as; those that have not do not."""
    found = [element_of(n, state=state) for n, state in enumerate(sorted(ENDED), 1)]
    section = section_of(*found, element_of(50, state="running"), element_of(51, state="vanished"))
    facts = dict(the(section, Facts).rows)
    assert facts["elements"].startswith(f"{len(ENDED) + 1} of {len(ENDED) + 2} ended: ")
    assert "1 out of memory" in facts["elements"]


def test_larger_count_is_taken():
    """Of our count and the scheduler's the larger is taken: by that one jobs may be ended."""
    one = element_of(
        cpu=100.0, used=GB, recorded_cpu_time=120.0, recorded_memory=GB // 2, seconds=60.0
    )
    (use,) = uses([one], Pieces([]))
    assert (use.cpu_time, use.memory, use.cores) == (120.0, GB, 2.0)


def test_zero_of_a_scheduler_is_unknown():
    """PBS and Slurm say 0 of what they have not looked at: that is not a measurement."""
    (use,) = uses([element_of(recorded_cpu_time=0.0, recorded_memory=0)], Pieces([]))
    assert (use.cpu_time, use.memory, use.cores) == (None, None, None)


def test_peak_of_a_worker_counts(piece):
    """A short peak that only the worker saw is memory that was needed."""
    pieces = Pieces(
        [
            _piece(piece, "element 2, worker 0", 3 * GB),
            _piece(piece, "element 2, worker 1", 5 * GB),
            _piece(piece, "element 12, worker 0", 7 * GB),
            _piece(piece, "worker 0", 9 * GB),
            _piece(piece, "element 3, worker 0", None),
        ]
    )
    found = uses([element_of(2, used=GB), element_of(3), element_of(4, used=GB)], pieces)
    assert [use.memory for use in found] == [5 * GB, None, GB]


# ---- advice: the rules


def test_rules_in_numbers():
    """Memory times 1.2 in 256 MB, walltime times 1.4 and 5 minutes at least, cores rounded up."""
    assert advised(element_of(cpu=2340.0, used=GB)) == [4, 1280 * MB, 900]
    assert advised(element_of(cpu=2340.0, used=1067 * MB)) == [4, 1536 * MB, 900]
    assert advised(element_of(cpu=7800.0, seconds=2000.0)) == [4, None, 2820]
    assert advised(element_of(cpu=2460.0, seconds=2000.0, cores=2)) == [2, None, 2820]


@pytest.mark.parametrize(
    ("cpu", "cores"), [(2.0, 1), (600.0, 1), (629.0, 1), (631.0, 2), (1200.0, 2), (2380.0, 4)]
)
def test_a_twentieth_of_a_core_is_not_counted(cpu, cores):
    """One worker at work and a driver beside it are one core, not two."""
    assert advised(element_of(cpu=cpu))[0] == cores


def test_few_that_stand_out_get_less_margin():
    """95 % get the whole margin; the most that one used gets less, for it comes again."""
    found = [element_of(n, cpu=2340.0, used=GB) for n in range(1, 100)]
    assert advised(*found, element_of(100, cpu=2340.0, used=3 * GB))[1] == 3584 * MB
    assert advised(*found, element_of(100, cpu=2340.0, used=GB + MB))[1] == 1280 * MB
    late = element_of(100, cpu=7800.0, used=GB, seconds=2000.0)
    assert advised(*found, late)[2] == 2700


def test_fewer_cores_take_longer():
    """Who is advised fewer cores than it had is given the time that this may cost."""
    assert advised(element_of(cpu=1140.0, used=GB)) == [2, 1280 * MB, 1680]
    basis = the(section_of(element_of(cpu=1140.0)), Advice).basis
    assert "Walltime: 95 % (20m00s at the longest on so few cores) times 1.4" in basis


def test_ended_for_walltime_or_memory():
    """What an element used that was ended for it is a lower bound: twice as much is advised."""
    found = [element_of(n, cpu=2340.0, used=GB) for n in range(1, 20)]
    late = element_of(20, state="walltime", cpu=14000.0, used=GB, seconds=3601.0)
    large = element_of(21, state="memory", cpu=60.0, used=2 * GB, seconds=20.0)
    assert advised(*found, late, large) == [4, 16 * GB, 7200]
    section = section_of(*found, late, large)
    assert texts(section)[:2] == [
        "Element 20 was ended for running too long: what it used is the least that it needed.",
        "Element 21 was ended for using too much memory: what it used is the least that it needed.",
    ]
    basis = the(section, Advice).basis
    assert "Memory: twice the 8.0 GB that was not enough." in basis
    assert "Walltime: twice the 1h00m00s that was not enough." in basis


def test_memory_that_nobody_saw():
    """An element that was killed before a look still says that its request was too small."""
    assert advised(element_of(state="memory", seconds=None)) == [None, 16 * GB, None]


def test_cut_short_does_not_make_it_smaller():
    """Elements that were cancelled or lost have no part in the 95 %, but are not cut either."""
    found = [element_of(n, cpu=2340.0, used=4 * GB) for n in range(1, 4)]
    cut = [element_of(n, cpu=4.0, used=MB, seconds=1.0, state="cancelled") for n in range(4, 90)]
    assert advised(*found, *cut) == advised(*found)
    large = element_of(99, cpu=4.0, used=6 * GB, seconds=1.0, state="preempted")
    assert advised(*found, *cut, large)[1] == 7168 * MB


amounts = st.integers(1, 2**40) | st.none()
spans = st.floats(1e-3, 1e7) | st.none()
states = st.sampled_from(sorted({*ENDED, "vanished"}))
found_elements = st.builds(
    Element, st.integers(1, 10**6), st.text(max_size=9), st.integers(0, 10**6),
    st.text(max_size=9), states, st.integers(0, 9), st.integers(1, 256), amounts,
    st.integers(1, 10**7) | st.none(), st.none(), spans, spans, amounts, spans, amounts,
)  # fmt: skip


@given(st.lists(found_elements, min_size=1, max_size=40))
def test_never_less_than_was_used(found):
    """Advice is never less than any element used; of a core, a twentieth is not counted."""
    used = uses(found, Pieces([]))
    cores, memory, walltime = sizing(used)
    for use in used:
        if use.cores is not None:
            assert cores.amount >= use.cores - 0.0501
        if use.memory is not None:
            assert memory.amount >= use.memory
        if use.seconds is not None:
            assert walltime.amount >= use.seconds


@given(st.lists(found_elements, min_size=1, max_size=40))
def test_unknown_stays_unknown(found):
    """There is a number where something is known to go by, and none elsewhere."""
    used = uses(found, Pieces([]))
    cores, memory, walltime = sizing(used)
    refused = {use.element.state for use in used}
    assert (cores is None) == all(use.cores is None for use in used)
    if not refused & {"memory", "walltime"}:
        assert (memory is None) == all(use.memory is None for use in used)
        assert (walltime is None) == all(use.seconds is None for use in used)


@given(st.data(), st.lists(found_elements, min_size=1, max_size=30), st.floats(1, 50))
def test_more_used_is_never_less_advised(data, found, factor):
    """Had an element used more of something, no less of that would be advised; a number that
    cannot be is as none at all."""
    position = data.draw(st.integers(0, len(found) - 1))
    one = found[position]
    before = sizing(uses(found, Pieces([])))
    for place, field in enumerate(("cpu_time", "peak_memory", "seconds")):
        value = getattr(one, field)
        if value is not None:
            more = math.ceil(value * factor) if field == "peak_memory" else value * factor
            known = [uses([each], Pieces([]))[0] for each in (one, one._replace(**{field: more}))]
            assume(all((a is None) == (b is None) for a, b in zip(*known, strict=True)))
            grown = [*found[:position], one._replace(**{field: more}), *found[position + 1 :]]
            after = sizing(uses(grown, Pieces([])))
            if before[place] is not None:
                assert after[place].amount >= before[place].amount


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200), st.floats(0, 1))
def test_percentile(values, share):
    """At least that share of the values is not larger, and it is one of them."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < max(share * len(values), 1)


# ---- advice: to be copied


@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_directives_say_the_same(scheduler):
    """The lines to copy ask the scheduler for what is advised, nodes and GPUs kept."""
    section = section_of(
        element_of(cpu=1140.0, used=GB), on=scheduler, resources={"nodes": 2, "gpus": 3}
    )
    first, *lines = the(section, Code).text.splitlines()
    assert first == "--cores 2 --memory 1280MB --walltime 00:28:00"
    script = parse("\n".join(["#!/bin/sh", *lines, "true"]))
    settings = read(script.directives(scheduler), DIALECTS[scheduler]).settings
    layout = settings["layout"].value
    assert (layout.chunks, layout.ncpus, layout.memory, layout.gpus) == (2, 2, 1280 * MB, 3)
    assert settings["walltime"].value == 1680


def test_lines_to_copy_are_as_they_are():
    """In text nothing stands before the lines to copy, and they are not broken."""
    history = history_of(element_of(cpu=1140.0, used=GB))
    lines = render_text(history, 80).splitlines()
    assert "#SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=2 --mem=1280M" in lines
    assert "--cores 2 --memory 1280MB --walltime 00:28:00 --workers 4" in lines


@pytest.mark.parametrize("on", ["local", None, 7, ["slurm"]])
def test_no_directives_for_no_scheduler(on):
    """Where no scheduler is known that ran it, there are options, and no directives."""
    assert the(section_of(element_of(cpu=1140.0), on=on), Code).text.startswith("--cores 2")
    assert "#" not in the(section_of(element_of(cpu=1140.0), on=on), Code).text


@pytest.mark.parametrize("strange", [{"nodes": "x", "gpus": -1}, {"nodes": True}, "4 nodes"])
def test_damaged_request(strange):
    """A request that does not hold what it should leaves the advice as it is."""
    code = the(section_of(element_of(cpu=1140.0), resources=strange), Code)
    assert "--nodes=1 --ntasks-per-node=1 --cpus-per-task=2" in code.text


def test_what_is_unknown_stays_as_asked():
    """Of what is not known, the next request is the last one, and that is said."""
    section = section_of(element_of(cpu=1140.0), element_of(2, cpu=1140.0, memory=3 * GB))
    assert "--mem=3G" in the(section, Code).text
    assert "Memory: what was used is not known, so as before." in the(section, Advice).basis


def test_a_request_of_part_of_a_megabyte():
    """An option to copy never asks for less than was asked for, nor for nothing."""
    section = section_of(element_of(cpu=1140.0, memory=MB + 1))
    assert the(section, Code).text.startswith("--cores 2 --memory 2MB --walltime")


def test_nothing_known_no_advice():
    """Of elements that told nothing, nothing is concluded."""
    section = section_of(element_of(seconds=None, state="vanished"))
    assert not any(isinstance(item, Advice | Code) for item in section.items)


def test_small_samples_say_so():
    """From fewer than five elements that came to an end there is little to go by."""
    found = [element_of(n, cpu=1140.0) for n in range(1, 6)]
    assert "There are only 4 elements to go by." in the(section_of(*found[:4]), Advice).basis
    assert "There is only 1 element to go by." in the(section_of(found[0]), Advice).basis
    assert "only" not in the(section_of(*found), Advice).basis
    cut = section_of(*(one._replace(state="node") for one in found))
    assert "this is the least that is needed" in the(cut, Advice).basis


# ---- words


def test_idle_cores():
    """Asked for 4 cores and used 1.1: that is said, with the most that any element used."""
    section = section_of(element_of(1, cpu=600.0), element_of(2, cpu=720.0))
    assert texts(section)[0] == (
        "Asked for 4 cores, used 1.1 on average, at most 1.2 (element 2): the rest was idle."
    )


def test_too_many_cores():
    """Who uses more cores than it asked for takes them from others."""
    (told,) = texts(section_of(element_of(cpu=1500.0, cores=1, walltime=None)))
    assert told.startswith("Asked for 1 core, used 2.5: more")


def test_little_of_the_walltime():
    """Walltime used 15 %: shorter jobs start sooner."""
    section = section_of(element_of(1, cpu=2160.0, seconds=540.0), element_of(2, seconds=9.0))
    (told,) = texts(section)
    assert told == (
        "Walltime: 15 % used of the 1h00m00s asked for, at most (element 1): with 14m00s a job "
        "starts sooner."
    )


def test_nearly_all_of_it():
    """Where little was left, it is said which element that was."""
    long = element_of(1, cpu=14000.0, used=7800 * MB, seconds=3500.0)
    told = texts(section_of(long, element_of(2, seconds=9.0)))
    assert told == [
        "Memory: 95 % used of the 8.0 GB asked for (element 1): little was left.",
        "Walltime: 97 % used of the 1h00m00s asked for (element 1): little was left.",
    ]


def test_well_asked():
    """Who used most of what was asked for, and not all, hears nothing."""
    found = [element_of(n, cpu=9100.0, used=6 * GB, seconds=2400.0) for n in range(1, 9)]
    assert texts(section_of(*found)) == []


def test_nothing_asked():
    """Without a request for memory or walltime there is no share of it; the use is told."""
    section = section_of(element_of(cpu=2340.0, used=GB, memory=None, walltime=None))
    assert texts(section) == []
    rows = next(item for item in section.items if isinstance(item, Table)).rows
    assert rows[1] == ("peak memory", "not said", *["1.0 GB"] * 4)


def test_cross_check():
    """A count that differs by more than 10 % is told, with what it is of."""
    same = [
        element_of(n, cpu=1000.0, used=GB, recorded_cpu_time=1090.0, recorded_memory=GB)
        for n in range(1, 4)
    ]
    assert len(texts(section_of(*same), warning=False)) == 1  # how it was measured
    other = [one._replace(recorded_cpu_time=1150.0, recorded_memory=GB // 2) for one in same]
    first, second, _ = texts(section_of(*other, on="pbs"), warning=False)
    assert first == (
        "PBS counts 15 % more CPU time than was measured here, in 3 elements of a minute and more. "
        "(Up to 10 % goes without saying.)"
    )
    assert second.startswith("PBS counts 50 % less memory than was measured here, in 3 elements")


def test_cross_check_needs_both():
    """Where one count is not known, or an element was too short for the scheduler, none is told."""
    found = [
        element_of(1, cpu=1000.0, used=GB),
        element_of(2, recorded_cpu_time=2000.0, recorded_memory=GB),
        element_of(3, cpu=30.0, used=GB, seconds=20.0, recorded_cpu_time=1.0, recorded_memory=MB),
    ]
    assert len(texts(section_of(*found), warning=False)) == 1


# ---- tables


def test_spread():
    """Least, median, 95 % and most are of the elements that came to an end of their own."""
    found = [element_of(n, cpu=60.0 * n, used=n * GB, seconds=100.0 * n) for n in range(1, 8)]
    found.append(element_of(8, seconds=1.0, state="node"))
    table = next(item for item in section_of(*found).items if isinstance(item, Table))
    assert table.title == "What each of 7 elements that came to an end used"
    assert table.rows == (
        ("cores", "4", "0.6", "0.6", "0.6", "0.6"),
        ("peak memory", "8.0 GB", "1.0 GB", "4.0 GB", "7.0 GB", "7.0 GB"),
        ("run time", "1h00m00s", "1m40s", "6m40s", "11m40s", "11m40s"),
    )


def test_spread_tells_what_is_unknown():
    """How many elements are not known is told; what differs in the requests, too."""
    found = [element_of(1, used=GB), element_of(2, cores=2, memory=None), element_of(3, cores=8)]
    table = next(item for item in section_of(*found).items if isinstance(item, Table))
    assert table.rows[0] == ("cores", "2 to 8", *["unknown"] * 4)
    assert table.rows[1] == ("peak memory (2 unknown)", "8.0 GB", *["1.0 GB"] * 4)


def test_closest_come_first():
    """The table names a few: those it was not enough for, then those that came closest to it."""
    found = [element_of(n, cpu=2000.0, used=n * 256 * MB, seconds=60.0 * n) for n in range(1, 20)]
    found[7] = found[7]._replace(state="walltime")
    table = [item for item in section_of(*found).items if isinstance(item, Table)][1]
    assert [row[0] for row in table.rows] == ["8", "1", "2", "3", "4"]
    assert table.rows[0][1:6] == ("812", "7", "node2", "out of time", "20")
    assert table.rows[0][6:] == ("4.2 of 4", "33m20s", "2.0 GB (25 %)", "8m00s (13 %)")


def test_file_has_all_of_them():
    """The file beside the logs has a line for each element that has ended, in order."""
    found = [element_of(n, cpu=2000.0, used=GB) for n in range(1, 300)]
    history = history_of(*found, element_of(300, state="running"))
    (table,) = elements(history, Pieces([])).items
    assert [row[0] for row in table.rows] == [str(n) for n in range(1, 300)]
    lines = render_usage(history).splitlines()
    assert lines[-1].split()[:6] == ["299", "812", "298", "node2", "done", "20"]
    assert max(map(len, lines)) <= 140


# ---- rendering

words = st.text(max_size=20) | st.sampled_from(["<script>", "\x1b[31m", "\u202e", "'\"><svg", ""])
any_elements = st.builds(
    Element, st.integers(0, 10**9), words, st.integers(0, 10**9), words, states | words,
    st.integers(0, 10**9), st.integers(1, 10**6), amounts, st.integers(1, 10**9) | st.none(),
    st.none() | st.floats(), st.none() | st.floats(), st.none() | st.floats(),
    st.none() | st.integers(-5, 2**80), st.none() | st.floats(), st.none() | st.integers(-5, 2**80),
)  # fmt: skip


@given(st.lists(any_elements, max_size=8), st.sampled_from(["slurm", "pbs", "local", "<b>"]))
def test_any_elements_render(found, on):
    """R24: whatever the elements hold, the report is whole, and its strings are inert."""
    history = history_of(*found, on=on)
    page = render_html(history)
    assert page.endswith("</html>\n")
    assert not set(page + render_text(history) + render_usage(history)) & {"\x1b", "\u202e"}
    assert "<script>" not in page


def calls_for(count):
    """How many functions are called to tell of so many elements."""
    found = [element_of(n, cpu=n % 977 + 1.0, used=n % 97 * GB + 1) for n in range(1, count + 1)]
    history = history_of(*found)
    return calls_of(lambda: usage(history, Pieces([])))


def test_many_elements():
    """The work grows with the elements, and not with their square; it was 97 calls for each."""
    few, many = calls_for(10_000), calls_for(20_000)
    assert 10_000 < few < 120 * 10_000
    assert few < many < 2.5 * few


def test_page_in_a_browser(browser, tmp_path):
    """The section stands in the page; on a narrow screen tables scroll, and the page does not."""
    found = [element_of(n, cpu=700.0, used=2 * GB, job="812[].pbshost") for n in range(1, 30)]
    history = replace(history_of(*found, on="pbs"), total=580, done=580)
    browser.show(render_html(history), tmp_path / "page.html", width=400)
    text = browser.evaluate("document.body.innerText")
    assert "Asked for 4 cores, used 1.2 on average" in text
    assert re.search(r"#PBS -l select=1:ncpus=2:mem=2560mb\n#PBS -l walltime=00:28:00", text)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.evaluate("document.querySelectorAll('table').length") >= 2
