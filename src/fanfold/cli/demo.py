"""``fanfold demo``: the classic, pi by random points, on one worker and on all cores."""

from __future__ import annotations

import math
import os
from time import perf_counter

import click

from fanfold.cli.options import whole_number
from fanfold.errors import FanfoldError
from fanfold.resources import cores
from fanfold.seeds import rng
from fanfold.units import counted, format_duration

__all__ = ["demo_command", "points_inside"]

POINTS_OF_A_TASK = 250_000  # few enough to stay in the cache, many enough to be work


def points_inside(points: int) -> int:
    """How many of so many random points of a square fall inside its circle."""
    random = rng()
    x, y = random.random(points), random.random(points)
    return int((x * x + y * y < 1).sum())


@click.command("demo")
@click.option(
    "--points",
    metavar="N",
    callback=whole_number(1),
    default="200000000",
    help="Random points. [200 million]",
)
@click.option(
    "--seed", metavar="N", callback=whole_number(0), default="2013", help="Of them. [2013]"
)
def demo_command(points: int, seed: int) -> int:
    """Estimate pi by random points, on one worker and on all cores.

    Both give the same number to the last digit, because each task has its own random stream. The
    speed-up is told as it was, the start of the workers included.
    """
    available = cores()
    load = os.getloadavg()[0]
    click.echo(f"pi from {points:,} random points, in tasks of {POINTS_OF_A_TASK:,}")
    inside, alone = _timed(points, seed, workers=1)
    click.echo(_line(1, alone, inside, points))
    if available == 1:
        click.echo("There is one core to use here, so nothing to speed up; fanfold cores says why.")
        return 0
    again, together = _timed(points, seed, workers=available)
    click.echo(_line(available, together, again, points))
    click.echo(_verdict(alone / together, available, load))
    if again != inside:
        raise FanfoldError("the digits differ, which is a fault of fanfold: please report it")
    return 0


def _timed(points: int, seed: int, workers: int) -> tuple[int, float]:
    """The points inside, and the seconds it took; one worker is this process itself."""
    from fanfold.api import map as fan_map

    whole, rest = divmod(points, POINTS_OF_A_TASK)
    tasks = [POINTS_OF_A_TASK] * whole + ([rest] if rest else [])
    place = "serial" if workers == 1 else "processes"
    began = perf_counter()
    inside = sum(fan_map(points_inside, tasks, on=place, workers=workers, seed=seed))
    return inside, perf_counter() - began


def _verdict(speed_up: float, workers: int, load: float) -> str:
    """The speed-up, and what may have lowered it: ``load`` is the work of other programs.

    >>> _verdict(1.2, 2, load=1.9)
    'speed-up 1.20 on 2 cores, while other programs kept 1.9 of them busy'
    """
    text = f"speed-up {speed_up:.2f} on {workers} cores"
    if load < 0.5:
        return text
    return f"{text}, while other programs kept {min(load, workers):.1f} of them busy"


def _line(workers: int, seconds: float, inside: int, points: int) -> str:
    pi = 4 * inside / points
    time = format_duration(seconds)
    who = counted(workers, "worker")
    return f"  {who:<10} {time:>6}  pi is about {pi:.6f}, off by {pi - math.pi:+.6f}"
