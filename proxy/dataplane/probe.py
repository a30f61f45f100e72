"""Asks one server whether it lives, on a connection of its own, and leaves nothing behind there: no session, no stream.

Owns what is asked by each kind of check and which answers are those of a living server. When to ask is
`background/health_checks.py`, what follows from it `health.py`. It must not touch the pool of the traffic: a check that
waits behind requests says nothing, and one that takes a connection away from them does harm.

A refusal is an answer: whoever says 401, 403, 405 or 429 lives. Answers of the server's fault (5xx) are bad.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import ssl
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

import orjson

from proxy.dataplane import tcp
from proxy.dataplane.handshake import HEAD_BYTES, read_head
from proxy.dataplane.origin import authority_of
from proxy.dataplane.rewrite import HeaderPlan
from proxy.errors import UpstreamFailed
from proxy.mcp.revisions import MODERN

if TYPE_CHECKING:
    from proxy.config.models import Server
    from proxy.config.resilience import HealthCheck
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.resolver import Resolver

Kind = Literal["http", "mcp", "websocket", "tcp"]

_SECURE: Final = frozenset(("https", "wss"))
_REVISION: Final = MODERN[-1]
#: No session has this id. A legacy server looks it up and refuses; asked without an id it would begin a session, at
#: least for as long as it takes to see that the request is no `initialize` (mcp 1.x: for good). Modern ones ignore it.
_SESSION: Final = ("Mcp-Session-Id", "mcp-manager-health-check")
_JSON: Final = (("Accept", "application/json, text/event-stream"), ("Content-Type", "application/json"))
_DISCOVER: Final = orjson.dumps({
    "jsonrpc": "2.0",
    "id": "health-check",
    "method": "server/discover",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": _REVISION,
            "io.modelcontextprotocol/clientInfo": {"name": "mcp-manager-health-check", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
})  # fmt: skip
_DISCOVER_FIELDS: Final = (*_JSON, ("MCP-Protocol-Version", _REVISION), ("Mcp-Method", "server/discover"))
_PING: Final = b'{"jsonrpc":"2.0","id":"health-check","method":"ping"}'
#: A handshake that is never carried on needs no secret nonce (RFC 6455 section 10.3).
_KEY: Final = base64.b64encode(b"mcp-manager-ping").decode()
#: What the server makes of the key (RFC 6455 section 4.2.2).
_ACCEPT: Final = base64.b64encode(
    hashlib.sha1(_KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
).decode()
_UPGRADE: Final = (
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", _KEY),
    ("Sec-WebSocket-Protocol", "mcp"),
)  # fmt: skip
_ANY, _CLOSE = ("Accept", "*/*"), ("Connection", "close")

_PING_FRAME, _PONG, _CLOSE_FRAME = 0x89, 0x8A, 0x88
#: Most frames that a server sends before its pong.
_MOST_FRAMES: Final = 16

#: What only a modern server answers: the result of `server/discover`, or an error of that revision (B26 Error Codes).
_MODERN: Final = re.compile(rb'"supportedVersions"\s*:|"code"\s*:\s*-3202[012]\b')
#: The end of a chunked body, or of an event that says something.
_ENDED: Final = re.compile(rb"(?:^|\r\n)0\r\n\r\n\Z|data:[^\r\n]+(?:\r?\n){2}")
_BODY_BYTES: Final = 64 << 10
_BODILESS: Final = frozenset((202, 204, 304))
#: Statuses that are no server's fault: credentials, methods and limits (RFC 9110 section 15.5, RFC 6585 section 4).
_REFUSALS: Final = frozenset((401, 403, 405, 429))
#: A handshake may be refused besides for what it asks for: another subprotocol, say.
_WEBSOCKET_REFUSALS: Final = _REFUSALS | {400}


class Result(NamedTuple):
    """What one check found."""

    ok: bool
    seconds: float
    """Until the head of the answer, the pong, or the connection; until it failed, for a bad one."""
    code: int | None = None
    """HTTP status, if there was one."""
    error: str = ""
    """Why it is bad: `connect`, `tls`, `timeout`, `reset`, `malformed`, `status` or `not_mcp`."""


class _Bad(Exception):
    """The check failed; says how, as in `Result.error`."""


def kind_of(server: Server, check: HealthCheck) -> Kind:
    """How a server is asked."""
    if server.transport == "websocket":
        return "websocket" if check.kind in (None, "mcp") else check.kind
    return check.kind or "mcp"


class Probe:
    """Asks one server; remembers of which era it is, so that every check costs one request."""

    __slots__ = (
        "_address", "_check", "_new_socket", "_requests", "_resolver", "_tls", "era", "kind",
    )  # fmt: skip

    def __init__(
        self,
        server: Server,
        check: HealthCheck,
        new: tcp.NewSocket,
        tls: ssl.SSLContext | None,
        resolver: Resolver | None = None,
    ) -> None:
        """`new` decides where the server may stand, `tls` is the context for https and wss, `resolver` finds its
        addresses: those of its client."""
        url = urlsplit(server.url)
        self.kind = kind_of(server, check)
        #: `modern`, `legacy`, or '' while it is not known.
        self.era: Literal["", "modern", "legacy"] = ""
        self._check = check
        self._new_socket = new
        self._resolver = resolver
        self._tls = tls if url.scheme in _SECURE else None
        self._address = (url.hostname or "", url.port or (443 if url.scheme in _SECURE else 80))
        plan, path = HeaderPlan(server), f"{url.path or '/'}{'?' if url.query else ''}{url.query}"
        if self.kind == "mcp" and server.transport == "sse":
            self.era = "legacy"  # the transport of 2024-11-05; a POST to its stream's URL is refused
        if self.kind == "mcp":
            plain = _request("POST", path, plan, url, (*_JSON, _SESSION, _CLOSE), _PING)
        elif self.kind == "websocket":
            plain = _request("GET", path, plan, url, _UPGRADE)
        elif check.path is not None:
            plain = _request(check.method, check.path, plan, url, (_ANY, _CLOSE))
        else:  # a GET of a stream would open one
            method = "OPTIONS" if server.transport == "sse" and check.method == "GET" else check.method
            plain = _request(method, path, plan, url, (_ANY, _SESSION, _CLOSE))
        #: What goes out, by `era`.
        self._requests = dict.fromkeys(("", "modern", "legacy"), plain)
        if self.kind == "mcp":
            self._requests[""] = _request("POST", path, plan, url, (*_DISCOVER_FIELDS, _SESSION, _CLOSE), _DISCOVER)
            self._requests["modern"] = _request("POST", path, plan, url, (*_DISCOVER_FIELDS, _CLOSE), _DISCOVER)

    async def ask(self) -> Result:
        """Make the check, within its time-out. Never raises but when it is cancelled."""
        began = time.monotonic()
        code: int | None = None
        try:
            async with asyncio.timeout(self._check.timeout):
                code, seconds, error = await self._ask(began)
        except TimeoutError:
            seconds, error = time.monotonic() - began, "timeout"
        except _Bad as bad:
            seconds, error = time.monotonic() - began, str(bad)
        except (UpstreamFailed, asyncio.LimitOverrunError):
            seconds, error = time.monotonic() - began, "malformed"
        except (OSError, EOFError):
            seconds, error = time.monotonic() - began, "reset"
        return Result(not error, seconds, code, error)

    async def _ask(self, began: float) -> tuple[int | None, float, str]:
        """Status, time and what is wrong, '' for nothing."""
        reader, writer = await self._connect()
        try:
            if self.kind == "tcp":
                return None, time.monotonic() - began, ""
            writer.write(self._requests[self.era])
            code, fields = await read_head(reader)
            seconds = time.monotonic() - began
            if self.kind == "http":
                return code, seconds, self._judge_http(code)
            if self.kind == "websocket":
                error = await _ping(reader, writer, fields) if code == 101 else _judge(code, _WEBSOCKET_REFUSALS)
                return code, time.monotonic() - began, error
            return code, seconds, self._judge_mcp(code, await _read_evidence(reader, code, fields))
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            sock = await tcp.connect(*self._address, self._new_socket, self._resolver)
        except (OSError, UnicodeError):  # a name that cannot be one
            raise _Bad("connect") from None
        try:
            name = self._address[0].rstrip(".") if self._tls else None  # as in certificates
            return await asyncio.open_connection(sock=sock, limit=HEAD_BYTES, ssl=self._tls, server_hostname=name)
        except OSError:
            raise _Bad("tls" if self._tls else "connect") from None

    def _judge_http(self, code: int) -> str:
        """A page of its own must be there; the URL of MCP may answer a plain request as it likes."""
        return _judge(code, _REFUSALS) if self._check.path is not None else _judge(code, range(400, 500))

    def _judge_mcp(self, code: int, body: bytes) -> str:
        """Every refusal of the protocol's is an answer: 400 (revision, session), 404 (session), 405, 406, 415."""
        if code in _REFUSALS or code >= 500:  # says nothing of the era
            return _judge(code, _REFUSALS)
        modern = _MODERN.search(body) is not None
        if self.era == "modern" and not modern and code == 404 and b'"jsonrpc"' not in body:
            return "not_mcp"  # 2026-07-28: a 404 without an error in it comes from no MCP server
        if modern:
            self.era = "modern"
        elif code >= 400 or (code < 300 and not self.era):
            self.era = "legacy"
        return ""


def _judge(code: int, refusals: frozenset[int] | range) -> str:
    return "" if code < 400 or code in refusals else "status"


def _request(
    method: str, path: str, plan: HeaderPlan, url: SplitResult, fields: tuple[tuple[str, str], ...], body: bytes = b""
) -> bytes:
    """Head and body as they go out, with the operator's fields over ours."""
    lines = [f"{method} {path} HTTP/1.1\r\nHost: {plan.host or authority_of(url)}\r\n"]
    if body:
        lines.append(f"Content-Length: {len(body)}\r\n")
    ours = [field for field in fields if field[0].lower() not in plan.overridden]
    lines += [f"{name}: {value}\r\n" for name, value in (*ours, *plan.overrides)]
    return "".join((*lines, "\r\n")).encode() + body


async def _read_evidence(reader: asyncio.StreamReader, code: int, fields: Headers) -> bytes:
    """What tells the era: the body as it is on the wire, up to its end, its first event, or 64 KiB."""
    values = {name.lower(): value for name, value in fields}
    length = values.get("content-length", "")
    wanted = min(int(length), _BODY_BYTES) if length.isdecimal() and len(length) < 20 else _BODY_BYTES
    body = b""
    while len(body) < wanted and code not in _BODILESS and _ENDED.search(body) is None:
        piece = await reader.read(_BODY_BYTES)
        if not piece:
            break
        body += piece
    return body


# --- WebSocket ------------------------------------------------------------------------------------------------------


async def _ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: Headers) -> str:
    """Ping, wait for the pong, and say good-bye (RFC 6455 section 5.5); what the server says before is read over."""
    if [value for name, value in fields if name.lower() == "sec-websocket-accept"] != [_ACCEPT]:
        return "malformed"
    said = os.urandom(8)
    writer.write(_frame(_PING_FRAME, said))
    for _ in range(_MOST_FRAMES):
        first, length = await reader.readexactly(2)
        if length >= 126:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
        if length > HEAD_BYTES:  # also one that is masked, which a server's is not
            return "malformed"
        payload = await reader.readexactly(length)
        if first == _PONG and payload == said:
            writer.write(_frame(_CLOSE_FRAME, (1000).to_bytes(2, "big")))
            return ""
    return "malformed"


def _frame(first: int, payload: bytes) -> bytes:
    """A frame as clients send them: masked, here with zeros."""
    return bytes((first, 0x80 | len(payload), 0, 0, 0, 0)) + payload
