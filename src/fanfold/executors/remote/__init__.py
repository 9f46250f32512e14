"""The base of engines that run workers of their own: MPI, Dask, IPython, interpreters."""
