"""The admin port answers probes and scrapes, and gives nothing away to anything else."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from proxy.admin import server as admin_server
from proxy.admin.readiness import Readiness
from proxy.admin.server import AdminServer
from proxy.metrics import Metrics
from tests.unit.dataplane.clocks import Clock


class Answer:
    """A parsed answer, and the bytes it came as."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        self.status = int(line.split()[1])
        self.headers = dict(field.split(": ", 1) for field in fields)

    def json(self) -> Any:
        assert self.headers["Content-Type"] == "application/json"
        return orjson.loads(self.body)


@asynccontextmanager
async def dialled(number: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a local port, closed in the end whatever the other side did with it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


class Port:
    """A running admin server and what it shows."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.metrics = Metrics(CollectorRegistry(), 10, lambda method: method)
        self.readiness = Readiness("config")
        self.clock = Clock()
        self.server = AdminServer(host, 0, self.metrics, self.readiness, self.clock)
        self.number = 0

    async def send(self, request: bytes) -> Answer:
        """Send these bytes and end the sending side; the answer is all that comes until the connection ends."""
        async with dialled(self.number) as (reader, writer):
            writer.write(request)
            return Answer(await asyncio.wait_for(reader.read(), 5))

    async def ask(self, path: str) -> bytes:
        """All that comes for a plain GET; b'' when the connection is cut off."""
        async with dialled(self.number) as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            with suppress(ConnectionError):
                return await asyncio.wait_for(reader.read(), 5)
            return b""

    async def get(self, path: str, *fields: str, method: str = "GET") -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost:9090", "Connection: close", *fields, "", ""]
        return await self.send("\r\n".join(lines).encode())


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    made = Port()
    made.number = await made.server.start()
    yield made
    await made.server.stop()


async def test_livez_answers_while_the_loop_runs(port: Port) -> None:
    """Alive does not depend on being ready."""
    answer = await port.get("/livez")
    assert (answer.status, answer.json()) == (200, {"status": "alive"})


async def test_livez_says_when_the_main_loop_stands_still(port: Port) -> None:
    """503 once it has not beaten for more than ten seconds, and 200 as soon as it beats again."""
    port.server.beat()
    port.clock.now += 10
    assert (await port.get("/livez")).status == 200
    port.clock.now += 0.5
    answer = await port.get("/livez")
    assert (answer.status, answer.json()) == (503, {"status": "stalled"})
    port.server.beat()
    assert (await port.get("/livez")).status == 200


async def test_readyz_says_why_it_is_not_ready(port: Port) -> None:
    """503 with every check until all are well, then 200, then 503 again while draining."""
    answer = await port.get("/readyz")
    assert answer.status == 503
    assert answer.json() == {"status": "not_ready", "checks": {"config": {"ok": False, "detail": "starting"}}}
    port.readiness.set("config", True)
    answer = await port.get("/readyz")
    assert (answer.status, answer.json()) == (200, {"status": "ready", "checks": {"config": {"ok": True}}})
    port.readiness.set("listener", False, "draining")
    assert (await port.get("/readyz")).status == 503


async def test_metrics_are_what_a_scraper_expects(port: Port) -> None:
    """The content type of the text format, and samples that parse."""
    port.metrics.server("github").observe("tools/call", "ok", 0.1, 0.1, 1, 2)
    answer = await port.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"mcp_proxy_requests", "process_resident_memory_bytes"} <= names


async def test_openmetrics_is_negotiated(port: Port) -> None:
    """`Accept` reaches the exposition."""
    answer = await port.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")


async def test_head_is_get_without_a_body(port: Port) -> None:
    """Some probes use HEAD."""
    answer = await port.get("/livez", method="HEAD")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "18")


async def test_a_query_changes_nothing(port: Port) -> None:
    """Probes may add one to get past caches."""
    assert (await port.get("/livez?verbose=1")).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/livez/", "/metrics/x", "/LIVEZ", "/%6civez", "/mcp", "/debug/pprof", "/../livez"]
)
async def test_everything_else_is_not_found(port: Port, path: str) -> None:
    """Three paths, to the letter."""
    answer = await port.get(path)
    assert (answer.status, answer.json()) == (404, {"error": {"status": 404, "reason": "not_found"}})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"])
async def test_other_methods_are_refused(port: Port, method: str) -> None:
    """405 with what is allowed."""
    answer = await port.get("/livez", method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert answer.json()["error"]["reason"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:9090", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("[::1]", 200),
        ("attacker.example", 403),
        ("attacker.example:9090", 403),
        ("localhost.attacker.example", 403),
        ("localhost:9090:80", 403),
        ("127.0.0.1.nip.io", 403),
        ("192.0.2.1", 403),
    ],
)
async def test_on_loopback_only_loopback_names_are_served(port: Port, host: str, status: int) -> None:
    """A page of the attacker's that rebinds its name to 127.0.0.1 still sends its own name."""
    request = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert (await port.send(request.encode())).status == status


async def test_elsewhere_any_host_is_served() -> None:
    """In a container the names under which probes come are unknown."""
    made = Port("0.0.0.0")
    made.number = await made.server.start()
    request = b"GET /livez HTTP/1.1\r\nHost: proxy-7f9c.pods.svc\r\nConnection: close\r\n\r\n"
    assert (await made.send(request)).status == 200
    await made.server.stop()


async def test_an_old_probe_without_a_host_is_served(port: Port) -> None:
    """HTTP/1.0 knows no Host, and no browser speaks it."""
    assert (await port.send(b"GET /livez HTTP/1.0\r\n\r\n")).status == 200


MALFORMED = [
    b"secret garbage\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nsecret field: x\r\nHost: localhost\r\n\r\n",
    b"GET /livez HTTP/9.9secret\r\n\r\n",
    b"GET /" + b"secret" * 2000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"secret" * 2000 + b"\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n" + b"X: secret\r\n" * 100 + b"\r\n",
    b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1secret\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nsecret",
]


@pytest.mark.parametrize("request_bytes", MALFORMED, ids=range(len(MALFORMED)))
async def test_malformed_requests_get_a_plain_answer(port: Port, request_bytes: bytes) -> None:
    """400 as JSON, the connection closed, nothing of the input repeated, and the next one served."""
    answer = await port.send(request_bytes)
    assert (answer.status, answer.json()) == (400, {"error": {"status": 400, "reason": "bad_request"}})
    assert b"secret" not in answer.raw
    assert (await port.get("/livez")).status == 200


async def test_a_bug_is_answered_without_its_traceback(port: Port, capfd: pytest.CaptureFixture[str]) -> None:
    """500 as JSON to the client, the traceback to the log."""

    def broken() -> int:
        raise ZeroDivisionError("a bug")

    port.metrics.dropped_lines = broken
    answer = await port.get("/metrics")
    assert (answer.status, answer.json()) == (500, {"error": {"status": 500, "reason": "internal"}})
    assert "ZeroDivisionError" not in answer.raw.decode()
    assert "ZeroDivisionError" in capfd.readouterr().out
    assert (await port.get("/livez")).status == 200


async def test_a_table_that_grows_while_it_is_read_is_read_again(port: Port) -> None:
    """The main loop may see something for the first time at any moment; the scrape is whole all the same."""
    readings = 0

    def growing() -> int:
        nonlocal readings
        readings += 1
        table = dict.fromkeys(range(3), 0)
        for key in table:
            if readings < 4:
                table[key + 10] = 0  # RuntimeError: dictionary changed size during iteration
        return readings

    port.metrics.dropped_lines = growing
    answer = await port.get("/metrics")
    assert answer.status == 200
    assert b"mcp_proxy_log_lines_dropped_total 4\n" in answer.body


async def test_scrapes_are_whole_while_another_thread_counts(port: Port) -> None:
    """New servers, methods and refusals all the time: every scrape parses, and none fails."""
    ended = threading.Event()

    def count() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            port.metrics.server(f"s{number % 10}").observe(f"m{number}", "ok", 0.1, 0.1, 1, 2)
            port.metrics.refused(f"r{number % 60}")
            port.readiness.set(f"check{number % 1000}", True)
            time.sleep(0)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for _ in range(20):
            answer = await port.get("/metrics")
            assert answer.status == 200
            assert list(text_string_to_metric_families(answer.body.decode()))
            assert (await port.get("/readyz")).status == 503
    finally:
        ended.set()
        counting.join()


async def test_it_answers_while_the_main_loop_is_blocked(port: Port) -> None:
    """It has a thread of its own: this test blocks its loop, as a stall would, and asks with a plain socket."""
    port.server.beat()
    for path in ("/livez", "/metrics"):
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port.number), timeout=20) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 10  # and not when this loop goes on, which it does not


async def test_its_thread_ends_with_it() -> None:
    """And stopping again, or without a start, is nothing."""
    before = threading.active_count()
    made = Port()
    await made.server.stop()
    await made.server.start()
    assert threading.active_count() == before + 1
    await made.server.stop()
    assert threading.active_count() == before
    await made.server.stop()


async def test_no_answer_names_the_software(port: Port) -> None:
    """Neither Server nor a version, whatever is asked."""
    answers = [await port.get("/livez"), await port.get("/x"), await port.get("/livez", method="POST")]
    answers.append(await port.send(MALFORMED[0]))
    for answer in answers:
        assert "Server" not in answer.headers
        assert b"aiohttp" not in answer.raw
        assert b"Python" not in answer.raw
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_connections_are_kept_for_the_next_scrape(port: Port) -> None:
    """One connection serves many requests."""
    async with dialled(port.number) as (reader, writer):
        for _ in range(3):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(18) == b'{"status":"alive"}'


async def test_an_unsent_body_is_not_waited_for(port: Port) -> None:
    """A request that promises a body is answered, then its connection is closed."""
    answer = await port.send(b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
    assert answer.status == 405


async def test_connections_are_capped(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the cap is cut off at once, and a place comes free again."""
    monkeypatch.setattr(admin_server, "_MAX_CONNECTIONS", 3)
    async with AsyncExitStack() as held:
        for _ in range(3):
            await held.enter_async_context(dialled(port.number))
        async with dialled(port.number) as (reader, _):
            assert await asyncio.wait_for(reader.read(), 5) == b""
    async with asyncio.timeout(5):  # the port notices a moment later that they are gone
        while not (await port.ask("/livez")).startswith(b"HTTP/1.1 200 "):
            await asyncio.sleep(0)


async def test_a_head_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline of an idle connection holds for an unfinished head too."""
    monkeypatch.setattr(admin_server, "_KEEPALIVE_S", 0.05)
    made = Port()
    made.number = await made.server.start()
    async with dialled(made.number) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHo")
        assert await asyncio.wait_for(reader.read(), 5) == b""
    await made.server.stop()


async def test_a_taken_port_is_told_to_whoever_starts(port: Port) -> None:
    """The caller turns it into an exit code."""
    second = AdminServer("127.0.0.1", port.number, port.metrics, port.readiness)
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.stop()


async def test_stop_ends_idle_connections_and_frees_the_port() -> None:
    """Nothing of the admin plane outlives its stop."""
    made = Port()
    made.number = await made.server.start()
    async with dialled(made.number) as (reader, _):
        await made.get("/livez")
        await made.server.stop()
        assert await asyncio.wait_for(reader.read(), 5) == b""
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", made.number))
