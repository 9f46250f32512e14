"""Runs cells in a kernel, as a notebook does: JSON in, what the cells show out.

It is a program of its own, for a client of a kernel leaves an event loop behind.
"""

import json
import sys
import tempfile
from pathlib import Path

from jupyter_client.manager import KernelManager


class Screen:
    """What cells print and display, in order; a display that is updated keeps its place."""

    def __init__(self):
        self.shown = []
        self.places = {}

    def hear(self, message):
        kind, content = message["msg_type"], message["content"]
        if kind == "stream" and content["name"] == "stdout":
            self.shown.append(content["text"])
        elif kind in ("display_data", "update_display_data"):
            text = content["data"].get("text/plain", "")
            name = content.get("transient", {}).get("display_id", len(self.shown))
            if self.places.setdefault(name, len(self.shown)) == len(self.shown):
                self.shown.append("")
            self.shown[self.places[name]] = text
        elif kind == "error":
            sys.exit("\n".join(content["traceback"]))


def main():
    with tempfile.TemporaryDirectory() as folder:
        manager = KernelManager(transport="ipc", ip=str(Path(folder, "kernel")))
        manager.kernel_spec.argv[0] = sys.executable
        manager.start_kernel()
        kernel = manager.blocking_client()
        kernel.start_channels()
        kernel.wait_for_ready(timeout=60)
        screen = Screen()
        try:
            for cell in json.load(sys.stdin):
                kernel.execute_interactive(cell, output_hook=screen.hear, timeout=60)
        finally:
            manager.shutdown_kernel(now=True)
        print("".join(screen.shown), end="")


if __name__ == "__main__":
    main()
