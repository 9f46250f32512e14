"""docs/benchmarks.md, built from everything in benchmarks/results/: one section a file.

What stands in the way of a goal is written by hand in benchmarks/notes/CASE.md, and shown under
the table of that case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.cases import CASES
from benchmarks.cases.base import Case
from benchmarks.machine import ROOT
from benchmarks.summary import Figure, Rounds, Verdict, figure, ranking, ratio, verdicts

HEAD = """\
# Benchmarks

Built by `python -m benchmarks.report` from `benchmarks/results/`; do not edit.

Every measurement is a fresh driver process with one pool in it. A round goes through all contenders
in a random order; a ratio is taken within a round, and the median of the rounds is shown, with the
least and the largest in parentheses. Pools are warm, unless starting is what is measured, and every
result is compared with the right answer. No goal is left out: what is not reached says so.
"""

PREFIXES = {
    "s": ((1, " s"), (1e-3, " ms"), (1e-6, " µs")),
    "B": ((1e9, " GB"), (1e6, " MB"), (1e3, " kB")),
    "B/s": ((1e9, " GB/s"), (1e6, " MB/s"), (1e3, " kB/s")),
}


def page() -> str:
    """The whole of docs/benchmarks.md."""
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    return "\n".join([HEAD, *(section(path.stem, json.loads(path.read_text())) for path in files)])


def section(name: str, record: dict[str, Any]) -> str:
    """One run of the benchmark: its machine, its goals, and a table for every case."""
    measured = [(CASES[case], found) for case, found in record["cases"].items()]
    parts = [f"## {name}\n", about(record), goals(measured)]
    return "\n".join([*parts, *(details(case, found) for case, found in measured)])


def about(record: dict[str, Any]) -> str:
    machine, plan = record["machine"], record["plan"]
    packages = [f"{name} {version}" for name, version in machine["packages"].items() if version]
    memory = f"{machine['memory_bytes'] / 1e9:.0f} GB of memory"
    lines = [
        f"- {machine['cpu']}, {machine['cores']} cores, {memory}",
        f"- {machine['kernel']}, {machine['python']}, fanfold {machine['fanfold']}",
        f"- {', '.join(packages)}",
        f"- {record['date']}: {plan['workers']} workers, {plan['repeats']} rounds",
        f"- load average before: {record['load']}",
    ]
    if plan["size"] != "full":
        lines.append(f"- **Size {plan['size']}: a smoke test, not a measurement**")
    if record["not_installed"]:
        lines.append(f"- Not installed, so not measured: {', '.join(record['not_installed'])}")
    return "\n".join(lines) + "\n"


def goals(measured: Iterable[tuple[Case, dict[str, Any]]]) -> str:
    rows = [
        (case.title, verdict.goal.says, _found(verdict), verdict.word)
        for case, found in measured
        for verdict in verdicts(case, found["rounds"])
    ]
    return table(("work", "to reach", "measured", ""), rows)


def _found(verdict: Verdict) -> str:
    if verdict.figure is None:
        return "—"
    if verdict.against is None:
        return spread(verdict.figure, verdict.metric.unit)
    return f"{spread(verdict.figure, 'x')} {verdict.against}"


def details(case: Case, found: dict[str, Any]) -> str:
    """The table of one case, the best first; then who has no figure, and the notes."""
    rounds = found["rounds"]
    columns = [
        f"{case.subject} / this",
        *(metric.name.replace("_", " ") for metric in case.metrics),
    ]
    names = ranking(case.metrics[0], [str(entrant) for entrant in case.entrants], rounds)
    rows = [(name, *_row(case, rounds, name)) for name in names]
    failures = [f"- {name}: {reason}" for name, reason in found["failures"].items()]
    notes = [note for note in (case.note, by_hand(case)) if note]
    blocks = [f"### {case.title}", table(("", *columns), rows), "\n".join(failures), *notes]
    return "\n\n".join(block.strip() for block in blocks if block) + "\n"


def _row(case: Case, rounds: Rounds, entrant: str) -> Iterator[str]:
    compared = ratio(rounds, case.subject, entrant, case.metrics[0].name)
    yield spread(compared, "x") if compared and entrant != case.subject else ""
    for metric in case.metrics:
        yield spread(figure(rounds, entrant, metric.name), metric.unit)


def by_hand(case: Case) -> str:
    """What benchmarks/notes/ says of the case."""
    path = ROOT / "benchmarks" / "notes" / f"{case.name}.md"
    return path.read_text() if path.exists() else ""


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    head = list(header)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(figure: Figure | None, unit: str) -> str:
    """Median, least and largest: ``"1.2 ms (1.1 to 1.4)"``, or a dash."""
    if figure is None:
        return "—"
    factor, shown = scale(figure.median, unit)
    middle, low, high = (three_digits(v / factor) for v in (figure.median, figure.low, figure.high))
    return f"{middle}{shown} ({low} to {high})"


def scale(value: float, unit: str) -> tuple[float, str]:
    """What to divide by, and the unit then: 0.0123 "s" is shown as " ms"."""
    scales = PREFIXES.get(unit, ((1.0, unit),))
    return next((found for found in scales if abs(value) >= found[0]), scales[-1])


def three_digits(value: float) -> str:
    """At least three significant digits, thousands apart: 12 345, 1.23, 0.0123."""
    if abs(value) >= 100:
        return f"{value:_.0f}".replace("_", " ")
    return f"{value:.3g}"


def main() -> None:
    into = ROOT / "docs" / "benchmarks.md"
    into.write_text(page())
    print(f"{into.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
