"""Dask as an executor."""
