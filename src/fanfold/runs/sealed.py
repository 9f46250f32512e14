"""Text files that tell whether they are as they were written: a checksum among their fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

from fanfold.errors import RunDamaged

__all__ = ["checksum", "seal", "unseal"]


def checksum(data: bytes) -> str:
    """
    >>> checksum(b"abc")
    '352441c2'
    """
    return f"{crc32(data):08x}"


def seal(told: dict[str, Any]) -> dict[str, Any]:
    """The same with its checksum, to be written as JSON.

    >>> seal({"total": 3})
    {'total': 3, 'check': '306de3fe'}
    """
    return {**told, "check": checksum(_canonical(told))}


def unseal(told: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was sealed, read again from ``path``. Raises `RunDamaged` when it is not the same."""
    rest = {name: value for name, value in told.items() if name != "check"}
    if told.get("check") != checksum(_canonical(rest)):
        raise RunDamaged(f"{path} is damaged: it does not match its checksum")
    return rest


def _canonical(told: dict[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True).encode()
