"""Results and inputs as text, CSV cells and JSON: numbers as numbers, the rest as its repr."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from typing import Any

from fanfold.tasks import short_repr

__all__ = ["as_cell", "as_columns", "as_json", "to_json"]


def as_columns(value: object) -> dict[str, Any]:
    """What a result puts into a table: a column for each named part, else one column.

    Named parts are those of a dictionary with text keys, a named tuple or a dataclass.

    >>> as_columns({"mean": 1.0, "n": 3}), as_columns((1, 2))
    ({'mean': 1.0, 'n': 3}, {'result': (1, 2)})
    """
    return _named_parts(value) or {"result": value}


def _named_parts(value: object) -> dict[str, Any] | None:
    if isinstance(value, dict):
        return value if all(isinstance(key, str) for key in value) else None
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def as_cell(value: object) -> str:
    """One cell of a table: text as it is, nothing for None, JSON for lists and dictionaries.

    >>> [as_cell(value) for value in ("a b", None, 0.1, [1, "x"], 1j)]
    ['a b', '', '0.1', '[1, "x"]', '1j']
    """
    if value is None:
        return ""
    plain = as_json(value)
    if isinstance(plain, str):
        return plain
    return to_json(plain) if isinstance(plain, (list, dict)) else repr(plain)


def to_json(plain: object) -> str:
    """JSON text on one line of what `as_json` gave."""
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def as_json(value: object) -> Any:
    """The value in the types of JSON; what JSON cannot hold becomes its repr.

    NumPy's numbers and arrays become numbers and lists, paths become text, and so do NaN and
    infinity, which JSON does not know.

    >>> as_json({"a": (1, float("nan")), 2: {3}})
    {'a': [1, 'nan'], '2': '{3}'}
    """
    try:
        return _as_json(value)
    except Exception:  # noqa: BLE001 - too deep, or a __repr__ that raises
        return short_repr(value)


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (str, os.PathLike)):
        return str(value)
    if isinstance(value, int):  # Python refuses to write endless integers in decimal
        return int(value) if value.bit_length() < 10_000 else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return _as_json_numpy(value)
    parts = _named_parts(value)
    if parts is not None or isinstance(value, dict):
        members = value if parts is None else parts
        return {str(key): _as_json(member) for key, member in members.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(member) for member in value]
    return repr(value)


def _as_json_numpy(value: Any) -> Any:
    plain = value.tolist()
    return str(plain) if type(plain) is type(value) else _as_json(plain)
