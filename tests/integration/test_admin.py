"""The admin port of a running proxy: every documented metric moves when what it counts happens."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.harness import (
    CALL,
    PATIENCE_S,
    RESULT,
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    Wire,
    free_port,
    json_answer,
    post,
    running_proxy,
    scripted_upstream,
)  # fmt: skip
from tests.proofs.load import SSE_HEAD, Clients, chunk, event, get

DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
PORT, CLOSED_PORT = free_port(), free_port()


@pytest.fixture(scope="module")
def watched() -> Iterator[ProxyProcess]:
    """A proxy with servers that work, time out, are gone, have one connection, and get copies."""
    url = f"http://127.0.0.1:{PORT}/mcp"
    config = {
        "listen": {"limits": {"connections": 40}},
        "metrics": {"max_servers": 6},
        "servers": {
            "up": {"url": url},
            "hasty": {"url": url, "timeouts": {"first_byte": "200ms"}},
            "gone": {"url": f"http://127.0.0.1:{CLOSED_PORT}/mcp"},
            "narrow": {"url": url, "pool": {"max_connections": 1}, "timeouts": {"connect": "300ms"}},
            "shadow": {"url": url},
            "sixth": {"url": url},
            "seventh": {"url": url},
            "eighth": {"url": url},
        },
        "routes": [{"name": "copied", "path": "/copied", "servers": "up", "mirror": {"server": "shadow"}}],
    }
    with running_proxy(config) as process:
        yield process


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with scripted_upstream(port=PORT) as each:
        yield each


class Moved:
    """How far a metric has moved since this object was made."""

    def __init__(self, proxy: ProxyProcess, name: str, **labels: str) -> None:
        self._read = lambda: proxy.metric(name, **labels)
        self.before = self._read()

    def by(self) -> float:
        return self._read() - self.before

    async def becomes(self, wanted: float) -> bool:
        """Whether it comes to have moved by just so much; the record is written a moment after the answer."""
        until = time.monotonic() + PATIENCE_S
        while self.by() != wanted and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return self.by() == wanted


def requests(proxy: ProxyProcess, server: str, method: str, outcome: str) -> Moved:
    return Moved(proxy, "mcp_proxy_requests_total", server=server, method=method, outcome=outcome)


async def ask(proxy: ProxyProcess, request: bytes) -> int:
    client = await RawClient.connect(proxy.port)
    try:
        await client.send(request)
        return (await client.answer())[0]
    finally:
        await client.close()


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_a_call_is_counted_timed_and_measured(watched: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """One request, its duration, its first byte, its bytes both ways."""
    count = requests(watched, "up", "tools/call", "ok")
    durations = Moved(watched, "mcp_proxy_request_duration_seconds_count", server="up")
    firsts = Moved(watched, "mcp_proxy_first_byte_seconds_count", server="up")
    seconds = Moved(watched, "mcp_proxy_first_byte_seconds_sum", server="up")
    taken = Moved(watched, "mcp_proxy_bytes_total", server="up", direction="in")
    given = Moved(watched, "mcp_proxy_bytes_total", server="up", direction="out")

    async def script(wire: Wire) -> None:
        while await wire.request():
            await asyncio.sleep(0.1)
            await wire.send(json_answer())

    upstream.script = script
    assert await ask(watched, post()) == 200
    assert await count.becomes(1)
    assert (durations.by(), firsts.by()) == (1, 1)
    assert 0.1 <= seconds.by() < PATIENCE_S
    assert (taken.by(), given.by()) == (len(CALL), len(RESULT))


async def test_the_first_event_of_a_stream_is_timed_and_the_open_stream_counted(
    watched: ProxyProcess, upstream: ScriptedUpstream, clients: Clients
) -> None:
    """The head of an SSE answer says nothing yet: the clock stops at the first event."""
    go_on = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD)
        await asyncio.sleep(0.3)
        await wire.send(chunk(event(0)))
        await go_on.wait()
        await wire.send(b"0\r\n\r\n")

    upstream.script = script
    seconds = Moved(watched, "mcp_proxy_first_byte_seconds_sum", server="up")
    counted = Moved(watched, "mcp_proxy_requests_total", server="up")
    streams = Moved(watched, "mcp_proxy_open_streams", server="up")
    in_use = Moved(watched, "mcp_proxy_pool_connections_in_use", server="up")
    running = Moved(watched, "mcp_proxy_requests_in_flight")
    await clients.started(watched.port, post())
    for gauge in (streams, in_use, running):
        assert await gauge.becomes(1)
    assert counted.by() == 0  # it counts when it ends
    go_on.set()
    assert await counted.becomes(1)
    assert 0.3 <= seconds.by() < PATIENCE_S
    for gauge in (streams, in_use, running):
        assert await gauge.becomes(0)


@pytest.mark.parametrize(
    ("request_bytes", "server", "method", "outcome", "reason"),
    [
        (post("/nowhere/mcp"), "-", "POST", "refused", "no_route"),
        (post("/up/mcp", b"{"), "-", "POST", "refused", "parse_error"),
        (post("/gone/mcp"), "gone", "tools/call", "upstream_error", "connect_failed"),
        (post(host="evil.example"), "-", "POST", "refused", "host_not_allowed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_refusal_is_counted_by_its_reason(
    watched: ProxyProcess, request_bytes: bytes, server: str, method: str, outcome: str, reason: str
) -> None:
    """As a request with its outcome, and as an answer of the proxy itself."""
    count = requests(watched, server, method, outcome)
    refusals = Moved(watched, "mcp_proxy_refusals_total", reason=reason)
    assert await ask(watched, request_bytes) >= 400
    assert await count.becomes(1)
    assert refusals.by() == 1


async def test_what_is_no_request_counts_as_a_refusal_only(watched: ProxyProcess) -> None:
    """Broken HTTP has no method and no server."""
    refusals = Moved(watched, "mcp_proxy_refusals_total", reason="bad_request")
    counted = Moved(watched, "mcp_proxy_requests_total")
    assert await ask(watched, b"GET  / HTTP/1.1\r\n\r\n") == 400
    assert (await refusals.becomes(1), counted.by()) == (True, 0)


async def test_how_a_server_fails_is_told_apart(
    watched: ProxyProcess, upstream: ScriptedUpstream, clients: Clients
) -> None:
    """Too late, a 5xx, broken off inside the answer, and a client that has left."""
    answers = {b'"late"': b"", b'"five"': json_answer(status=b"500 Oh"), b'"half"': json_answer()[:-5]}
    gone = asyncio.Event()

    async def script(wire: Wire) -> None:
        request = await wire.request()
        for name, answer in answers.items():
            if name in request and answer:
                await wire.send(answer)
                return
        await wire.reader.read()
        gone.set()

    upstream.script = script
    late = requests(watched, "hasty", "tools/call", "timeout")
    five = requests(watched, "up", "tools/call", "upstream_error")
    half = requests(watched, "up", "tools/call", "upstream_truncated")
    left = requests(watched, "up", "tools/call", "client_gone")
    assert await ask(watched, post("/hasty/mcp", CALL.replace(b"echo", b"late"))) == 504
    assert await late.becomes(1)
    assert await ask(watched, post("/up/mcp", CALL.replace(b"echo", b"five"))) == 500
    assert await five.becomes(1)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(watched, post("/up/mcp", CALL.replace(b"echo", b"half")))
    assert await half.becomes(1)
    gone.clear()
    client, seen = await clients.connect(watched.port), len(upstream.seen)
    await client.send(post())
    while len(upstream.seen) == seen:
        await asyncio.sleep(0.01)
    await client.close()
    await asyncio.wait_for(gone.wait(), PATIENCE_S)
    assert await left.becomes(1)


# --- pool, mirror, connections ----------------------------------------------------------------------------------------


async def test_the_pool_shows_connects_reuses_and_waits(watched: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """Two calls at once through a pool of one: the second waits; one that waits too long is refused."""
    release = asyncio.Event()

    async def script(wire: Wire) -> None:
        while await wire.request():
            await release.wait()
            await wire.send(json_answer())

    upstream.script = script
    moved = {name: Moved(watched, f"mcp_proxy_pool_{name}_total") for name in ("connects", "reuses", "waits")}
    busy = Moved(watched, "mcp_proxy_refusals_total", reason="pool_exhausted")
    assert watched.metric("mcp_proxy_pool_connections_limit", server="narrow") in (0, 1)  # 0: not shown before traffic
    first = asyncio.create_task(ask(watched, post("/narrow/mcp")))
    while not upstream.open:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(ask(watched, post("/narrow/mcp")))
    assert await moved["waits"].becomes(1)
    release.set()
    assert (await first, await second) == (200, 200)
    assert (moved["connects"].by(), moved["reuses"].by(), moved["waits"].by()) == (1, 1, 1)
    assert watched.metric("mcp_proxy_pool_connections_limit", server="narrow") == 1
    release.clear()
    held = asyncio.create_task(ask(watched, post("/narrow/mcp")))
    while len(upstream.seen) < 3:
        await asyncio.sleep(0.01)
    assert await ask(watched, post("/narrow/mcp")) == 503
    release.set()
    assert await held == 200
    assert (busy.by(), moved["waits"].by()) == (1, 2)


async def test_a_mirrored_request_counts_once_and_its_copy_apart(
    watched: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """The copy is no request of a client."""
    copies = Moved(watched, "mcp_proxy_mirror_copies_total")
    to_shadow = Moved(watched, "mcp_proxy_requests_total", server="shadow")
    count = requests(watched, "up", "tools/call", "ok")
    assert await ask(watched, post("/copied")) == 200
    assert await count.becomes(1)
    assert (await copies.becomes(1), to_shadow.by()) == (True, 0)


async def test_client_connections_are_counted(watched: ProxyProcess, clients: Clients) -> None:
    """Open now, accepted ever, refused above the cap."""
    names = ("open", "accepted_total", "refused_total")
    opened, accepted, surplus = (Moved(watched, f"mcp_proxy_connections_{name}") for name in names)
    for _ in range(45):
        await clients.connect(watched.port)
    assert await accepted.becomes(45)
    assert surplus.by() >= 5
    await clients.close()
    async with asyncio.timeout(PATIENCE_S):
        while watched.metric("mcp_proxy_connections_open"):
            await asyncio.sleep(0.02)
    assert opened.by() <= 0


# --- labels -----------------------------------------------------------------------------------------------------------


def labels_in(text: str) -> set[str]:
    """Every value of a label."""
    return set(re.findall(r'="([^"]*)"', text))


async def test_a_thousand_invented_methods_and_paths_are_one_label(
    watched: ProxyProcess, upstream: ScriptedUpstream, clients: Clients
) -> None:
    """Nothing that a client makes up becomes a label: not a method, a tool, a path, nor an HTTP method."""
    invented = Moved(watched, "mcp_proxy_requests_total", server="up", method="other")
    assert (await ask(watched, post()), await ask(watched, post("/name/mcp"))) == (200, 404)
    before = labels_in(watched.admin("/metrics"))
    client = await clients.connect(watched.port)
    for number in range(1000):
        body = CALL.replace(b"tools/call", b"made/up%d" % number).replace(b"echo", b"tool%d" % number)
        path = "/up/mcp" if number % 10 else f"/name{number}/mcp"
        await client.send(post(path, body))
        assert (await client.answer())[0] == (200 if number % 10 else 404)
    assert await invented.becomes(900)
    assert "made/up" not in (text := watched.admin("/metrics"))
    assert "name10" not in text
    assert len(labels_in(text) - before) < 5


async def test_servers_above_the_cap_share_a_label(watched: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """`metrics.max_servers` is 6 here and there are eight."""
    others = requests(watched, "other", "tools/call", "ok")
    for name in ("seventh", "eighth"):
        assert await ask(watched, post(f"/{name}/mcp")) == 200
    assert await others.becomes(2)
    assert 'server="seventh"' not in watched.admin("/metrics")


async def test_methods_of_http_and_posted_answers_have_labels(
    watched: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """GET and DELETE where there is no message, `response` for what a client answers."""
    gets, deletes = requests(watched, "up", "GET", "ok"), requests(watched, "up", "DELETE", "ok")
    responses = requests(watched, "up", "response", "ok")
    assert await ask(watched, get()) == 200
    assert await ask(watched, get().replace(b"GET", b"DELETE")) == 200
    assert await ask(watched, post("/up/mcp", b'{"jsonrpc":"2.0","id":1,"result":{}}')) == 200
    assert await gets.becomes(1)
    assert (deletes.by(), await responses.becomes(1)) == (1, True)


# --- the process ------------------------------------------------------------------------------------------------------


async def test_the_operating_paths_are_not_on_the_data_port(watched: ProxyProcess) -> None:
    """404 there, as for any path that leads nowhere."""
    for path in ("/metrics", "/livez", "/readyz"):
        assert await ask(watched, get(path)) == 404


async def test_probes_say_alive_and_ready(watched: ProxyProcess) -> None:
    """With every check by name."""
    assert json.loads(watched.admin("/livez")) == {"status": "alive"}
    ready = json.loads(watched.admin("/readyz"))
    assert ready["status"] == "ready"
    assert {"config", "listener"} <= ready["checks"].keys()
    assert all(check["ok"] for check in ready["checks"].values())


async def test_reloads_show_generation_time_and_result() -> None:
    """A good one raises the generation and sets the time, a bad one only counts as an error."""
    async with scripted_upstream() as upstream:
        config = {"servers": {"up": {"url": upstream.url}}}
        with running_proxy(config) as proxy:
            stamp = "mcp_proxy_config_last_reload_success_timestamp_seconds"
            assert proxy.metric("mcp_proxy_config_generation") == 1
            began = proxy.metric(stamp)
            await asyncio.to_thread(proxy.reload, config)
            after = proxy.metric(stamp)
            assert proxy.metric("mcp_proxy_config_generation") == 2
            assert after > began > 1.7e9
            await asyncio.to_thread(proxy.reload, {"servers": {}})
            assert proxy.metric("mcp_proxy_config_generation") == 2
            assert proxy.metric(stamp) == after
            assert proxy.metric("mcp_proxy_config_reloads_total", result="ok") == 2
            assert proxy.metric("mcp_proxy_config_reloads_total", result="error") == 1


async def test_background_loops_run_and_succeed(watched: ProxyProcess) -> None:
    """Each loop makes steps, and none fails."""
    runs = Moved(watched, "mcp_proxy_loop_runs_total", loop="downstream deadlines")
    async with asyncio.timeout(PATIENCE_S):
        while runs.by() < 3:
            await asyncio.sleep(0.05)
    assert watched.metric("mcp_proxy_loop_failures_total") == 0
    assert watched.metric("mcp_proxy_loop_last_success_timestamp_seconds", loop="downstream deadlines") > 1.7e9
    assert watched.metric("mcp_proxy_record_failures_total") == 0
    assert watched.metric("mcp_proxy_log_lines_dropped_total") == 0
    assert watched.metric("mcp_proxy_build_info") == 1
    assert watched.metric("process_resident_memory_bytes") > 1 << 20


def test_the_manual_lists_every_metric_and_no_other(watched: ProxyProcess) -> None:
    """`docs/operations.md` against what the port shows, in both formats; what needs PostgreSQL or a collector shows
    where there is one."""
    alone = r"mcp_proxy_(?!postgres_|spool_|record_(?!failures)|retention_|trace_)\w+"
    documented = set(re.findall(rf"^\| `({alone})` \|", DOCS.read_text(), re.M))
    text = watched.admin("/metrics")
    assert documented == set(re.findall(rf"^# TYPE ({alone})", text, re.M))
    asked = Request(
        f"http://127.0.0.1:{watched.admin_port}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
    )
    with urlopen(asked, timeout=5) as answer:
        body = answer.read().decode()
    assert body.endswith("# EOF\n")
    plain = {name.removesuffix("_total") for name in documented}
    assert plain == set(re.findall(r"^# TYPE (mcp_proxy_(?!postgres_)\w+)", body, re.M))
