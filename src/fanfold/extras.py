"""Libraries that an extra of fanfold installs: what to say where one of them is missing."""

from __future__ import annotations

from fanfold.errors import UsageError

__all__ = ["missing", "need"]


def missing(library: str, extra: str, what: str) -> UsageError:
    """The error that ``what`` cannot be done without a library, with the command that installs it.

    >>> print(missing("h5py", "arrays", "reading HDF5 files"))
    reading HDF5 files needs h5py: pip install "fanfold[arrays]"
    """
    return UsageError(f'{what} needs {library}: pip install "fanfold[{extra}]"')


def need(module: str, extra: str, what: str) -> None:
    """Raises `UsageError` with the remedy when a library that ``what`` needs is not installed.

    >>> need("math", "mpi", 'on="mpi"')
    """
    from importlib.util import find_spec  # late: workers need none of this

    if find_spec(module) is None:
        raise missing(module, extra, what)
