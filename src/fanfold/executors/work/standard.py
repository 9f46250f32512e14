"""The standard streams and descriptors of a process, whatever users' code has done to them."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["fill_standard_descriptors", "flush"]


def fill_standard_descriptors() -> None:
    """Open the null device where standard input, output or error is closed.

    Else the next file or socket that is opened would get its number, and tasks would print into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def flush(stream: Any) -> bool:
    """Flush what stands in ``sys.stdout`` or ``sys.stderr``; False when it is closed.

    >>> import io, sys
    >>> flush(sys.stdout), flush(None), flush("no stream")
    (True, True, True)
    >>> stream = io.StringIO()
    >>> stream.close()
    >>> flush(stream)
    False
    """
    try:
        if stream is not None:
            stream.flush()
            return not getattr(stream, "closed", False)
    except ValueError:
        return False
    except Exception:  # noqa: BLE001, S110 - whatever it is, it is no reason to lose a worker
        pass
    return True
