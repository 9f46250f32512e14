"""The ports that a controller of IPython engines is given."""

import socket

from fanfold.executors.ipython.ports import NEEDED, free_ports


def test_no_two_clusters_are_given_the_same():
    """Clusters that one process starts at the same time get different ports, enough for each."""
    given = [free_ports() for _ in range(20)]
    assert {len(ports) for ports in given} == {NEEDED}
    assert len({port for ports in given for port in ports}) == 20 * NEEDED


def test_they_are_not_given_to_others():
    """They are below those that Linux and macOS give to who asks for any: nobody gets them in the
    seconds until the controller listens."""
    assert all(20_000 <= port < 30_000 for port in free_ports())


def test_a_port_that_somebody_has_is_not_given(monkeypatch):
    """Where one port of a block is taken, the next block is given."""
    monkeypatch.setattr("fanfold.executors.ipython.ports._given", 0)
    first = free_ports()
    with socket.create_server(("", first[7])):
        monkeypatch.setattr("fanfold.executors.ipython.ports._given", 0)
        second = free_ports()
    assert not set(first) & set(second)
