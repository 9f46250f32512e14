"""What a scaling study says in words: what to do, and why, each sentence with its number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fanfold.schedulers.registry import SCHEDULERS
from fanfold.units import counted, format_duration

if TYPE_CHECKING:
    from fanfold.studies.study import ScalingStudy

__all__ = ["NOISY", "SHARED", "counted", "sentences"]

NOISY = 0.10  # how much repeated times differ: above it nothing is sure

# Places where all workers share the cores of one machine, or of one job.
SHARED = ("processes", "threads", "interpreters", *SCHEDULERS)
_TOLD = 0.10  # of the time of a run: what adds less is not worth a sentence


def sentences(study: ScalingStudy) -> list[str]:
    """All that there is to say of a study."""
    return [
        _advice(study),
        *_law(study),
        *_limits(study),
        *_longest(study),
        *_few_tasks(study),
        *_few_cores(study),
        *_begin(study),
    ]


def _advice(study: ScalingStudy) -> str:
    best, most = study.best, study.workers[-1]
    taken = f"Take {counted(best, 'worker')}: {format_duration(study.seconds[best])}"
    taken += "." if best == 1 else f", {study.speedup(best):.2f} times one."
    if best == most:
        return f"{taken} More were not tried; {study.efficiency(best):.0%} of each is used."
    if study.measured.mode == "weak":
        return f"{taken} With {most} {study.speedup(most):.2f} times as much is done in a second."
    return f"{taken} With {most} it takes {format_duration(study.seconds[most])}."


def _law(study: ScalingStudy) -> Iterator[str]:
    law = study.law
    if law is None or not study.follows or study.noise > NOISY:
        return
    partial = study.reach != study.workers[-1]
    within = f", up to {counted(study.reach, 'worker')}" if partial else ""
    said = f"{law.name[0].upper()}{law.name[1:]} law{within}: serial part {law.serial}"
    if law.name == "universal":
        said += f", crosstalk of each pair of workers {law.crosstalk}"
    said += ", beyond 1: more workers hinder one another." if law.serial.value > 1 else "."
    if law.peak is not None and law.crosstalk.low > 0:
        beyond = " (an extrapolation)" if law.peak > 2 * study.reach else ""
        said += f" Beyond about {law.peak:.0f} workers it gets slower{beyond}."
    yield said


def _limits(study: ScalingStudy) -> Iterator[str]:
    most = study.workers[-1]
    for one in study.limits(most):
        whose = "its" if most == 1 else "their"
        yield (
            f"With {counted(most, 'worker')} {one.share:.0%} of {whose} time is lost because "
            f"{one.meaning}."
        )


def _longest(study: ScalingStudy) -> Iterator[str]:
    """One task cannot be divided: with it alone the others' workers wait."""
    alone = study.measured.profiles[study.workers[0]]
    if study.measured.mode == "weak" or not alone.longest or alone.tasks == 1:
        return
    most = alone.work / alone.longest
    if most < study.workers[-1]:
        yield (
            f"The longest task takes {format_duration(alone.longest)} of "
            f"{format_duration(alone.work)} for all: more than {most:.1f} times one is not to be "
            "had unless it is divided."
        )


def _few_tasks(study: ScalingStudy) -> Iterator[str]:
    tasks, most = study.measured.tasks, study.workers[-1]
    if study.measured.mode == "strong" and tasks < most:
        told = "1 task keeps 1 worker busy" if tasks == 1 else f"{tasks} tasks keep {tasks} busy"
        yield f"{told}: of {counted(most, 'worker')} {most - tasks} have nothing to do."


def _few_cores(study: ScalingStudy) -> Iterator[str]:
    """More workers than cores gain only where tasks wait for something else than a core."""
    cores, most = study.measured.cores, study.workers[-1]
    if not study.crowded:
        return
    told = f"{counted(most, 'worker')} share {counted(cores, 'core')}"
    busy = study.measured.profiles[study.workers[0]].busy
    yield f"{told}; alone a task keeps {busy:.0%} of a core busy."


def _begin(study: ScalingStudy) -> Iterator[str]:
    """What is paid once, and is in none of the times."""
    best = study.best
    profile, seconds = study.measured.profiles[best], study.seconds[best]
    if profile.start > _TOLD * seconds:
        yield (
            f"Starting {counted(best, 'worker')} takes {format_duration(profile.start)}, once; "
            f"a run then takes {format_duration(seconds)}."
        )
    if profile.first > (1 + 2 * _TOLD) * max(study.measured.times[best]):
        yield (
            f"The first run takes {format_duration(profile.first)}, later ones "
            f"{format_duration(seconds)}: the times are of workers that are warm."
        )
