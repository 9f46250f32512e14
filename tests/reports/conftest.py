"""Histories made by hand and by seed, and a real browser to look at their pages."""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanfold.history import Death, Failure, History, Piece, Session

BEGAN = 1_790_000_000.0
TRACEBACK = """Traceback (most recent call last):
  File "/home/me/flights.py", line 31, in longest_delay
    rows = read(path)
  File "/home/me/flights.py", line {line}, in read
    raise {kind}({message!r})
{kind}: {message}
"""


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Not watched here: rendering starts nothing, and a browser's own processes come and go."""


def failure_of(index: int, kind: str = "ValueError", message: str = "", **given: Any) -> Failure:
    """A failure as a journal tells it."""
    message = message or f"row {17 * index} has {index % 7} columns, not 19"
    line = given.pop("line", 12)
    told = {
        "shown": f"2013-{index % 12 + 1:02}.csv",
        "traceback": TRACEBACK.format(kind=kind, message=message, line=line),
        "final": True,
        "attempt": 1,
        "writer": "e0-a1",
        "worker": "worker 0",
    }
    return Failure(index=index, kind=kind, message=message, **{**told, **given})


def death_of(index: int, **given: Any) -> Failure:
    """A task that ended its worker."""
    told = {"signal": "SIGKILL", "exitcode": -9, "phase": "run", "peak_memory": 3 << 30}
    death = Death(pid=4000 + index, out_of_memory=True, **told)
    message = f"worker {4000 + index} was killed by SIGKILL while it ran task {index}"
    log = ("reading 2013-07.csv", f"{index} rows so far", "growing the table")
    given = {"death": death, "log": log, "traceback": "", **given}
    return failure_of(index, "WorkerDied", message, **given)


def _failing(index: int, choice: float, **given: Any) -> Failure:
    if choice < 0.15:
        return death_of(index, **given)
    if choice < 0.4:
        return failure_of(
            index, "ConnectionError", f"no answer in {index % 5 + 1}.0 s", line=20, **given
        )
    return failure_of(index, **given)


def simulate(
    seed: int = 1,
    *,
    tasks: int = 20,
    workers: int = 2,
    seconds: float = 1.0,
    spread: float = 0.6,
    failing: float = 0.0,
    retries: int = 0,
    pause: float = 0.02,
    together: int = 1,
    element: int = 0,
    why: str | None = None,
    stop: int | None = None,
) -> History:
    """A run as it could have been: each free worker takes the next tasks.

    ``together`` tasks are one piece; ``stop`` is how many pieces there are before the driver ends.
    """
    chance = random.Random(seed)
    writer = f"e{element}-a1"
    history = History(
        f"flights.longest_delay-{seed}",
        f"fanfold-runs/flights.longest_delay-{seed}",
        "flights.py:longest_delay",
        tasks,
        workers,
        BEGAN,
        asked={"workers": workers, "retries": retries, "timeout": None, "seed": seed},
    )
    free = [
        (BEGAN + 0.1 * seconds * chance.random(), f"worker {number}") for number in range(workers)
    ]
    heapq.heapify(free)
    waiting = [(first, min(together, tasks - first), 1) for first in range(0, tasks, together)]
    waiting.reverse()
    while waiting and (stop is None or len(history.pieces) < stop):
        first, count, attempt = waiting.pop()
        began, worker = heapq.heappop(free)
        took = count * seconds * chance.lognormvariate(0, spread)
        ok = count > 1 or chance.random() >= failing
        peak = int(chance.gauss(310, 25) * 2**20)
        cpu = took * chance.uniform(0.85, 0.99)
        history.pieces.append(
            Piece(first, count, writer, worker, attempt, began, took, cpu, peak, ok)
        )
        heapq.heappush(free, (began + took * (1 + pause * chance.random()), worker))
        if ok:
            history.done += count
            continue
        final = attempt > retries
        told = {"final": final, "attempt": attempt, "worker": worker, "writer": writer}
        history.failures.append(_failing(first, chance.random(), **told))
        history.failed += final
        if not final:
            waiting.append((first, 1, attempt + 1))
    last = max((piece.began + piece.seconds for piece in history.pieces), default=BEGAN)
    why = why or ("failed" if history.failed else "done")
    ended = None if why in ("running", "died") else last
    history.sessions.append(Session(writer, "node17", 4711, BEGAN, ended, why))
    return history


def piece_of(
    index: int,
    worker: int = 0,
    began: float = 0.0,
    seconds: float = 1.0,
    *,
    ok: bool = True,
    **given: Any,
) -> Piece:
    """One task of a worker, ``began`` seconds after the run."""
    told = {
        "count": 1, "writer": "e0-a1", "attempt": 1, "cpu_time": seconds, "peak_memory": 100 << 20,
    }  # fmt: skip
    told.update(given)
    return Piece(
        first=index, worker=f"worker {worker}", began=BEGAN + began, seconds=seconds, ok=ok, **told
    )


def history_of(*pieces: Piece, **given: Any) -> History:
    """A run that did these pieces in one session."""
    last = max((one.began + one.seconds for one in pieces), default=BEGAN)
    told = {
        "total": sum(one.count for one in pieces),
        "done": sum(one.count for one in pieces if one.ok),
        "failed": sum(one.count for one in pieces if not one.ok),
        "workers": len({one.worker for one in pieces}),
        "sessions": [Session("e0-a1", "here", 1, BEGAN, last, "done")],
    }
    told.update(given)
    return History("run-1", "runs/run-1", "m.py:f", created=BEGAN, pieces=list(pieces), **told)


@pytest.fixture(scope="session", name="piece")
def piece_fixture() -> Callable[..., Piece]:
    return piece_of


@pytest.fixture(scope="session", name="history_of")
def history_of_fixture() -> Callable[..., History]:
    return history_of


@pytest.fixture(scope="session", name="simulate")
def simulate_fixture() -> Callable[..., History]:
    return simulate


@pytest.fixture(scope="session", name="failure_of")
def failure_of_fixture() -> Callable[..., Failure]:
    return failure_of


@pytest.fixture(scope="session", name="death_of")
def death_of_fixture() -> Callable[..., Failure]:
    return death_of


class Browser:
    """Chromium without a window, commanded through two pipes (its DevTools protocol).

    Names are resolved to nothing, so the network is refused.
    """

    LIMIT = 60.0  # seconds for any answer

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._write = self._pipe()
        self._read, answers = self._pipe()
        arguments = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
            "--disable-features=SpareRendererForSitePerProcess", "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        silent = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, silent, number) for number in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, commands, 3), (os.POSIX_SPAWN_DUP2, answers, 4)]
        environment = {**os.environ, "HOME": str(profile), "TZ": "UTC"}
        self._pid = os.posix_spawn(
            program, arguments, environment, file_actions=actions, setpgroup=0
        )
        for number in (silent, commands, answers):
            os.close(number)
        self._count = 0
        self._arrived = b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    @staticmethod
    def _pipe() -> tuple[int, int]:
        """A pipe with high numbers, so that 3 and 4 are free in the child."""
        ends = os.pipe()
        high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
        for end in ends:
            os.close(end)
        return high[0], high[1]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command; its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + self.LIMIT
        while b"\0" not in self._arrived:
            ready, _, _ = select.select([self._read], [], [], deadline - time.monotonic())
            assert ready, f"Chromium has not answered in {self.LIMIT} s"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium has ended"
            self._arrived += part
        line, _, self._arrived = self._arrived.partition(b"\0")
        return json.loads(line)

    def show(
        self,
        page: str,
        path: Path,
        *,
        width: int = 1200,
        height: int = 900,
        scheme: str = "light",
        media: str = "screen",
    ) -> None:
        """Open a page, written to ``path``, in a window of that size."""
        path.write_text(page, "utf-8")
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not self.named("Page.loadEventFired"):
            self.events.append(self._next())

    def named(self, method: str) -> list[dict[str, Any]]:
        """What has been told of a kind of event since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page (the page's policy does not bind it)."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = True) -> str:
        """The picture as PNG in base64."""
        return str(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def close(self) -> None:
        """End every process of it."""
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._read)
        os.close(self._write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; a test that needs it is skipped where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("there is no Chromium here; Debian's package is called chromium")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    try:
        yield opened
    finally:
        opened.close()
