"""The sessions of the documentation run in folders of their own: runs leave files there."""

import contextlib
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def apart(request: pytest.FixtureRequest) -> Iterator[None]:
    if isinstance(request.node, pytest.DoctestItem):
        with contextlib.chdir(request.getfixturevalue("tmp_path")):
            yield
    else:
        yield
