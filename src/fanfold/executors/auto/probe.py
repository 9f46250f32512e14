"""A few first tasks of a map, run only to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from fanfold.executors.auto.choice import Facts
from fanfold.executors.auto.meter import Meter
from fanfold.executors.auto.watch import Watch
from fanfold.executors.base import report_of
from fanfold.executors.work.runner import Runner
from fanfold.tasks import Call, Chunk, Report

__all__ = ["Probe", "probe"]

_LONG = 0.01  # seconds of tasks from which it is told that they waited for a core


class Probe(NamedTuple):
    """What the first tasks showed; ``times`` are those of the tasks that were timed for themselves,
    in seconds. ``queued`` is the share of the time in which they waited for a core."""

    facts: Facts
    times: tuple[float, ...]
    errors: tuple[BaseException, ...]
    queued: float
    memory: int


def probe(
    call: Call, items: Sequence[Any], total: int, workers: int | None, seconds: float
) -> Probe:
    """Run tasks in the caller's thread until ``seconds`` have passed, and at least one."""
    meter = Meter(call, total, workers)
    meter.see_input(Chunk(0, items))

    def look(running: float | None) -> None:
        if running is not None:
            meter.see_memory()
            if meter.imports(running):
                watch.renew()

    watch = Watch(look)
    reports = []
    try:
        reports.append(_run(call, items, 0, 1, seconds, watch))
        meter.learn(reports[0], here=True)
        left = seconds - meter.worked  # without imports
        if left > 0 and len(items) > 1:
            reports.append(_run(call, items, 1, len(items), left, watch))
            meter.pace = reports[1].work_time / max(1, len(reports[1]))  # the first may be special
            meter.learn(reports[1], here=True)
    finally:
        watch.count_queue()
        watch.stop()
    for place in ("threads", "processes"):
        meter.check(place)
    window = watch.window
    facts = meter.facts(window)
    queued = window.queued / window.wall if window.wall > _LONG else 0.0
    times = chain.from_iterable(
        report.seconds for report in reports if isinstance(report.seconds, list)
    )
    errors = (report.values[index - report.first] for report in reports for index in report.failed)
    return Probe(facts._replace(left=total), tuple(times), tuple(errors), queued, meter.memory)


def _run(
    call: Call, items: Sequence[Any], start: int, stop: int, seconds: float, watch: Watch
) -> Report:
    runner = Runner(
        call, 0, items, start=start, stop=stop, worker="serial", escapes=(KeyboardInterrupt,)
    )
    watch.begin(runner)
    try:
        while True:  # at least one: others may have had the core all the time
            runner.run(seconds)
            if runner.offset > start:
                return report_of(call, 0, 1, runner.take_all(), worker="serial")
    finally:
        watch.end()
