"""Install a wheel with each extra alone, in an environment of its own, and use what it promises.

    python tools/extras.py dist/fanfold-0.1.0-py3-none-any.whl [EXTRA...]

It takes some minutes, and a network (or a cache of pip) to install from.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

DATA = str(Path(__file__).with_name("flight_data.py"))  # reads it, and imports nothing
MAP = "assert ff.map(abs, [-1, -2], on={!r}, workers=2) == [1, 2]"
PROMISES = {
    "mpi": MAP.format("mpi"),
    "dask": f"import dask_jobqueue; {MAP.format('dask')}",
    "ipython": MAP.format("ipyparallel"),
    "joblib": "import joblib; ff.register_joblib(); "
    "assert joblib.Parallel(2, 'fanfold')([joblib.delayed(abs)(-1)]) == [1]",
    "arrays": "import h5py, numexpr, zarr, numpy as np; "
    "zarr.save('numbers.zarr', np.arange(10.0)); assert ff.Blocks('numbers.zarr').sum() == 45",
    "cuda": "import cupy",  # whether there is a GPU is not the wheel's business
    "plot": "ff.scaling(abs, [1, 2], workers=[1], repeats=1).plot('speed-up.svg')",
    "demo": "import runpy, sys; sys.argv[1:] = ['data']; "
    f"runpy.run_path({DATA!r}, None, '__main__')",
    "docs": "import material, mkdocs, mkdocstrings",
    "all": "import dask_jobqueue, h5py, ipyparallel, joblib, matplotlib, mpi4py, numexpr, zarr",
}


def check(wheel: Path, extra: str, folder: Path) -> None:
    """A new environment with the wheel and one extra; raises when the promise is not kept."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--python", python, "install", f"{wheel}[{extra}]"], check=True)
    use = f"import fanfold as ff\nif __name__ == '__main__':\n    {PROMISES[extra]}"
    (folder / "use.py").write_text(use)
    subprocess.run([python, "use.py"], cwd=folder, check=True, timeout=120)


def main() -> int:
    wheel, *extras = sys.argv[1:]
    failed = 0
    for extra in extras or PROMISES:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fanfold-extra-") as folder:
            try:
                check(Path(wheel).resolve(), extra, Path(folder))
                word = "works"
            except subprocess.SubprocessError as error:
                failed, word = 1, f"FAILED: {error}"
        print(f"fanfold[{extra}] alone: {word} ({time.monotonic() - began:.0f} s)", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
