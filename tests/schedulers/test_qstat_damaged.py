"""What may become of an answer of qstat: cut, noisy, reordered, damaged, laid out anew (S05)."""

import json
import random
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.counted import calls_of

from fanfold.errors import SchedulerDown
from fanfold.schedulers.base import Answer, Seen
from fanfold.schedulers.pbs import PBS

RAW = Path(__file__).parent / "transcripts" / "pbs" / "raw"
FILES = sorted(path.name for path in RAW.iterdir())
ARRAYS = [name for name in FILES if name.endswith("-t.json")]


def raw(name: str) -> str:
    return (RAW / name).read_bytes().decode(errors="replace")


def seen(text: str) -> dict[int | None, Seen]:
    return {one.index: one for one in PBS().seen(Answer([], 0, text, ""))}


def answer(job: dict[str, object]) -> str:
    """An answer about element 4 of job 12."""
    return json.dumps({"timestamp": 1, "Jobs": {"12[4].pbshost": job}}, indent=4)


@pytest.mark.parametrize(
    "text", ["", "\n", "garbage", "\x1b[31m%&$ \ufffd\n", "null", "[]", "{}\n"]
)
def test_no_answer(text: str) -> None:
    """S05: what is no answer of qstat is not taken for one that knows nothing."""
    with pytest.raises(SchedulerDown, match="not complete"):
        seen(text)


@pytest.mark.parametrize("name", ["array-partly-t.json", "newer-array-finished-t.json"])
def test_truncated(name: str) -> None:
    """S05: an answer that was cut off anywhere is no answer: what is missing has not vanished."""
    text = raw(name).rstrip()
    for end in [*range(0, len(text), 97), *range(len(text) - 40, len(text))]:
        with pytest.raises(SchedulerDown):
            seen(text[:end])


def test_noise() -> None:
    """S05: warnings before, behind and among the lines harm nothing."""
    text = raw("exit-status-t.json")
    noise = 'WARNING: /scratch is "97%" full {\n'
    lines = text.split("\n")
    noisy = noise + noise.join(f"{line}\n" for line in lines) + noise
    assert seen(noisy) == seen(text)


def test_reordered() -> None:
    """S05: neither jobs nor attributes have an order."""
    told = json.loads(raw("exit-status-t.json"))
    jobs = [(name, dict(reversed(job.items()))) for name, job in reversed(told["Jobs"].items())]
    text = json.dumps({"Jobs": dict(jobs), "timestamp": told["timestamp"]}, indent=4)
    assert seen(text) == seen(raw("exit-status-t.json"))


@pytest.mark.parametrize("indent", [None, 1, 2, 8, "\t"])
def test_other_layouts(indent: int | str | None) -> None:
    """JSON of yet another version is read, however it is laid out."""
    told = json.loads(raw("exit-status-t.json"))
    assert seen(json.dumps(told, indent=indent)) == seen(raw("exit-status-t.json"))


def test_variables_cannot_lie() -> None:
    """What a job has in its environment is never taken for its state."""
    variables = {"job_state": "F", "12[7].pbshost": "{", "substate": 92, "B": "},", "C": "{"}
    resources = {"job_state": "F"}
    told = {"Variable_List": variables, "Resource_List": resources, "comment": 'a "b" {'}
    assert seen(answer({"job_state": "R", **told}))[4].state == "running"


@pytest.mark.parametrize(
    ("lost", "damaged"),
    [
        ('        },\n        "113[2].pbshost":{\n', 1),  # it runs into the next one
        ('        },\n        "113[3]', 2),
        ('            "array_index":2,\n', 2),
        ('on (pbshost:ncpus=1) and finished",', 1),  # the end of a line
        ('            "job_state":"F",\n', None),  # of the array itself
    ],
)
def test_damaged_records(lost: str, damaged: int | None) -> None:
    """S05: a record that has lost its end, or part of itself, tells of an element in an unknown
    state, and never the state of another; the records after it are as they were."""
    text = raw("exit-status-t.json")
    assert lost in text
    told, before = seen(text.replace(lost, "", 1)), seen(text)
    if damaged is not None:
        assert told[damaged][2:] == ("unknown", "F", "", "", *[None] * 6, 0)
    for index in range((damaged or 0) + 2, 13):
        assert told[index] == before[index]


@pytest.mark.parametrize("line", ['"job_state":"R",', '"substate":91,', '"Exit_status":0,'])
def test_attributes_that_come_twice(line: str) -> None:
    """S05: where an attribute comes twice nobody knows which one is true."""
    text = raw("walltime-exceeded.json")
    spoiled = text.replace('            "queue"', f'            {line}\n            "queue"')
    assert seen(text)[None].state == "walltime"
    assert seen(spoiled)[None].state == "unknown"


def damage(text: str, seed: int) -> str:
    """Lines lost, doubled, spoiled, cut and swapped."""
    chance = random.Random(seed)
    lines = text.split("\n")
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(lines) - 2) + 1
        kind = chance.randrange(6)
        if kind == 0:
            del lines[at : at + chance.randint(1, 40)]
        elif kind == 1:
            lines.insert(at, lines[chance.randrange(len(lines))])
        elif kind == 2:
            lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
        elif kind == 3:
            lines[at] = lines[at].replace('"', "", 1)
        elif kind == 4:
            lines.insert(at, "".join(chr(chance.randrange(1, 0x3000)) for _ in range(20)))
        else:
            other = chance.randrange(len(lines) - 2) + 1
            lines[at], lines[other] = lines[other], lines[at]
        if len(lines) < 4:
            break
    return "\n".join(lines)


def blocks(text: str) -> dict[str, str]:
    """The lines of each record, by its id."""
    found, key = {}, ""
    for line in text.split("\n"):
        opening = re.match(r'(?: {8}|\t\t)"([^"]*)":', line)
        key = opening[1] if opening else key
        if key:
            found[key] = found.get(key, "") + line.rstrip(",") + "\n"
        if line in ("        },", "\t\t},"):
            key = ""
    return found


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(ARRAYS), st.integers(0, 2**32))
def test_damaged_answers(name: str, seed: int) -> None:
    """S05: a damaged answer raises nothing but SchedulerDown, and intact records keep their
    state."""
    text = raw(name)
    damaged = damage(text, seed)
    try:
        told = PBS().seen(Answer([], 0, damaged, ""))
    except SchedulerDown:
        return
    left, whole = blocks(damaged), blocks(text)
    after: dict[tuple[str, int | None], list[Seen]] = {}
    for one in told:
        after.setdefault((one.job, one.index), []).append(one)
    for index, before in seen(text).items():
        key = before.job.replace("[]", f"[{index}]")
        if left.get(key) == whole[key]:
            assert [one[2:4] for one in after[before.job, index]] == [before[2:4]]


@settings(max_examples=300, deadline=None)
@given(st.text(), st.integers(0, 300), st.sampled_from(FILES))
def test_any_text(text: str, at: int, name: str) -> None:
    """S05: no text in an answer, nor instead of one, raises anything but SchedulerDown."""
    whole = raw(name)
    for told in (text, whole[:at] + text + whole[at:], whole.replace("F", text, 3)):
        for code in (0, 35):
            with suppress(SchedulerDown):
                PBS().recorded(Answer(["1"], code, told, text))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "job_state", "substate", "Exit_status", "run_count", "array_index", "stime",
                "obittime", "mtime", "history_timestamp", "Hold_Types", "exec_host", "depend",
                "comment", "Stageout_status", "resources_used",
            ]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text()
            | st.sampled_from(["F", "X", "Q", "H", 91, 92, 93, "9" * 5000, "9" * 5000 + "kb"]),
            lambda inner: st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["cput", "mem"]), inner, max_size=2),
            max_leaves=4,
        ),
    )
)  # fmt: skip
def test_any_attributes(attributes: dict[str, object]) -> None:
    """S05: an attribute may be anything at all: the element is there, in some state."""
    (one,) = PBS().seen(Answer([], 0, answer(attributes), ""))
    assert (one.job, one.index) == ("12[].pbshost", 4)


def answer_of_many(count: int) -> str:
    """What an array of so many elements tells: 2 kB each."""
    head, job = raw("array-partly-t4.json").split('    "Jobs":{\n')
    body = job[: job.rindex("        }")]
    jobs = [
        re.sub(r"2\[4\]", f"2[{i}]", body).replace('index":4', f'index":{i}') for i in range(count)
    ]
    return f'{head}    "Jobs":{{\n' + "        },\n".join(jobs) + "        }\n    }\n}\n"


def test_an_array_of_1000_is_read_fast() -> None:
    """The work grows with what is read, 2 MB for 1000 elements, and not with its square; it was
    706 calls for each element."""
    calls = {}
    for count in (500, 1000):
        text = answer_of_many(count)
        calls[count] = calls_of(lambda text=text: seen(text))
        told = seen(text)
        assert {one.state for one in told.values()} == {"done"}
        assert len(told) == count
    assert len(text) > 2_000_000
    assert calls[1000] < 850 * 1000
    assert calls[1000] < 2.5 * calls[500]
