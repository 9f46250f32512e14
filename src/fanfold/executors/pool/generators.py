"""Random generators in a program that is forked: each copy is to draw numbers of its own.

A new interpreter has generators that nobody else has; copies of a program would all go on with the
same numbers, and a mean of them would look more certain than it is.
"""

from __future__ import annotations

import gc
import sys
from itertools import compress
from typing import Any

__all__ = ["Generators"]


class Generators:
    """Those of this program, wherever they are kept: of `random`, of NumPy, and PyTorch's own.

    >>> import random
    >>> one = random.Random(7)
    >>> before = one.getstate()
    >>> Generators().renew()
    >>> one.getstate() == before
    False
    """

    def __init__(self) -> None:
        gc.unfreeze()  # what the program has set aside counts too
        kinds = _kinds("random", "Random")
        self._random: list[Any] = _of_kinds(gc.get_referrers(*kinds), kinds)
        # NumPy's do not refer to their kind. To go through all objects takes milliseconds.
        elder, bits = _kinds("numpy.random", "RandomState"), _kinds("numpy.random", "BitGenerator")
        objects = gc.get_objects() if bits else []
        found = _of_kinds(objects, elder | bits)
        self._elder: list[Any] = [one for one in found if type(one) in elder]
        self._bits: list[Any] = [one for one in found if type(one) in bits]

    def renew(self) -> None:
        """Seed all anew, with what the system has of chance."""
        for one in self._random:
            one.seed()
        for one in self._bits:
            one.state = type(one)().state
        for one in self._elder:  # it draws from such bits, and two at a time
            one.set_state(one.get_state(legacy=False) | {"has_gauss": 0})
        torch: Any = sys.modules.get("torch")
        if hasattr(torch, "default_generator"):
            torch.default_generator.seed()


def _of_kinds(objects: list[Any], kinds: set[type]) -> list[Any]:
    """Those whose class is one of ``kinds`` itself."""
    try:
        return list(compress(objects, map(kinds.__contains__, map(type, objects))))  # all in C
    except TypeError:  # somebody's class has no hash
        known = set(map(id, kinds))
        return [one for one in objects if id(type(one)) in known]


def _kinds(module: str, name: str) -> set[type]:
    """A class and all that are made of it; none where the module is not loaded."""
    found = {getattr(sys.modules.get(module), name, object)} - {object}
    while derived := {kind for one in found for kind in one.__subclasses__()} - found:
        found |= derived
    return found
