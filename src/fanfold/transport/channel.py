"""Framed messages over a socket pair: one private channel per worker.

A frame is eight bytes of length, little-endian, and the message. Death of the other side is the end
of file, nothing else; there are no locks or queues between processes.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

from fanfold.transport.spinning import SpinWait

__all__ = ["Channel", "ChannelClosed"]

_HEADER = struct.Struct("<Q")
_READ_SIZE = 1 << 16


class ChannelClosed(Exception):  # noqa: N818 - an event of the protocol, handled where it arises
    """The other side is gone."""


class Channel:
    """One end of a socket pair.

    Workers `send` and `receive`, which wait. The driver uses `post` and `receive_available`, which
    do not: what the socket does not take waits in an outbox until `flush`, so that a worker that
    stopped reading (SIGSTOP) never stops the driver.

    ``read(buffer, flags)`` replaces ``recv_into`` for whoever must see more than the bytes.

    >>> left, right = socket.socketpair()
    >>> a, b = Channel(left), Channel(right)
    >>> a.post(b"one"); a.post(b"two")
    True
    True
    >>> b.receive(), b.receive_available()
    (b'one', [b'two'])
    >>> a.close(); b.close()
    """

    def __init__(
        self, sock: socket.socket, read: Callable[[bytearray, int], int] | None = None
    ) -> None:
        self._socket = sock
        self._read_into = read or self._receive_into
        self._buffer = bytearray(_READ_SIZE)  # made once: a fresh one costs more than the read
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._spin = SpinWait()

    def fileno(self) -> int:
        return self._socket.fileno()

    @staticmethod
    def frame(message: bytes) -> bytes:
        """The message as it is on the wire."""
        return _HEADER.pack(len(message)) + message

    def send(self, message: bytes) -> None:
        """Send, waiting until all of it has left. Raises `OSError` when the other side is gone."""
        self._socket.sendall(self.frame(message))

    def post(self, message: bytes) -> bool:
        """Send without waiting; True when all of it has left, else call `flush` when writable.

        A dead receiver is not an error here: it is seen, and handled once, when reading.
        """
        self._outbox += _HEADER.pack(len(message))
        self._outbox += message
        return self.flush()

    def flush(self) -> bool:
        """Send what the socket takes of the outbox; True when it is empty."""
        while self._outbox:
            try:
                sent = self._socket.send(self._outbox[:_READ_SIZE], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:  # broken pipe: reading will tell
                sent = len(self._outbox)
            del self._outbox[:sent]
        return True

    def receive(self) -> bytes:
        """The next message, waiting for it. Raises `ChannelClosed` at the end of file."""
        while (message := self._next()) is None:
            self._spin.wait(self._read_now, self._read)
        return message

    def _read_now(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return self._read(socket.MSG_DONTWAIT)
        return False

    def receive_available(self) -> list[bytes]:
        """The whole messages that have arrived, without waiting.

        Raises `ChannelClosed` at the end of file, once everything before it has been returned.
        """
        messages: list[bytes] = []
        self._read_now()
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _read(self, flags: int = 0) -> bool:
        try:
            size = self._read_into(self._buffer, flags)
        except ConnectionError:
            size = 0
        if not size:
            raise ChannelClosed
        self._inbox += memoryview(self._buffer)[:size]
        return True

    def _receive_into(self, buffer: bytearray, flags: int) -> int:
        return self._socket.recv_into(buffer, 0, flags)

    def _next(self) -> bytes | None:
        if len(self._inbox) < _HEADER.size:
            return None
        end = _HEADER.size + _HEADER.unpack_from(self._inbox)[0]
        if len(self._inbox) < end:
            return None
        message = bytes(memoryview(self._inbox)[_HEADER.size : end])
        del self._inbox[:end]
        return message

    def close(self) -> None:
        self._socket.close()
