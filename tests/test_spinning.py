"""Waiting awake for a moment."""

from fanfold.transport.spinning import SpinWait, cores


def test_after_a_short_wait_the_next_is_begun_awake():
    """Where there is more than one core; a wait that took long for other reasons says nothing, so
    it is tried until one was short."""
    spin = SpinWait()
    for _ in range(10_000):
        assert spin.wait(lambda: None, lambda: "slept") == "slept"
        if spin.wait(lambda: "there", lambda: "slept") == "there":
            break
    else:
        assert cores() == 1
