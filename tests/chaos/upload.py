"""An upstream that does not read (F7): what a client uploads to it stays at the client."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from benchmarks.rig import Figure
from tests.chaos.setting import Peak, server
from tests.harness import RawClient, Wire, json_answer, post, running_proxy, scripted_upstream

_MIB: Final = 1 << 20
_BODY: Final = 64 * _MIB
_PIECE: Final = 64 << 10


def figures(short: bool) -> list[Figure]:
    """F7: several uploads at a time, since a process grows by some pages on its own."""
    return asyncio.run(_measure(4 if short else 16))


async def _measure(clients: int) -> list[Figure]:
    over = asyncio.Event()

    async def never_reads(wire: Wire) -> None:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()

    async def reads_once(wire: Wire) -> None:
        await wire.request()
        await wire.send(json_answer())

    async with scripted_upstream(reads_once) as upstream:
        # bodies that are inspected are read whole first; these are passed on as they come
        config = {
            "listen": {"limits": {"body": "128MiB"}, "timeouts": {"body": "60s"}},
            "servers": {"up": server(upstream.port)},
            "routes": [{"name": "raw", "path": "/raw", "servers": "up", "inspect": "none", "sessions": "passthrough"}],
        }
        with running_proxy(config) as proxy:
            await _warm(proxy.port)
            upstream.script = never_reads
            peak = Peak(proxy)
            watching = asyncio.create_task(peak.watch())
            uploads = [_Upload(await RawClient.connect(proxy.port)) for _ in range(clients)]
            running = [asyncio.create_task(upload.run()) for upload in uploads]
            before = -1
            while before != (before := sum(upload.sent for upload in uploads)):
                await asyncio.sleep(0.5)
            handed = sum(upload.sent - upload.waiting() for upload in uploads)
            held = handed - _in_kernel(proxy.pid, proxy.port, upstream.port)
            for task in (*running, watching):
                task.cancel()
            await asyncio.gather(*running, watching, return_exceptions=True)
            over.set()
    print(f"  {handed / _MIB:.1f} MiB of {clients * _BODY // _MIB} MiB were taken, most of them by the kernel")
    return [
        Figure(f"{clients} uploads of 64 MiB that nobody reads: held, each", held / clients / 1024, 256, "KiB"),
        Figure("  memory grown, each", peak.grown / clients / 1024, 1024, "KiB"),
        Figure("  whole bodies that got through to nobody", sum(upload.done for upload in uploads), 0, ""),
    ]


class _Upload:
    """One client and its body."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self.sent = 0
        self.done = False

    async def run(self) -> None:
        """Send until nothing more is taken."""
        head = post("/raw", b"").replace(b"Content-Length: 0", b"Content-Length: %d" % _BODY)
        await self._client.send(head)
        with contextlib.suppress(ConnectionError):
            while self.sent < _BODY:
                self._client.writer.write(bytes(_PIECE))
                self.sent += _PIECE
                await self._client.writer.drain()
            self.done = True

    def waiting(self) -> int:
        """Bytes that are still in this process."""
        return int(self._client.writer.transport.get_write_buffer_size())


async def _warm(port: int) -> None:
    client = await RawClient.connect(port)
    await client.send(post("/raw", bytes(_MIB)))
    await client.answer()
    await client.close()


def _in_kernel(pid: int, *ports: int) -> int:
    """Bytes that wait in the kernel, sent or not read, in all connections to or from `ports` of this machine."""
    total = 0
    for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        ends = {int(fields[at].partition(":")[2], 16) for at in (1, 2)}
        if fields[3] == "01" and ends.intersection(ports):
            unsent, unread = fields[4].split(":")
            total += int(unsent, 16) + int(unread, 16)
    return total
