"""The server of a pretend cluster: it answers commands one at a time, and lets the queue go on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fanfold.testing.cluster.dialect import Dialect
from fanfold.testing.cluster.faults import Fault
from fanfold.testing.cluster.requests import Down, Hang, InputWanted, Lost, Refusal, Reply, Request
from fanfold.testing.cluster.site import Site

__all__ = ["Server"]

_TICK = 0.02  # seconds
_LONGEST = 1 << 26  # bytes of a request: an environment, or a script

Result = TypeVar("Result")


class Server:
    """Listens at ``folder/socket``, in a thread of its own, until `close`."""

    def __init__(self, folder: Path, site: Site, dialect: Dialect) -> None:
        self._folder = folder
        self._site = site
        self._dialect = dialect
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pretend cluster", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._there = os.open(self._folder, os.O_RDONLY)
        try:
            self._socket = _listen(self._folder, self._there)
        except OSError:
            os.close(self._there)
            raise
        self._thread.start()

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Do something in the server's thread, where the books are."""

        async def do() -> Result:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result()

    def close(self) -> None:
        """Stop to listen; commands that hang end. Raises what went wrong meanwhile."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        (self._folder / "socket").unlink(missing_ok=True)
        os.close(self._there)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._socket.close()

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._connected, sock=self._socket, limit=_LONGEST)
        ticking = asyncio.create_task(self._tick())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({ticking, over}, return_when=asyncio.FIRST_COMPLETED)
        server.close()
        if ticking.done():
            ticking.result()

    async def _tick(self) -> None:
        while True:
            self._site.tick()
            await asyncio.sleep(_TICK)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            reply = await self._converse(reader, writer)
            await _say(writer, reply._asdict())
        except Hang:
            gone = asyncio.create_task(reader.read())
            over = asyncio.create_task(self._over.wait())
            await asyncio.wait({gone, over}, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the command was killed meanwhile
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Reply:
        request = Request(**json.loads(await reader.readline()))
        self._site.calls[request.name] += 1
        fault = self._fault(request.name)
        try:
            return self._answer(request, fault)
        except InputWanted:
            await _say(writer, {"read": True})
            stdin = json.loads(await reader.readline())["stdin"]
            return self._answer(request._replace(stdin=stdin), fault)

    def _fault(self, name: str) -> Fault | None:
        """The fault that this call meets, which is spent with it."""
        found = next((fault for fault in self._site.faults if fault.meets(name)), None)
        if found:
            found.times -= 1
        return found

    def _answer(self, request: Request, fault: Fault | None) -> Reply:
        try:
            if fault is None:
                return self._obey(request)
            before = set(self._site.entries)
            reply = self._obey(request) if fault.accepted else Reply()
            if fault.forgets:
                self._site.forget(set(self._site.entries) - before)
            return fault.change(reply)
        except Down:
            return self._dialect.down(self._site, request)
        except Lost:
            return self._dialect.lost(self._site, request)

    def _obey(self, request: Request) -> Reply:
        try:
            return self._dialect.commands[request.name](self._site, request)
        except Refusal as refusal:
            return refusal.reply
        except (Down, InputWanted):
            raise
        except Exception:  # a mistake in here is told to the one who called
            return Reply("", traceback.format_exc(), 70)


async def _say(writer: asyncio.StreamWriter, words: Mapping[str, Any]) -> None:
    writer.write(json.dumps(words).encode() + b"\n")
    await writer.drain()


def _listen(folder: Path, there: int) -> socket.socket:
    """A socket in the folder, whose path may be longer than the kernel allows for sockets: then it
    goes by its descriptor."""
    short = f"/proc/self/fd/{there}"
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(f"{short if os.path.isdir(short) else folder}/socket")
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening
