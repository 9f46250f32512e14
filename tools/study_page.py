"""Measure the studies of docs/guides/scaling-study.md anew: what they print, and their pictures.

    python tools/study_page.py [NAME ...]     in a quiet hour; NAME is pi or flights, by default all

Each block of the page that begins with `$ fanfold scale examples/NAME.py` is run again as it
stands, and replaced by what it prints; docs/pictures/scaling-NAME.svg is drawn. The sentences
around the blocks tell their numbers: read them afterwards.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "guides" / "scaling-study.md"
BLOCK = re.compile(r"```\n\$ (fanfold scale examples/(\w+)\.py[^\n]*)\n.*?```", re.DOTALL)


def measured(command: str, name: str) -> str:
    """What the command prints; it also draws the picture."""
    picture = f"docs/pictures/scaling-{name}.svg"
    fanfold = f'"{sys.executable}" -m fanfold'
    line = command.replace("fanfold", fanfold, 1) + f" --plot {picture}"
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.rstrip()


def main(names: list[str]) -> None:
    subprocess.run([sys.executable, "tools/flight_data.py", "demo-data"], cwd=ROOT, check=True)

    def again(block: re.Match[str]) -> str:
        command, name = block.groups()
        if names and name not in names:
            return block[0]
        return f"```\n$ {command}\n{measured(command, name)}\n```"

    PAGE.write_text(BLOCK.sub(again, PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
