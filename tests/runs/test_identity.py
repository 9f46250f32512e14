"""Which task is which: equal inputs are the same task, in every process, wherever they stand."""

import collections
import contextlib
import datetime
import decimal
import enum
import functools
import gc
import json
import math
import os
import pickle
import random
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fanfold as ff
from fanfold.errors import UsageError
from fanfold.runs.identity import digest, match, same_inputs, stamps

atoms = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.integers()
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1.0, math.nan])
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.complex_numbers()
)
keys = st.integers(-3, 3) | st.text(max_size=3) | st.tuples(st.booleans())
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=12,
)


def content(value):
    """What a value is, written out: the oracle that digests are held against."""
    kind = type(value)
    if kind is dict:
        inside = sorted(repr((content(key), content(held))) for key, held in value.items())
    elif kind in (set, frozenset):
        inside = sorted(repr(content(member)) for member in value)
    elif kind in (list, tuple):
        inside = [content(member) for member in value]
    elif kind is float:
        inside = value.hex()
    elif kind is complex:
        inside = (value.real.hex(), value.imag.hex())
    else:
        inside = value
    return kind.__name__, inside


def rebuilt(value, order):
    """An equal value that shares nothing, with its dictionaries in another order."""
    kind = type(value)
    if kind is dict:
        pairs = [(rebuilt(key, order), rebuilt(held, order)) for key, held in value.items()]
        order.shuffle(pairs)
        return dict(pairs)
    if kind in (list, tuple, set, frozenset):
        return kind([rebuilt(member, order) for member in value])
    return kind(value) if kind in (int, float) else value


# Digests


@given(values, values)
@settings(max_examples=500, deadline=None)
def test_equal_digests_mean_equal_content(one, other):
    """Two digests are equal exactly when the values have the same types and the same content."""
    assert (digest(one) == digest(other)) == (content(one) == content(other))


@given(values, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_and_sharing_do_not_matter(value, order):
    """Equal values have one digest, whatever the order of dictionaries and what is shared."""
    assert digest(rebuilt(value, order)) == digest(value)
    assert digest([value, value]) == digest([value, rebuilt(value, order)])


@given(values)
@settings(deadline=None)
def test_what_is_read_back_is_the_same_input(value):
    """An input that was stored with pickle has the digest that it had before."""
    assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


@pytest.mark.parametrize("texts", [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc")])
def test_parts_do_not_run_together(texts):
    """Where one part ends and the next begins matters."""
    others = [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc")]
    assert [digest(other) == digest(texts) for other in others].count(True) == 1


def test_types_distinguish():
    """1, 1.0, True, "1", b"1" and the like are different inputs; so are 0.0 and -0.0."""
    different = [1, 1.0, True, "1", b"1", bytearray(b"1"), 1 + 0j, None, "None", ..., 0.0, -0.0]
    different += [(1,), [1], {1}, frozenset({1}), {1: 1}, {1: 1.0}, (), [], {}, range(1), ((),)]
    different += [np.int64(1), np.int32(1), np.float64(1), np.array(1), np.array([1]), Path("1")]
    assert len({digest(value) for value in different}) == len(different)


def test_nan_is_equal_to_itself():
    """Every NaN is the same input."""
    assert digest((math.nan, 1)) == digest((float("nan"), 1)) == digest((-math.nan, 1))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Setting:
    rate: float
    names: set


class Odd(dict):
    """A dictionary with an attribute."""


def odd(note):
    made = Odd(a=1, b=2)
    made.note = note
    return made


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Setting(1, {"a", "b"}), Setting(1, {"b", "a"}), Setting(1, {"a"})),
        (Colour.RED, Colour(1), Colour.BLUE),
        (Point(1, 2), Point(1, 2), (1, 2)),
        (odd("n"), odd("n"), odd("m")),
        (datetime.date(2024, 1, 2), datetime.date(2024, 1, 2), datetime.date(2024, 1, 3)),
        (decimal.Decimal("1.0"), decimal.Decimal("1.0"), decimal.Decimal("1.1")),
        (Path("a/b"), Path("a") / "b", Path("a/c")),
        (range(0, 9, 3), range(0, 9, 3), range(0, 9, 2)),
        (slice(1, 2), slice(1, 2), slice(1, 3)),
        (random.Random(1), random.Random(1), random.Random(2)),
        (np.random.default_rng(1), np.random.default_rng(1), np.random.default_rng(2)),
        (collections.Counter("aab"), collections.Counter("baa"), collections.Counter("ab")),
        (
            collections.OrderedDict([("a", 1), ("b", 2)]),
            collections.OrderedDict([("a", 1), ("b", 2)]),
            collections.OrderedDict([("b", 2), ("a", 1)]),
        ),
        (
            collections.defaultdict(list, {"a": [1], "b": [2]}),
            collections.defaultdict(list, {"b": [2], "a": [1]}),
            collections.defaultdict(list, {"a": [1]}),
        ),
        (functools.partial(math.pow, 2), functools.partial(math.pow, 2), functools.partial(pow, 2)),
        (math.sin, math.sin, math.cos),
        (np.sin, np.sin, np.cos),
        (np.dtype("f8"), np.dtype("f8"), np.dtype("f4")),
        (int, int, float),
        (math, math, random),
        ([1].append, [1].append, [2].append),
        (np.datetime64("2024-01-01"), np.datetime64("2024-01-01"), np.datetime64("2024-01-02")),
        (10**5000, 10**5000, 10**5000 + 1),
        ("\ud800", "\ud800", "\ud801"),
        (memoryview(b"a").tolist(), [97], [98]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_count_by_what_pickle_would_store(one, same, other):
    """Instances, enumerations, named code and library objects are told by type and state."""
    assert digest(one) == digest(same) == digest(cloudpickle.loads(cloudpickle.dumps(one)))
    assert digest(one) != digest(other)


def test_a_function_is_told_by_its_code():
    """A function counts by code, defaults and closure, also after a way through cloudpickle."""

    def scaled(factor, start=0):
        return lambda x, begin=start: factor * x + begin

    one = scaled(2)
    assert digest(one) == digest(scaled(2)) == digest(cloudpickle.loads(cloudpickle.dumps(one)))
    assert len({digest(scaled(2)), digest(scaled(3)), digest(scaled(2, 1))}) == 3


def test_a_table_is_told_by_its_content():
    """A DataFrame is told by its values, its index and its columns."""
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]})
    assert digest(table) == digest(pickle.loads(pickle.dumps(table)))
    others = [table.rename(columns={"b": "c"}), table.iloc[::-1], table.assign(a=[1.5, 2.0])]
    assert digest(table) not in {digest(other) for other in others}


@pytest.mark.parametrize("dtype", ["f8", ">f8", "i1", "?", "M8[s]", "U3", "S2", "c16", "i4,f8"])
def test_arrays_count_by_content(dtype):
    """An array has one digest, in whatever order it lies in memory; a changed element shows."""
    array = np.arange(24).reshape(4, 6).astype(dtype)
    twins = [array.copy(), np.asfortranarray(array), np.repeat(array, 2, axis=1)[:, ::2]]
    assert {digest(twin) for twin in twins} == {digest(array)}
    assert digest(array.T) != digest(array)
    assert digest(array.reshape(6, 4)) != digest(array)
    changed = array.copy()
    changed[3, 5] = changed[0, 0]
    assert digest(changed) != digest(array)


def test_arrays_of_every_shape_and_kind():
    """Empty arrays, arrays without dimensions and arrays of objects have an identity."""
    arrays = [np.zeros(0), np.zeros((0, 3)), np.zeros(()), np.zeros(1), np.zeros(2, "V0")]
    arrays += [np.array([{1, 2}, "a"], object), np.array([{1, 3}, "a"], object), np.zeros(2, "S0")]
    assert len({digest(array) for array in arrays}) == len(arrays)
    assert digest(np.array([{2, 1}, "a"], object)) == digest(arrays[-3])


def test_shared_arrays_count_by_content():
    """Where in memory a shared array lies says nothing: a new program has it elsewhere."""
    numbers = np.arange(1000.0)
    with ff.share(numbers) as one, ff.share(numbers) as other, ff.share(numbers + 1) as third:
        assert digest(one) == digest(other) != digest(third)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_huge_array_is_not_copied(order):
    """The digest of 64 MB needs less than 4 MB more."""
    array = np.ones((1024, 8192), order=order)
    gc.collect()
    tracemalloc.start()
    try:
        digest({"data": array})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


class Node:
    def __init__(self, name):
        self.name = name
        self.near = []


def ring(size, name="node"):
    nodes = [Node(f"{name} {number}") for number in range(size)]
    for node in nodes:
        node.near = [other for other in nodes if other is not node]
    return nodes[0]


def test_values_that_hold_themselves():
    """A cycle has an identity, and takes no longer than its size; one through a set is refused."""
    loop: list = [1]
    loop.append(loop)
    twin: list = [1]
    twin.append(twin)
    assert digest(loop) == digest(twin) != digest([1, [1]])
    assert digest(ring(60)) == digest(pickle.loads(pickle.dumps(ring(60)))) != digest(ring(59))
    assert digest(ring(60)) != digest(ring(60, "other"))
    node = Node("a")
    node.near = {node}
    with pytest.raises(UsageError, match="it holds itself in a set"):
        digest(node)


def test_shared_parts_cost_once():
    """A value of 2**80 parts of which 80 are different is told at once, and so is its twin."""
    value: list = []
    for _ in range(80):
        value = [value, value]
    twin = pickle.loads(pickle.dumps(value))
    assert digest(value) == digest(twin)
    assert same_inputs([value], [twin])
    for _ in range(3):
        value = [value] * 1000
    assert stamps([value]) == {}


def test_too_deep_is_refused():
    """A value nested deeper than Python can follow is refused, not a crash."""
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UsageError, match="nested too deeply"):
        digest(value)
    while value:  # taken apart by hand: the way that goes down by itself is as deep
        value = value.pop()


class Broken:
    def __reduce__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: (x for x in "ab"), "generator"),
        (threading.Lock, "lock"),
        (lambda: open(os.devnull), "TextIOWrapper"),  # noqa: SIM115 - closed below
        (lambda: memoryview(b"a"), "memoryview"),
        (lambda: {}.keys(), "dict_keys"),
        (Broken, "Broken"),
        (lambda: sys._getframe(), "frame"),
    ],
)
def test_no_stable_identity_is_refused_by_name(make, named):
    """R20: a generator, a lock, an open file is refused: the message names it and the remedy."""
    value = make()
    with contextlib.closing(value) if hasattr(value, "close") else contextlib.nullcontext():
        for given in (value, {"x": (1, [value])}):
            with pytest.raises(UsageError, match=f"type {named}.* Pass what it is made from"):
                digest(given)


CORPUS = """
import sys
import numpy as np, decimal, pathlib, collections, enum
from fanfold.runs.identity import digest
class Thing:
    def __init__(self):
        self.tags = {"a", "b", "c", 1, 2.5, None}
        self.other = {"z": 1, "y": {"p", "q"}}
def near(x, words=frozenset({"in", "out"})):
    return x in {"a", "b", "c"}
corpus = [
    {"b": {1, "a", (2, "c")}, "a": frozenset({"x", "y", b"z"})}, {"a", "b", "c", "d", "e"},
    Thing(), near, np.arange(10.0), np.array([{"a", "b"}, None], object), decimal.Decimal("1.5"),
    pathlib.Path("x"), collections.Counter("mississippi"), len, np.sin,
    (1, 1.5, "text", b"bytes", None, True, ..., 3j), {Thing: {"s", "t"}, print: 2},
    [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
]
print([digest(value).hex() for value in corpus])
"""


def test_digests_are_the_same_in_every_process():
    """R20: PYTHONHASHSEED, and so the order of sets, changes nothing."""
    found = set()
    for seed in range(10):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        done = subprocess.run(
            [sys.executable, "-c", CORPUS],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


# Files


def test_a_file_is_told_by_size_and_time(tmp_path):
    """With "stat" a file counts by size and time of modification, the content notwithstanding."""
    path = tmp_path / "data.csv"
    path.write_text("1,2")
    os.utime(path, ns=(5, 7))
    (before,) = stamps([str(path)]).values()
    assert before == "3 7"
    path.write_text("3,4")
    os.utime(path, ns=(9, 7))
    assert stamps([str(path)]) == {0: before}
    os.utime(path, ns=(9, 8))
    assert stamps([str(path)]) != {0: before}


def test_a_file_is_told_by_its_content(tmp_path):
    """With "hash" a file counts by its content alone, whenever it was written."""
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(3 << 20))
    before = stamps([path], "hash")
    os.utime(path, ns=(1, 1))
    assert stamps([path], "hash") == before
    with path.open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"x")
    assert stamps([path], "hash") != before


def test_a_file_may_be_told_by_its_name_alone(tmp_path):
    """With "ignore" no file is looked at; another word is refused."""
    path = tmp_path / "data.csv"
    path.touch()
    assert stamps([path], "ignore") == {}
    with pytest.raises(UsageError, match="use stat, hash or ignore"):
        stamps([path], "mtime")


def test_which_inputs_name_files(tmp_path, monkeypatch):
    """Text and paths count, alone or inside tuples, lists and dictionaries; folders do not."""
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("a")
    Path("b.csv").write_text("bb")
    items = ["a.csv", Path("a.csv"), ("a.csv", 1), {"over": ["x", Path("b.csv")]}, (("b.csv",), {})]
    nothing = [1, "none.csv", tmp_path, str(tmp_path), b"a.csv", {"a.csv": 1}, None, "", "a\0b"]
    nothing += ["a.csv\n", "x" * 5000, "\ud800", ("none.csv", "-"), {}, ("",)]
    assert set(stamps([*items, *nothing])) == set(range(len(items)))
    assert stamps(range(10**9)) == {}


def test_every_file_of_an_input_counts(tmp_path):
    """Of several files in an input each is seen: changed, gone, or newly there."""
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_text("a")
    found = {stamps([(one, two)])[0]}
    two.write_text("b")
    found.add(stamps([(one, two)])[0])
    one.write_text("abc")
    found.add(stamps([(one, two)])[0])
    two.write_text("bcd")
    found.add(stamps([(one, two)])[0])
    one.unlink()
    found.add(stamps([(one, two)])[0])
    assert len(found) == 5


def test_special_files_are_not_opened(tmp_path):
    """A pipe, a device, a file that may not be read: no wait, and no error."""
    os.mkfifo(tmp_path / "pipe")
    assert stamps([tmp_path / "pipe", os.devnull], "hash") == {}
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert stamps([tmp_path / "link"], "hash") == {}


def test_a_changed_file_makes_another_input():
    """A digest holds the stamp: with another one, or none, it is another task."""
    digests = {digest("a.csv"), digest("a.csv", "3 7"), digest("a.csv", "3 8"), digest("b", "3 7")}
    assert len(digests) == 4
    assert {len(told) for told in digests} == {16}
    assert digest("a.csv", stamp="3 7") == digest("a.csv", stamp="3 7")


# Matching

few = st.lists(st.sampled_from([digest(number) for number in range(6)]), max_size=12)


@given(few, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_changes_no_task(old, order):
    """R12: inputs in another order are all kept, each with the result of its own content."""
    new = old.copy()
    order.shuffle(new)
    matched = match(old, new)
    assert matched[1:] == (0, 0, 0)
    assert sorted(matched.kept) == list(range(len(old)))
    assert [old[index] for index in matched.kept] == new


@given(few, few)
@settings(deadline=None)
def test_matching_in_general(old, new):
    """R12: equal content is kept, the n-th of equals as the n-th; the rest is added or removed."""
    kept, added, removed, changed = match(old, new)
    for told in set(old) | set(new):
        before = [index for index, other in enumerate(old) if other == told]
        after = [kept[index] for index, other in enumerate(new) if other == told]
        lacking = [-1] * (len(after) - len(before))
        assert after == before[: len(after)] + lacking
    assert added == list(kept).count(-1)
    assert removed == len(old) - (len(new) - added)
    assert changed == 0


def test_changed_files_are_told_apart():
    """An input whose file has changed is not kept, and counts as neither added nor removed."""
    old = [digest("a", "1 1"), digest("b", "1 1"), digest("c", "1 1"), digest("a", "1 1")]
    new = [digest("d"), digest("b", "1 2"), digest("a", "1 1"), digest("a", "1 2"), digest("a")]
    matched = match(old, new)
    assert list(matched.kept) == [-1, -1, 0, -1, -1]
    assert matched[1:] == (2, 1, 2)


def test_a_million_inputs():
    """R18: a million inputs are matched, whatever their order."""
    old = [number.to_bytes(16) for number in range(1_000_000)]
    new = old[::-1]
    matched = match(old, new)
    assert matched[1:] == (0, 0, 0)
    assert matched.kept[0] == 999_999


# The quick look


@given(st.lists(values, max_size=4), st.lists(values, max_size=4))
@settings(max_examples=500, deadline=None)
def test_a_quick_look_never_lies(old, new):
    """When the inputs are said to be the same they are, to the types of their parts."""
    assert not same_inputs(old, new) or content(old) == content(new)


@given(st.lists(values, max_size=4))
@settings(deadline=None)
def test_a_quick_look_sees_what_was_read_back(items):
    """Inputs that were stored and read back are the same."""
    assert same_inputs(pickle.loads(pickle.dumps(items)), items)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([1, 2], [2, 1]),
        ([1], [1, 2]),
        ([1], [True]),
        ([1], [1.0]),
        ([0.0], [-0.0]),
        ([(0.0,)], [(-0.0,)]),
        ([{"a": 1}], [{"a": True}]),
        ([{1: "a"}], [{True: "a"}]),
        ([[1]], [(1,)]),
        ([np.zeros(2)], [np.zeros(3)]),
        ([Colour.RED], [Colour.BLUE]),
        ([threading.Lock()], [threading.Lock()]),
        (range(3), range(4)),
    ],
)
def test_what_a_quick_look_tells_apart(old, new):
    """Another order, number, type or content is seen; what has no identity is never the same."""
    assert not same_inputs(old, new)


def test_a_quick_look_at_much():
    """Many rows, and a range of any length, are compared."""
    rows = [{"x": number, "y": number / 2} for number in range(100_000)]
    copy = json.loads(json.dumps(rows))
    assert same_inputs(rows, copy)
    assert same_inputs(range(10**12), range(10**12))
