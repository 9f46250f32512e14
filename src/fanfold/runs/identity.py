"""Which task is which: a task is told by the content of its input, not by its position."""

from __future__ import annotations

import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import repeat
from operator import eq, is_
from typing import Any, Literal, NamedTuple, get_args

from fanfold.errors import UsageError
from fanfold.runs.canonical import Canonical, UnstableError
from fanfold.tasks import short_repr

__all__ = ["FilePolicy", "Matched", "digest", "match", "same_inputs", "stamps"]

FilePolicy = Literal["stat", "hash", "ignore"]

_VALUE, _STAMP = 10, 6  # bytes of a digest that tell the value, and the files that it names
_NO_STAMP = bytes(_STAMP)
_LONGEST = 4096  # characters of a path
_DEEPEST = 8  # containers around a path
_BLOCK = 1 << 20  # bytes read at a time
_EXACT = frozenset({int, str, bytes, bool, type(None)})


# Digests ----------------------------------------------------------------------------------------


def digest(value: object, stamp: str | None = None) -> bytes:
    """The identity of an input: 16 bytes, the same in every process.

    Equal content gives equal digests, whatever the order of sets and dictionaries; types
    distinguish, a NaN equals itself. ``stamp`` tells the files that the input names, as `stamps`
    gives it: with another stamp it is another input. Raises `UsageError` for an input that has no
    stable identity: a generator, a lock, an open file.

    >>> digest({"x": 1, "y": 2}) == digest({"y": 2, "x": 1})
    True
    >>> digest(1) == digest(1.0)
    False
    >>> digest("data.csv", stamp="512 1700000000000000000") == digest("data.csv")
    False
    """
    try:
        form = Canonical().of(value)
    except UnstableError as error:
        raise _unidentified(value, error) from None
    told = blake2b(form, digest_size=_VALUE).digest()
    if stamp is None:
        return told + _NO_STAMP
    return told + blake2b(stamp.encode(), digest_size=_STAMP).digest()


def _unidentified(value: object, error: UnstableError) -> UsageError:
    what = error.why or f"it is of type {type(value).__name__}"
    if error.value is not value:
        what = f"it holds {short_repr(error.value)}, of type {type(error.value).__name__}"
    return UsageError(
        f"the input {short_repr(value)} cannot be told from others when the run is resumed: "
        f"{what}. Pass what it is made from instead (a path for an open file, a list for a "
        "generator)."
    )


# Files ------------------------------------------------------------------------------------------


def stamps(items: Iterable[Any], policy: FilePolicy = "stat") -> dict[int, str]:
    """Index -> what tells the files that an input names, for the inputs that name any.

    An input names a file when it is the path of a regular file, as text or as a path object, or
    when it is a tuple, a list or a dictionary with such a value. ``policy`` says what tells a file:
    ``"stat"`` its size in bytes and its time of modification in ns since 1970, ``"hash"`` its size
    and content; with ``"ignore"`` its name is enough. Raises `UsageError` for another policy.

    >>> stamps([1, "no such file", {"rate": 0.5}])
    {}
    """
    if policy not in get_args(FilePolicy):
        raise UsageError(f"files={policy!r} is none of the policies: use stat, hash or ignore")
    if policy == "ignore" or isinstance(items, range):
        return {}
    known: dict[str, str] = {}  # many inputs may name the same file
    found = {}
    for index, item in enumerate(items):
        if type(item) is str:
            stamp = _stamp(item, policy, known)
        elif paths := sorted(set(_paths(item, _DEEPEST, set()))):
            stamp = ", ".join(_stamp(path, policy, known) or "-" for path in paths)
            stamp = stamp if stamp.strip("-, ") else ""
        else:
            continue
        if stamp:
            found[index] = stamp
    return found


def _paths(item: object, deep: int, seen: set[int]) -> Iterator[str]:
    """What could be the names of files in an input."""
    if isinstance(item, str):
        yield item
    elif isinstance(item, os.PathLike):
        yield os.fsdecode(item)
    elif deep and isinstance(item, (tuple, list, dict)) and id(item) not in seen:
        seen.add(id(item))
        for member in item.values() if isinstance(item, dict) else item:
            yield from _paths(member, deep - 1, seen)


def _stamp(path: str, policy: FilePolicy, known: dict[str, str]) -> str:
    """What tells the file; empty when there is none."""
    if path in known:
        return known[path]
    if len(path) > _LONGEST or "\n" in path:
        return ""
    try:
        about = os.stat(path)
    except (OSError, ValueError):  # ValueError: a null character, or no encoding for it
        return ""
    if not stat.S_ISREG(about.st_mode):
        return ""
    mark = about.st_mtime_ns if policy == "stat" else _content(path)
    known[path] = f"{about.st_size} {mark}"
    return known[path]


def _content(path: str) -> str:
    """A digest of a file; "unreadable" where it cannot be read, as its task will find out too."""
    digest = blake2b(digest_size=16)
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return "unreadable"
    return digest.hexdigest()


# Comparing --------------------------------------------------------------------------------------


class Matched(NamedTuple):
    """New inputs beside old ones.

    ``kept[index]`` is the old index of a new input, -1 where it has none. ``added`` and ``removed``
    count inputs, ``changed_files`` those that are the same but for the files that they name.
    """

    kept: Sequence[int]
    added: int
    removed: int
    changed_files: int


def match(old: Sequence[bytes], new: Sequence[bytes]) -> Matched:
    """Find the new inputs among the old by their digests, wherever they stand.

    Of equal inputs the first is the first of the old, the second the second, and so on.

    >>> one, two, three = map(digest, ["one", "two", "three"])
    >>> match([one, two], [three, two, two])
    Matched(kept=array('q', [-1, 1, -1]), added=2, removed=1, changed_files=0)
    """
    first: dict[bytes, int] = {}  # digest -> the first index that is not taken
    following = array("q", repeat(-1, len(old)))  # index -> the next with the same digest
    for index in range(len(old) - 1, -1, -1):
        following[index] = first.get(old[index], -1)
        first[old[index]] = index
    kept = array("q", repeat(-1, len(new)))
    for index, told in enumerate(new):
        place = first.get(told, -1)
        if place >= 0:
            kept[index] = place
            first[told] = following[place]
    return _counted(kept, old, new)


def _counted(kept: array[int], old: Sequence[bytes], new: Sequence[bytes]) -> Matched:
    taken = bytearray(len(old))
    for place in kept:
        if place >= 0:
            taken[place] = 1
    gone = [told for told, there in zip(old, taken, strict=True) if not there]
    come = [told for told, place in zip(new, kept, strict=True) if place < 0]
    values = Counter(told[:_VALUE] for told in gone) & Counter(told[:_VALUE] for told in come)
    changed = values.total()
    return Matched(kept, len(come) - changed, len(gone) - changed, changed)


def same_inputs(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Whether the inputs are the same, in the same order; a quick look that may miss it.

    True is certain as far as the values go; the files that they name are told by `stamps`.

    >>> same_inputs(range(3), [0, 1, 2]), same_inputs([1, 2], [1, True])
    (True, False)
    """
    if len(old) != len(new):
        return False
    if isinstance(old, range) and isinstance(new, range):
        return old == new
    if _EXACT.issuperset(map(type, old)):
        return all(map(is_, map(type, old), map(type, new))) and all(map(eq, old, new))
    try:
        return all(map(_same, old, new))
    except UnstableError:
        return False


def _same(old: Any, new: Any, deep: int = 2) -> bool:
    kind = type(old)
    if kind is not type(new):
        return False
    if kind in _EXACT or (kind is float and old == new and old != 0):  # -0.0 equals 0.0
        return bool(old == new)
    if deep and (kind is tuple or kind is list):
        return len(old) == len(new) and all(map(_same, old, new, repeat(deep - 1)))
    if deep and kind is dict:
        return _same(tuple(old), tuple(new)) and _same(
            tuple(old.values()), tuple(new.values()), deep
        )
    return Canonical().of(old) == Canonical().of(new)
