"""One request and its answer, for tests that look at single answers rather than at connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

import orjson

from tests.harness import CALL, PATIENCE_S, RawClient, Wire, post

SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Answered(NamedTuple):
    """What came back."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        """The word of the proxy's own refusal; '' for an answer of the upstream."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(orjson.loads(self.body)["error"]["data"]["reason"])
        return ""


async def ask(port: int, request: bytes) -> Answered:
    """The answer to one request on a connection of its own."""
    client = await RawClient.connect(port)
    try:
        await client.send(request)
        return Answered(*await client.answer())
    finally:
        await client.close()


def get(path: str, *fields: str, method: str = "GET", host: str = "127.0.0.1") -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]).encode() + b"\r\n\r\n"


def numbered(number: int, path: str = "/up/mcp", *fields: str) -> bytes:
    """A call with this id."""
    return post(path, CALL.replace(b'"id":1,', b'"id":%d,' % number), *fields)


def id_of(request: bytes) -> int:
    """The id of such a call, as the upstream saw it."""
    return int(request.rpartition(b'"id":')[2].split(b",")[0])


def fields_of(request: bytes) -> list[tuple[str, str]]:
    """The header fields that the upstream saw, in order."""
    lines = request.split(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def values(request: bytes, name: str) -> list[str]:
    """The values of one header field that the upstream saw."""
    return [value for each, value in fields_of(request) if each.lower() == name.lower()]


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def event(number: int) -> bytes:
    return b'event: message\ndata: {"n":%d}\n\n' % number


async def hang(wire: Wire) -> None:
    """Read the request and never answer; ends when the proxy closes."""
    await wire.request()
    await wire.reader.read()


async def soon(condition: asyncio.Event, seconds: float = PATIENCE_S) -> None:
    """Fail unless it happens in time."""
    async with asyncio.timeout(seconds):
        await condition.wait()
