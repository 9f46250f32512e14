"""Maps whose evidence is taken, and what it says of each task."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fanfold.dispatch import Dispatch
from fanfold.tasks import Call, Evidence, LogRange, Outcome, Report, log_paths


@dataclass
class Ran:
    """A task: how it ended, the piece of evidence that tells of it, and what it printed."""

    outcome: Outcome
    piece: Evidence | None
    out: bytes
    err: bytes

    @property
    def error(self) -> Any:
        return self.outcome.error


@dataclass
class Maps:
    """Maps with evidence, whose log files are in ``folder``. ``events`` are those of the last."""

    folder: Path
    events: list[Any] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        return f"{self.folder}/e0-a1-"

    def __call__(
        self,
        pool: Any,
        func: Callable[..., Any],
        items: Sequence[Any],
        *,
        chunk: int | None = None,
        retries: int = 0,
        **options: Any,
    ) -> list[Ran]:
        """Run a map; its tasks in the order of their indices."""
        call = Call(func, evidence=self.prefix, **options)
        self.events.clear()
        how = {"chunk": chunk, "retries": retries, "listeners": [self.events.append]}
        self.reports = list(Dispatch(pool, call, items, **how).reports())
        ran = [
            self.ran(report, outcome) for report in self.reports for outcome in report.outcomes()
        ]
        assert sorted(one.outcome.index for one in ran) == list(range(len(items)))
        return sorted(ran, key=lambda one: one.outcome.index)

    def ran(self, report: Report, outcome: Outcome) -> Ran:
        at = bisect_right(report.evidence, outcome.index, key=lambda piece: piece.first) - 1
        piece = report.evidence[at] if report.evidence else None
        assert piece is None or outcome.index < piece.first + piece.count
        printed = (b"", b"") if piece is None else self.printed(report.worker, piece.log)
        return Ran(outcome, piece, *printed)

    def printed(self, worker: str, log: LogRange | None) -> tuple[bytes, bytes]:
        if log is None:
            return b"", b""
        ranges = ((log.out, log.out_end), (log.err, log.err_end))
        paths = log_paths(self.prefix, worker)
        return tuple(map(part, paths, ranges))

    def files(self, kind: str) -> bytes:
        """All that is in the log files of a kind, "out" or "err"."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob(f"*.{kind}")))


def part(path: str, span: tuple[int, int]) -> bytes:
    with open(path, "rb") as file:
        file.seek(span[0])
        return file.read(span[1] - span[0])


@pytest.fixture
def maps(tmp_path: Path) -> Maps:
    folder = tmp_path / "logs"
    folder.mkdir()
    return Maps(folder)
