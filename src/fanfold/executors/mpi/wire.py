"""Messages between the driver and ranks: a few buffers each, over a stream socket.

A message is the number of its parts, their lengths, and the parts; numbers are eight bytes long,
little-endian. What it holds is a parcel (see `remote/errand.py`): a pickle, and each big
buffer for itself (protocol 5), so that an array goes from its memory into the socket, and from
there into memory.

Nothing is loaded before both sides have proved that they know the secret of this crew: `greet` and
`admit` exchange nonces and their HMAC (RFC 2104) and never the secret itself.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
import socket
import struct
from typing import Any

from fanfold.executors.remote.errand import Buffer, Freight, Parcel, reader
from fanfold.executors.work.packing import pack_error
from fanfold.transport.pickling import Packed, pack, pack_function, unpack

__all__ = [
    "Stranger",
    "admit",
    "dumps",
    "dumps_error",
    "dumps_function",
    "greet",
    "loads",
    "receive",
    "send",
]

_NONCE = 32  # bytes
_PIECE = 1 << 30  # bytes; one call of the system moves less than 2 GiB
_SMALL = 1 << 16


class Stranger(Exception):  # noqa: N818 - an event of the protocol, handled where it arises
    """Whoever is at the other end does not know the secret."""


def dumps(value: object) -> Parcel:
    """A value as a parcel; raises `NotSerializable`.

    >>> loads(dumps({"mean": 1.5}))
    {'mean': 1.5}
    """
    freight = Freight()
    return [pickle.dumps(pack(value, freight.put)), *freight.buffers]


def dumps_function(*functions: Any) -> Parcel:
    """A function with its arguments as a parcel: by value where ranks cannot import its module."""
    freight = Freight()
    return [pickle.dumps(pack_function(functions, freight.put)), *freight.buffers]


def dumps_error(error: BaseException) -> Parcel:
    """An exception and the text of its traceback; what cannot be sent is a `RemoteError`."""
    freight = Freight()
    return [pickle.dumps(pack_error(error, freight.put, freight.read)), *freight.buffers]


def loads(parcel: Parcel) -> Any:
    """The value again; its big buffers are those of the parcel."""
    return unpack(Packed(*pickle.loads(parcel[0])), reader(parcel, 1, writable=True))


def send(sock: socket.socket, *parts: Buffer) -> None:
    """Send a message, waiting until all of it has left. Raises `OSError` at a broken pipe."""
    views = [memoryview(part).cast("B") for part in parts]
    head = bytearray(struct.pack(f"<{len(views) + 1}Q", len(views), *map(len, views)))
    for view in views:
        if len(head) + len(view) <= _SMALL:
            head += view
            continue
        sock.sendall(head)
        for start in range(0, len(view), _PIECE):
            sock.sendall(view[start : start + _PIECE])
        head = bytearray()
    sock.sendall(head)


def receive(sock: socket.socket) -> Parcel:
    """The next message, waiting for it. Raises `EOFError` when the other side is gone."""
    (count,) = struct.unpack("<Q", _receive_exactly(sock, 8))
    lengths = struct.unpack(f"<{count}Q", _receive_exactly(sock, 8 * count))
    return [_receive_exactly(sock, length) for length in lengths]


def _receive_exactly(sock: socket.socket, length: int) -> bytearray:
    """Exactly so many bytes; `EOFError` when they do not come."""
    content = bytearray(length)
    view, filled = memoryview(content), 0
    while filled < length:
        try:
            count = sock.recv_into(view[filled : filled + _PIECE])
        except ConnectionError:
            count = 0
        if not count:
            raise EOFError("the other side is gone")
        filled += count
    return content


def greet(sock: socket.socket, secret: bytes) -> None:
    """A rank's side: prove that it knows the secret, and that the driver does."""
    challenge = bytes(_receive_exactly(sock, _NONCE))
    mine = os.urandom(_NONCE)
    sock.sendall(mine + _proof(secret, b"rank", challenge + mine))
    if not hmac.compare_digest(_proof(secret, b"driver", mine), _receive_exactly(sock, _NONCE)):
        raise Stranger


def admit(sock: socket.socket, secret: bytes) -> None:
    """The driver's side; raises `Stranger` for whoever does not know the secret."""
    challenge = os.urandom(_NONCE)
    sock.sendall(challenge)
    answer = bytes(_receive_exactly(sock, 2 * _NONCE))
    theirs, proof = answer[:_NONCE], answer[_NONCE:]
    if not hmac.compare_digest(_proof(secret, b"rank", challenge + theirs), proof):
        raise Stranger
    sock.sendall(_proof(secret, b"driver", theirs))


def _proof(secret: bytes, side: bytes, nonces: bytes) -> bytes:
    return hmac.new(secret, side + nonces, hashlib.sha256).digest()
