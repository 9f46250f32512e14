"""joblib, and with it scikit-learn, on the executors of fanfold."""

from __future__ import annotations

from fanfold.extras import need

__all__ = ["register_joblib"]


def register_joblib() -> None:
    """Teach joblib the backend "fanfold".

    Its options are ``on``, the place ("processes" when it is not given; any name or object that
    `fanfold.map` takes), and those of the executor of that place. The workers live as long as the
    ``with`` block. Raises `UsageError` when joblib is not installed.

    >>> import fanfold as ff, joblib
    >>> ff.register_joblib()
    >>> with joblib.parallel_config("fanfold", n_jobs=2, on="processes"):
    ...     joblib.Parallel()(joblib.delayed(pow)(x, 2) for x in range(5))
    [0, 1, 4, 9, 16]
    """
    need("joblib", "joblib", "the backend for joblib")
    import joblib

    from fanfold.adapters.joblib_backend import FanfoldBackend

    joblib.register_parallel_backend("fanfold", FanfoldBackend)
