"""The pretend cluster: what it prints, against what real ones printed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from fanfold.testing.cluster import Cluster
from fanfold.testing.cluster.pbs.printing import Row, as_json

TRANSCRIPTS = Path(__file__).parent / "transcripts"
REPLAYED = sorted(TRANSCRIPTS.glob("*/replayed/*.txt"))

# What differs from time to time, and what stands for it.
VOLATILE = (
    (r"(cpupercent\W+)\d+", r"\1N"),
    (r'\n\s*"?session_id.*', ""),  # PBS learns it late
    (r"pbshost/\d", "pbshost/N"),
    (r'\n\t*"PBS_O_INTERACTIVE_.*', ""),  # the qsub that was recorded is newer than its server
    (r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}", "CTIME"),
    (r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d at \d\d:\d\d", "MOMENT"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "TIME"),
    (r"\b17\d{8}\b", "EPOCH"),
    (r"\b00:00:\d\d\b", "CLOCK"),
    (r"\b(?:23:59:\d\d|1-CLOCK)\b", "DAY"),
    (r"\b0:0\d\b|(?<=[ |])0:[1-5]\d(?=[ |])", "M:SS"),  # at the end of a line it is a signal
    (r"\b(?:42949\d{5}|0\.9999\d{10})\b", "PRIORITY"),
    (r"\d+kb\b", "SIZE"),
    (r"\b(?:n\d|n\[1-4\])(?=[:|\s]|$)", "NODE"),
    (r"by (?:1001|\d+)\b", "by UID"),
    (r"alice\(\d+\)", "alice(UID)"),
    (r"Sid=localhost:\d+", "Sid=localhost:SID"),
    (r"(?m)(?:CLOCK|       0) (?=[RE] )", "   CLOCK "),
)


class Step(NamedTuple):
    """A command of a transcript and its answer; or a stage direction (``#: ...``)."""

    command: str
    out: str = ""
    err: str = ""
    code: int = 0


def steps(text):
    for block in re.split(r"^(?=\$ |#: )", text, flags=re.MULTILINE)[1:]:
        if block.startswith("#: "):
            yield Step(block.partition("\n")[0])
            continue
        command, _, rest = block[2:].partition("\n")
        printed, code = re.split(r"^\[exit (\d+)\]$", rest, maxsplit=1, flags=re.MULTILINE)[:2]
        out, *err = re.split(r"^\[stderr\]\n", printed, maxsplit=1, flags=re.MULTILINE)
        out = out.removesuffix("[no newline at end of stdout]\n")
        yield Step(command, out, "".join(err), int(code))


class Stage:
    """A cluster as the transcripts were recorded on, and what happens there."""

    def __init__(self, dialect):
        self.dialect = dialect
        self.home = Path(tempfile.mkdtemp(prefix="", dir="/tmp"))
        self.folder = self.home / "de"  # as long as /home/alice/demo, for qstat folds lines
        self.folder.mkdir()
        self.gate = self.home / "gate.sh"
        self.open = self.home / "open"
        self.gate.write_text(
            f'[ "$1" = 0 ] && exit; touch {self.home}/reached; '
            f"while [ ! -e {self.open} ]; do /bin/sleep 0.02; done\n"
        )
        self.cluster = None
        self.omitted = "(?!)"

    def close(self):
        if self.cluster:
            self.cluster.__exit__(None, None, None)
            self.cluster = None

    def run(self, command):
        """Run a line as alice would, in her folder."""
        paths = self.cluster.bin.iterdir()
        known = "".join(f'{path.name}() {{ {path} "$@"; }}\n' for path in paths)
        return subprocess.run(
            ["bash", "-c", known + command],
            cwd=self.folder,
            env={**ALICE, "HOME": str(self.home)},
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=60,
        )

    def direct(self, verb, *rest):
        """Obey a stage direction."""
        if verb == "cluster":
            self.close()
            limits = {**USUAL[self.dialect], "grace": 2.0}
            pairs = (word.partition("=") for word in " ".join(rest).split())
            limits.update((name, json.loads(value)) for name, _, value in pairs)
            place = self.home / f"cluster-{time.monotonic_ns()}"
            self.cluster = Cluster(place, self.dialect, **limits).__enter__()
        elif verb == "wait":
            self.cluster.wait(*rest[0].split())
        elif verb == "open":
            self.open.touch()
        elif verb == "close":
            self.open.unlink()
        elif verb == "run":
            self.run(rest[0])
        elif verb == "omit":
            self.omitted = rest[0]
        else:
            getattr(self.cluster, verb)(*rest)

    def write_script(self, step):
        """Write what a transcript shows of a script; where it sleeps, it waits at the gate."""
        text = re.sub(r"\bsleep (\S+)", f"sh {self.gate} \\1", step.out)
        (self.folder / step.command.split()[-1]).write_text(text)

    def plain(self, text):
        """What somebody printed, without what differs from time to time."""
        text = text.replace(str(self.folder), "DEMO").replace(str(self.home), "HOME")
        text = re.sub(r"/home/alice/[\w-]+", "DEMO", text).replace("/home/alice", "HOME")
        for pattern, standing in VOLATILE:
            text = re.sub(pattern, standing, text)
        lines = text.splitlines()
        return "\n".join(line for line in lines if not re.search(self.omitted, line))


USUAL = {
    "pbs": {"nodes": ["pbshost"], "cores": 8, "memory": 16384, "host": "pbshost"},
    "slurm": {"host": "fan"},
}
ALICE = {"LOGNAME": "alice", "USER": "alice", "LANG": "C.UTF-8", "SHELL": "/bin/bash"}
ALICE["PATH"] = "/opt/pbs/bin:/usr/local/bin:/usr/bin:/bin"


@pytest.fixture
def stage(request, monkeypatch):
    monkeypatch.setenv("LOGNAME", "alice")
    stage = Stage(request.param)
    yield stage
    stage.close()
    shutil.rmtree(stage.home)


@pytest.mark.parametrize(
    ("stage", "path"),
    [pytest.param(path.parts[-3], path, id=f"{path.parts[-3]}-{path.stem}") for path in REPLAYED],
    indirect=["stage"],
)
def test_replayed(stage, path):
    """The same commands print what they printed on a real cluster, and end with the same status."""
    for step in steps(path.read_text("utf-8")):
        if step.command.startswith("#: "):
            stage.direct(*step.command[3:].split(" ", maxsplit=1))
        elif re.fullmatch(r"cat [\w.]+\.sh", step.command):
            stage.write_script(step)
        else:
            found = stage.run(step.command)
            said = Step(step.command, stage.plain(found.stdout), stage.plain(found.stderr))
            expected = step._replace(out=stage.plain(step.out), err=stage.plain(step.err))
            assert said._replace(code=found.returncode) == expected


RAW = sorted((TRANSCRIPTS / "pbs" / "raw").glob("array-*.json"))


@pytest.mark.parametrize("path", RAW, ids=lambda path: path.stem)
def test_json(path):
    """JSON of PBS 23.06.06 comes out byte by byte as it was recorded."""
    recorded = path.read_text("utf-8")
    document = dict(json.loads(recorded, object_pairs_hook=tuple))
    rows = [Row(name, dict(attributes)) for name, attributes in document.pop("Jobs")]
    assert as_json(document, rows, "23.06.06") == recorded
