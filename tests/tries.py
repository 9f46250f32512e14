"""For tests of what is measured: on a busy machine, what is short may look long."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress

TRIES = 10


def tried(test: Callable[..., None]) -> Callable[..., None]:
    """A test that has failed is tried again: other programs do not disturb it each time."""

    @functools.wraps(test)
    def again(*args: object, **kwargs: object) -> None:
        for _ in range(TRIES - 1):
            with suppress(AssertionError):
                return test(*args, **kwargs)
        return test(*args, **kwargs)

    return again
