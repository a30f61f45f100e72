"""Blocking sockets for tests that decide byte by byte what is sent, and an upstream on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.harness import ProxyProcess, ScriptedUpstream, scripted_upstream

#: Longest wait for an answer, seconds.
ANSWER_S: Final = 20.0


class Server(threading.Thread):
    """A scripted upstream with an event loop of its own, for tests that use blocking sockets."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.upstream: ScriptedUpstream
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Event

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        async with scripted_upstream() as self.upstream:
            self._ready.set()
            await self._ended.wait()

    def __enter__(self) -> ScriptedUpstream:
        self.start()
        assert self._ready.wait(30)
        return self.upstream

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self.join(5)


class Client:
    """A blocking socket that sends bytes and reads answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""

    def send(self, raw: bytes) -> None:
        """Send, reading meanwhile what is answered; stops when the proxy has closed."""
        view = memoryview(raw)
        self.socket.setblocking(False)
        try:
            while view:
                readable, writable, _ = select.select([self.socket], [self.socket], [], ANSWER_S)
                if readable and not self.receive():
                    return
                if writable:
                    view = view[self.socket.send(view[: 256 << 10]) :]
        except (ConnectionError, BlockingIOError):
            return
        finally:
            self.socket.settimeout(ANSWER_S)

    def receive(self) -> bool:
        """Take what has come; False at the end."""
        received = self.socket.recv(1 << 16)
        self.read += received
        return bool(received)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, fields (lower-case names) and body of the next answer, which has a Content-Length."""
        while b"\r\n\r\n" not in self.read:
            assert self.receive(), f"closed after {self.read!r}"
        head, _, self.read = self.read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(fields["content-length"])
        while len(self.read) < length:
            assert self.receive(), f"closed in {self.read!r}"
        body, self.read = self.read[:length], self.read[length:]
        return int(first.split()[1]), fields, body

    def rest(self) -> bytes:
        """Everything until the proxy closes; TimeoutError when it does not."""
        with contextlib.suppress(ConnectionResetError):
            while self.receive():
                pass
        read, self.read = self.read, b""
        return read


@contextmanager
def connected(proxy: ProxyProcess) -> Iterator[Client]:
    """A connection to the proxy for the length of a `with`."""
    client = Client(proxy.port)
    try:
        yield client
    finally:
        client.socket.close()
