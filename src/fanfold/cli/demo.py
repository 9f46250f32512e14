"""``fanfold demo``: the classic, pi by random points, on one worker and on all cores."""

from __future__ import annotations

import math
from time import perf_counter

import click

from fanfold.cli.options import whole_number
from fanfold.resources import cores
from fanfold.seeds import rng
from fanfold.units import format_duration

__all__ = ["demo_command", "points_inside"]

POINTS_OF_A_TASK = 250_000  # few enough to stay in the cache, many enough to be work


def points_inside(points: int) -> int:
    """How many of so many random points of a square fall inside its circle."""
    random = rng()
    x, y = random.random(points), random.random(points)
    return int((x * x + y * y < 1).sum())


@click.command("demo")
@click.option(
    "--points", metavar="N", callback=whole_number(1), default="200000000", help="[200 million]"
)
@click.option("--seed", metavar="N", callback=whole_number(0), default="2013", help="[2013]")
def demo_command(points: int, seed: int) -> int:
    """Estimate pi by random points, on one worker and on all cores.

    Both give the same number to the last digit, because each task has its own random stream. The
    speed-up is told as it was, the start of the workers included.
    """
    available = cores()
    click.echo(f"pi from {points:,} random points, in tasks of {POINTS_OF_A_TASK:,}")
    inside, alone = _timed(points, seed, workers=1)
    click.echo(_line(1, alone, inside, points))
    if available == 1:
        click.echo("There is one core to use here, so nothing to speed up; fanfold cores says why.")
        return 0
    again, together = _timed(points, seed, workers=available)
    click.echo(_line(available, together, again, points))
    same = "the same digits" if again == inside else "different digits, which is a fault: report it"
    click.echo(f"speed-up {alone / together:.2f} on {available} cores, and {same}")
    return 0 if again == inside else 1


def _timed(points: int, seed: int, workers: int) -> tuple[int, float]:
    """The points inside, and the seconds it took; one worker is this process itself."""
    from fanfold.api import map as fan_map

    whole, rest = divmod(points, POINTS_OF_A_TASK)
    tasks = [POINTS_OF_A_TASK] * whole + ([rest] if rest else [])
    place = "serial" if workers == 1 else "processes"
    began = perf_counter()
    inside = sum(fan_map(points_inside, tasks, on=place, workers=workers, seed=seed))
    return inside, perf_counter() - began


def _line(workers: int, seconds: float, inside: int, points: int) -> str:
    pi = 4 * inside / points
    who = "1 worker" if workers == 1 else f"{workers} workers"
    time = format_duration(seconds)
    return f"  {who:<10} {time:>6}  pi is about {pi:.6f}, off by {pi - math.pi:+.6f}"
