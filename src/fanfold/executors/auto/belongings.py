"""What belongs to the whole program, and whether tasks change it.

Functions that do so must not run in several threads at once: one would pull the working directory,
or the state of a random generator, from under another. Only what is quickly seen is looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from fanfold.executors.auto.sizes import plain_function

__all__ = ["Belongings"]


class Belongings:
    """As they are now; `changed` compares later.

    >>> before = Belongings(abs)
    >>> os.environ["FANFOLD_EXAMPLE"] = "1"
    >>> before.changed()
    'the environment variables'
    >>> del os.environ["FANFOLD_EXAMPLE"]
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        function = plain_function(func)
        self._scope = {} if function is None else function.__globals__
        self._before = dict(self._look())

    def changed(self) -> str | None:
        """What has changed, in words."""
        after = dict(self._look())
        names = [name for name, value in after.items() if self._before.get(name, value) != value]
        return names[0] if names else None

    def _look(self) -> Iterator[tuple[str, object]]:
        with suppress(OSError):
            yield "the working directory", os.getcwd()
        yield "the environment variables", os.environ.copy()
        if "random" in sys.modules:
            yield "the state of the module random", sys.modules["random"].getstate()
        if hasattr(sys.modules.get("numpy.random"), "get_state"):  # a task may just import it
            _, state, position, *_ = sys.modules["numpy.random"].get_state()
            yield "NumPy's global random state", (state.tobytes(), position)
        for name, value in list(self._scope.items()):
            size = len(value) if isinstance(value, (list, dict, set)) else 0
            if value is not self._scope and name != "__builtins__":
                yield f"the global variable {name}", (id(value), size)
