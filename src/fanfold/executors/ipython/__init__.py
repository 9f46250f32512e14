"""IPython engines as an executor."""
