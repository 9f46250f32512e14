"""Axes with round units: steps and labels of durations, sizes and counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fanfold.reports.document import Axis, Tick
from fanfold.reports.words import duration, size

__all__ = ["DURATION", "SIZE", "Unit", "counts_axis", "linear_axis", "log_axis", "spread"]

MOST_TICKS = 7

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_CLOCK = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * count for count in (1, 2, 3, 6, 12)),
)
_DECADES = (
    *(10.0**power for power in range(-6, 2)),
    *(_MINUTE, 10 * _MINUTE, _HOUR, 10 * _HOUR, _DAY, 10 * _DAY, 100 * _DAY, 1000 * _DAY),
)
_BETWEEN = (
    *(count * 10.0**power for power in range(-6, 1) for count in (1, 2, 5)),
    *(10, 20, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 20 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 5 * _DAY),
    *(count * 10**power * _DAY for power in range(1, 4) for count in (1, 2, 5)),
)


class Unit(NamedTuple):
    """What is measured: the round step at or above a rough one, the label of a round value, and any
    value in a few digits."""

    step: Callable[[float], float]
    label: Callable[[float], str]
    shown: Callable[[float], str]


def _decimal_step(rough: float) -> float:
    """
    >>> _decimal_step(0.3), _decimal_step(7)
    (0.5, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * count for count in (1, 2, 5, 10) if power * count >= rough * 0.999999)


def _duration_step(rough: float) -> float:
    """
    >>> _duration_step(0.003), _duration_step(40), _duration_step(5000), _duration_step(100_000)
    (0.005, 60, 7200, 172800.0)
    """
    if rough <= 0.5:
        return _decimal_step(rough)
    for step in _CLOCK:
        if step >= rough:
            return step
    return max(1.0, _decimal_step(rough / _DAY)) * _DAY


def _duration_label(seconds: float) -> str:
    """
    >>> [_duration_label(seconds) for seconds in (0, 0.00002, 0.15, 1.5, 90, 5400, 129_600)]
    ['0', '20us', '150ms', '1.5s', '1m30s', '1h30m', '1d12h']
    """
    if seconds == 0:
        return "0"
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1, 1e3, "ms"), (_MINUTE, 1, "s")):
        if seconds < limit * 0.9999999:
            return f"{seconds * factor:.6g}{unit}"
    left = round(seconds)
    shown = ""
    for length, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m"), (1, "s")):
        amount, left = divmod(left, length)
        shown += f"{amount}{unit}" if amount else ""
    return shown


def _size_step(rough: float) -> float:
    """
    >>> _size_step(100 * 2**20) / 2**20
    128.0
    """
    return max(1.0, 2.0 ** math.ceil(math.log2(rough)))


def _size_label(size: float) -> str:
    """
    >>> [_size_label(size) for size in (0, 768 * 2**20, 5 * 2**28)]
    ['0', '768 MB', '1.25 GB']
    """
    if size == 0:
        return "0"
    power = min(4, int(math.log2(size) // 10))
    return f"{size / 1024**power:.6g} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


DURATION = Unit(_duration_step, _duration_label, duration)
SIZE = Unit(_size_step, _size_label, size)


def linear_axis(low: float, high: float, unit: Unit, label: str) -> Axis:
    """An even scale from ``low`` to ``high``.

    >>> [tick.label for tick in linear_axis(0, 60, DURATION, "time").ticks]
    ['0', '10s', '20s', '30s', '40s', '50s', '1m']
    """
    step = unit.step((high - low) / MOST_TICKS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = (count * step for count in range(first, last + 1))
    ticks = (Tick((value - low) / (high - low), unit.label(value)) for value in values)
    return Axis(tuple(ticks), label)


def log_axis(low: float, high: float, label: str) -> Axis:
    """A logarithmic scale of durations from ``low`` to ``high``.

    >>> [tick.label for tick in log_axis(0.001, 3600, "time").ticks]
    ['1ms', '100ms', '10s', '10m']
    """
    values = _inside(_DECADES, low, high)
    if len(values) < 3:
        values = _inside(_BETWEEN, low, high)
    values = values[:: math.ceil(len(values) / MOST_TICKS)] if values else []
    width = math.log(high / low)
    ticks = (Tick(math.log(value / low) / width, _duration_label(value)) for value in values)
    return Axis(tuple(ticks), label)


def _inside(values: Sequence[float], low: float, high: float) -> list[float]:
    return [value for value in values if low * 0.999999 <= value <= high * 1.000001]


def counts_axis(highest: int) -> tuple[Axis, int]:
    """A scale of counts from 0, and the round count at its end.

    >>> axis, end = counts_axis(37)
    >>> end, [tick.label for tick in axis.ticks]
    (40, ['0', '10', '20', '30', '40'])
    """
    step = max(1, round(_decimal_step(max(highest, 1) / 4)))
    end = step * math.ceil(max(highest, 1) / step)
    ticks = (Tick(count / end, _short(count)) for count in range(0, end + 1, step))
    return Axis(tuple(ticks), "attempts"), end


def _short(count: int) -> str:
    """
    >>> _short(950), _short(2500), _short(3_000_000)
    ('950', '2.5k', '3M')
    """
    for factor, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= factor:
            return f"{count / factor:g}{letter}"
    return str(count)


def spread(low: float, high: float, unit: Unit, most: int) -> tuple[float, float, int]:
    """Round borders around ``low`` and ``high``, and how many round steps lie between them.

    >>> spread(31.0, 58.0, DURATION, 10)
    (30, 60, 6)
    """
    step = unit.step(max((high - low) / most, high * 1e-3, 1e-6))
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return first * step, last * step, last - first
