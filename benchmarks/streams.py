"""A client of SSE streams for the measurements: it opens one, keeps what arrives, and leaves politely or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self, cast

from benchmarks import messages


class Stream(asyncio.Protocol):
    """One request whose answer stays open. Only its first part is kept unless `on_data` is given."""

    def __init__(self, on_data: Callable[[bytes], None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[bytes] = loop.create_future()
        """The head of the answer and the first event."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """The connection is gone."""
        self._head = b""
        self._on_data = on_data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """The first event may come with the head or after it."""
        if self._on_data is not None:
            self._on_data(data)
        if not self.first.done():
            self._head += data
            if b"data: " in self._head:
                self.first.set_result(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits learns of it."""
        if not self.first.done():
            self.first.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    @classmethod
    async def open(cls, port: int, answer: str, on_data: Callable[[bytes], None] | None = None, **headers: str) -> Self:
        """Send a modern `tools/call` that asks the upstream for `answer`; does not wait for anything."""
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: cls(on_data), "127.0.0.1", port)
        fields, body = messages.call("modern")
        stream.transport.write(messages.request(port, "/demo/mcp", fields | {"X-Answer": answer} | headers, body))
        return stream


async def open_many(port: int, count: int, at_once: int = 100) -> list[Stream]:
    """Open `count` streams that send one event and then stay silent; each has sent its event on return."""
    streams: list[Stream] = []
    while len(streams) < count:
        batch = await asyncio.gather(*(Stream.open(port, "hold") for _ in range(min(at_once, count - len(streams)))))
        for first in await asyncio.wait_for(asyncio.gather(*(stream.first for stream in batch)), 30):
            if not first.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"stream refused: {first[:100]!r}")
        streams += batch
    return streams
