"""Maintenance under load: of one of two servers nobody notices; of the only one everyone is told when to come back.

An operator's commands start and end it. Clients of every kind call meanwhile: with sessions, which begin anew when they
are told 404, without, and with streams: those on which nobody waits end between two events when the drain is over;
those that answer a call come to their end within it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from benchmarks.rig import Figure, conclude
from tests.harness import ROOT, ProxyProcess, RawClient, Wire, json_answer, post, running_proxy, scripted_upstream
from tests.integration.test_sessions import INITIALIZE, MODERN, MODERN_FIELDS
from tests.proofs.load import LAST_CHUNK, SSE_HEAD, chunk, event
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

TITLE: Final = "Moving to a bigger disk"
CALL: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}'
STREAMED: Final = CALL.replace(b"echo", b"stream")
DISCOVER: Final = MODERN.replace(b"tools/call", b"server/discover").replace(b'"name":"echo","arguments":{},', b"")
DISCOVER_FIELDS: Final = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: server/discover")
#: A window is put in force within a step of its loop, and what was decided before is on its way for a moment.
NOTICED_S: Final = 1.5
#: Nothing is waited for any longer.
PATIENCE_S: Final = 20.0


@dataclass(frozen=True)
class Length:
    """How much of it; times in seconds."""

    sessions: int = 16
    """Clients of each kind."""
    sessionless: int = 16
    listening: int = 100
    before_s: float = 5.0
    drain_s: float = 10.0
    drained_s: float = 15.0
    """From the end of the drain until the operator ends the window."""
    after_s: float = 5.0
    streamed_s: float = 1.0
    """What an answer takes that is a stream."""


SHORT: Final = Length(4, 4, 20, before_s=0.5, drain_s=2.5, drained_s=2.0, after_s=1.5, streamed_s=0.3)


@dataclass
class Findings:
    """What was seen of the two servers, and of the only one."""

    calls: int = 0
    failures: list[str] = field(default_factory=list)
    """Calls that came to nothing: any answer but 200, or none."""
    begun_anew: int = 0
    """Sessions that were told 404."""
    too_often: int = 0
    """Clients that were told so more than once."""
    new_at_it: int = 0
    """Requests without a session that reached the server in its window."""
    drained_at_it: int = 0
    """Requests of any kind that reached it when the drain was over."""
    back_s: float = float("inf")
    """From the end of the window until it answered again."""
    streams: int = 0
    """Listening streams of the server."""
    torn: int = 0
    """Listening streams that did not end in order, between two events."""
    still_open: int = 0
    """Streams of the server that were open five seconds after its drain, and of the other that were not open."""
    refusals: int = 0
    passed: int = 0
    """Requests to the only server that were answered in its window, of no session."""
    silent: int = 0
    """Refusals without `Retry-After` or without the title."""
    events: int = 0
    """Rows that tell of the two begins and the two ends."""
    wrong_by_s: float = 0.0
    """The most that a `Retry-After` was away from the end of the window."""


class Upstream:
    """A server that knows its own sessions only, and says who it is."""

    def __init__(self, name: str, streamed_s: float) -> None:
        self.name = name
        self.seen: list[tuple[float, bool]] = []
        """When each request came (wall time), and whether it was of a session."""
        self._known: set[bytes] = set()
        self._streamed_s = streamed_s

    async def script(self, wire: Wire) -> None:
        """One connection."""
        while request := await wire.request():
            wire.upstream.seen.clear()
            head, _, body = request.partition(b"\r\n\r\n")
            session = head.lower().partition(b"\r\nmcp-session-id: ")[2].partition(b"\r\n")[0]
            self.seen.append((time.time(), bool(session)))
            if session and session not in self._known:
                await wire.send(json_answer(b"{}", b"404 Not Found"))
            elif head.startswith(b"GET"):
                await self._tell(wire)
                return
            elif b'"stream"' in body:
                await wire.send(SSE_HEAD + chunk(event(0)))
                await asyncio.sleep(self._streamed_s)
                await wire.send(chunk(event(1)) + LAST_CHUNK)
            else:
                await self._answer(wire, body)

    async def _tell(self, wire: Wire) -> None:
        """Events, one a second, until the proxy closes."""
        await wire.send(SSE_HEAD)
        for number in itertools.count():
            await wire.send(chunk(event(number)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wire.reader.read(1), 1.0)
                return

    async def _answer(self, wire: Wire, body: bytes) -> None:
        result = json.dumps({"name": self.name}).encode()
        answer = json_answer(b'{"jsonrpc":"2.0","id":1,"result":%b}' % result)
        if b'"initialize"' in body:
            session = b"%b-%d" % (self.name.encode(), len(self._known))
            self._known.add(session)
            answer = answer.replace(b"\r\n\r\n", b"\r\nMcp-Session-Id: " + session + b"\r\n\r\n", 1)
        await wire.send(answer)


class Clients:
    """Everyone who calls."""

    def __init__(self, port: int, findings: Findings) -> None:
        self.stopped = False
        self.answers: list[tuple[float, str]] = []
        """When each call was answered, and by whom."""
        self._port = port
        self._found = findings
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, count: int, run: Callable[[], Awaitable[None]]) -> None:
        """Let so many run until all are stopped."""
        self._tasks += [asyncio.create_task(self._run(run)) for _ in range(count)]

    async def stop(self) -> None:
        """Let calls under way end."""
        self.stopped = True
        await asyncio.gather(*self._tasks)

    async def _run(self, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except (OSError, EOFError, TimeoutError) as error:
            self._found.failures.append(f"{run.__name__}: {type(error).__name__}")

    async def sessionless(self) -> None:
        """Modern calls, `server/discover`, and every tenth a call whose answer is a stream."""
        client = await RawClient.connect(self._port)
        requests = [post("/both/mcp", MODERN, *MODERN_FIELDS)] * 8
        requests += [post("/both/mcp", DISCOVER, *DISCOVER_FIELDS), post("/both/mcp", STREAMED)]
        number = 0
        while not self.stopped:
            request = requests[number % len(requests)]
            number += 1
            await client.send(request)
            self._take(await client.answer(), "without a session")
            await asyncio.sleep(0.002)
        await client.close()

    async def session(self) -> None:
        """Calls of a session, which begins anew when it is gone, as a client of the protocol does."""
        client, told, session = await RawClient.connect(self._port), 0, ""
        while not self.stopped:
            if not session:
                await client.send(post("/both/mcp", INITIALIZE))
                answered = await client.answer()
                self._take(answered, "initialize")
                session = answered[1].get("mcp-session-id", "")
            await client.send(post("/both/mcp", CALL, f"Mcp-Session-Id: {session}"))
            answered = await client.answer()
            if answered[0] == 404:
                told, session = told + 1, ""
            else:
                self._take(answered, "of a session")
            await asyncio.sleep(0.002)
        self._found.begun_anew += told
        self._found.too_often += told > 1
        await client.close()

    def _take(self, answered: tuple[int, dict[str, str], bytes], what: str) -> None:
        status, fields, body = answered
        self._found.calls += 1
        if status != 200:
            self._found.failures.append(f"{what}: {status} {body[:200]!r}")
        elif fields.get("content-type") == "text/event-stream":
            if body != event(0) + event(1):
                self._found.failures.append(f"{what}: a stream that is not whole")
        else:
            self.answers.append((time.time(), json.loads(body)["result"]["name"]))


class Listening:
    """A stream of a session on which nobody waits for an answer."""

    def __init__(self) -> None:
        self.server = ""
        self.end = ""
        """'' while it is open, then `whole` or `torn`."""

    async def run(self, port: int, opened: asyncio.Event) -> None:
        """Open it and read until it ends; who it is of is in the answer to `initialize`."""
        client = await RawClient.connect(port)
        try:
            await client.send(post("/both/mcp", INITIALIZE))
            _, fields, body = await client.answer()
            self.server = json.loads(body)["result"]["name"]
            fields_of_get = f"Accept: text/event-stream\r\nMcp-Session-Id: {fields['mcp-session-id']}"
            await client.send(f"GET /both/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields_of_get}\r\n\r\n".encode())
            await client.head()
            read = b""
            while piece := await client.chunk():
                read += piece
                opened.set()
            self.end = "whole" if read.endswith(b"\n\n") else "torn"
        except (OSError, EOFError, TimeoutError):
            self.end = "torn"
        finally:
            opened.set()
            await client.close()


@asynccontextmanager
async def proxied(length: Length) -> AsyncIterator[tuple[ProxyProcess, dict[str, Upstream], str]]:
    """A proxy with a database, two servers, and a path for both; the name of the database."""
    servers = {name: Upstream(name, length.streamed_s) for name in ("one", "two")}
    async with (
        migrated_database() as database,
        scripted_upstream(servers["one"].script) as one,
        scripted_upstream(servers["two"].script) as two,
    ):
        config: dict[str, Any] = {
            "auth": {"anonymous": True, "peppers": {1: "a pepper of the proof"}},
            "postgres": {"dsn": login_dsn(database)},
            "servers": {"one": {"url": one.url}, "two": {"url": two.url}},
            "routes": [{"name": "both", "path": "/both/mcp", "servers": ["one", "two"]}],
        }
        with running_proxy(config) as proxy:
            until = time.monotonic() + PATIENCE_S
            while not await execute(owner_dsn(database), "SELECT 1 FROM mcp_servers WHERE name = 'one'"):
                assert time.monotonic() < until, "the servers of the file got no rows"
                await asyncio.sleep(0.05)
            yield proxy, servers, database


async def command(proxy: ProxyProcess, *arguments: str) -> str:
    """What `mcp-manager maintenance ...` prints."""
    whole = (sys.executable, "-m", "proxy", "maintenance", *arguments, "-c", str(proxy.path))
    process = await asyncio.create_subprocess_exec(
        *whole, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def start(proxy: ProxyProcess, length: Length) -> tuple[float, float]:
    """Put server `one` under maintenance; begin and end."""
    arguments = ("start", "one", "--for", "1h", "--drain", f"{length.drain_s:.1f}s", "--title", TITLE, "--json")
    made = json.loads(await command(proxy, *arguments))
    begins, ends = (datetime.fromisoformat(made[name]).timestamp() for name in ("starts_at", "ends_at"))
    return begins, ends


async def until(moment: float) -> None:
    """Sleep until a wall time."""
    await asyncio.sleep(max(0.0, moment - time.time()))


async def one_of_two(proxy: ProxyProcess, servers: dict[str, Upstream], length: Length, found: Findings) -> None:
    """One server is maintained while the other goes on."""
    listening = [Listening() for _ in range(length.listening)]
    opened = [asyncio.Event() for _ in listening]
    streams = [asyncio.create_task(each.run(proxy.port, at)) for each, at in zip(listening, opened, strict=True)]
    await asyncio.wait_for(asyncio.gather(*(each.wait() for each in opened)), PATIENCE_S)
    clients = Clients(proxy.port, found)
    clients.start(length.sessions, clients.session)
    clients.start(length.sessionless, clients.sessionless)
    await asyncio.sleep(length.before_s)
    begun_at, _ = await start(proxy, length)
    drained_at = begun_at + length.drain_s
    noticed_at = time.time() + NOTICED_S
    await until(drained_at + length.drained_s)
    found.streams = sum(each.server == "one" for each in listening)
    found.still_open = sum((each.end == "") == (each.server == "one") for each in listening)
    found.torn = sum(each.end == "torn" for each in listening)
    stopping_at = time.time()
    await command(proxy, "stop", "one")
    stopped_at = time.time()
    while not any(at > stopping_at and name == "one" for at, name in clients.answers[-500:]):
        assert time.time() < stopped_at + PATIENCE_S, "the server does not come back"
        await asyncio.sleep(0.02)
    found.back_s = time.time() - stopped_at
    await asyncio.sleep(length.after_s)
    await clients.stop()
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    seen = [(at, session) for at, session in servers["one"].seen if at < stopping_at]
    found.new_at_it = sum(at > noticed_at and not session for at, session in seen)
    found.drained_at_it = sum(at > drained_at + NOTICED_S for at, _ in seen)


async def the_only_one(proxy: ProxyProcess, servers: dict[str, Upstream], length: Length, found: Findings) -> None:
    """Nobody else serves its path."""
    session = await _session(proxy)
    _, ends_at = await start(proxy, length)
    await asyncio.sleep(NOTICED_S)
    drained_at = time.time() + length.drain_s
    requests = {
        "initialize": post("/one/mcp", INITIALIZE),
        "modern": post("/one/mcp", MODERN, *MODERN_FIELDS),
        "discover": post("/one/mcp", DISCOVER, *DISCOVER_FIELDS),
        "session": post("/one/mcp", CALL, f"Mcp-Session-Id: {session}"),
        "stream": f"GET /one/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nMcp-Session-Id: {session}\r\n\r\n".encode(),
    }
    client = await RawClient.connect(proxy.port)
    await client.send(requests["session"])  # the drain lasts
    if (await client.answer())[0] != 200:
        found.failures.append("a session was refused within the drain")
    while time.time() < drained_at + length.drained_s:
        drained = time.time() > drained_at
        for kind in requests if drained else ("initialize", "modern", "discover"):
            await client.send(requests[kind])
            status, fields, body = await client.answer()
            _note(found, status, fields, body, ends_at)
        await asyncio.sleep(0.01)
    await client.close()
    await command(proxy, "stop", "one")


async def _session(proxy: ProxyProcess) -> str:
    client = await RawClient.connect(proxy.port)
    await client.send(post("/one/mcp", INITIALIZE))
    session = (await client.answer())[1]["mcp-session-id"]
    await client.close()
    return session


def _note(found: Findings, status: int, fields: dict[str, str], body: bytes, ends_at: float) -> None:
    if status != 503:
        found.passed += 1
        return
    found.refusals += 1
    told = json.loads(body)["error"]["data"]
    if not fields.get("retry-after", "").isdecimal() or (told["reason"], told.get("title")) != ("maintenance", TITLE):
        found.silent += 1
        return
    found.wrong_by_s = max(found.wrong_by_s, abs(time.time() + int(fields["retry-after"]) - ends_at))


async def run(length: Length) -> Findings:
    """Both, one after the other."""
    found = Findings()
    async with proxied(length) as (proxy, servers, database):
        await one_of_two(proxy, servers, length, found)
        await the_only_one(proxy, servers, length, found)
        found.events = await _events(database)
    return found


async def _events(database: str) -> int:
    """How many rows tell of the two begins and the two ends: they are written every few seconds."""
    query = "SELECT count(*) FROM system_events WHERE event_type IN ('maintenance_begin', 'maintenance_end')"
    last, count = time.monotonic() + PATIENCE_S, 0
    while count < 4 and time.monotonic() < last:
        await asyncio.sleep(0.1)
        count = (await execute(owner_dsn(database), query))[0][0]
    return int(count)


def figures(short: bool) -> list[Figure]:
    """What was measured against its target."""
    length = SHORT if short else Length()
    found = asyncio.run(run(length))
    for failure in found.failures[:10]:
        print(f"  ! {failure}")
    print(f"  {found.begun_anew} sessions of {length.sessions} began anew elsewhere")
    what = f"one of two maintained, {found.calls} calls, {length.listening} streams"
    return [
        Figure(f"{what}: failed", len(found.failures), 0, ""),
        Figure("  neither a session nor a stream lived there", not (found.begun_anew and found.streams), 0, ""),
        Figure("  clients whose session ended more than once", found.too_often, 0, ""),
        Figure("  new requests that reached it in its window", found.new_at_it, 0, ""),
        Figure("  requests that reached it after its drain", found.drained_at_it, 0, ""),
        Figure("  listening streams torn", found.torn, 0, ""),
        Figure("  streams of it left open, or of the other ended", found.still_open, 0, ""),
        Figure("  in use again after the end", found.back_s, 3, "s"),
        Figure("the only one maintained: no refusal was seen", not found.refusals, 0, ""),
        Figure(f"  of {found.refusals} refusals, without Retry-After or message", found.silent, 0, ""),
        Figure("  Retry-After away from the end of the window", found.wrong_by_s, 1.5, "s"),
        Figure("  requests that passed all the same", found.passed, 0, ""),
        Figure("begins and ends of windows without their event", abs(4 - found.events), 0, ""),
    ]


if __name__ == "__main__":
    sys.exit(conclude(figures("--short" in sys.argv)))
