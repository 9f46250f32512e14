"""Execute a notebook where it lies, in a process of its own: its kernel ends with it.

python execute.py NOTEBOOK
"""

import sys
from pathlib import Path


def execute(path: Path) -> None:
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=100, resources=place, record_timing=False).execute()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
