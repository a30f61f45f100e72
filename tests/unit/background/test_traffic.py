"""Requests are summed up beside the requests: by tenant and server for whoever watches, by minute for the database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from proxy.background import traffic as module
from proxy.background.recent import SLOT_S
from proxy.background.sums import OTHER_TOOLS, KeySum, Sum
from proxy.background.traffic import Traffic
from proxy.dataplane.context import RequestContext
from proxy.dataplane.tally import Tally
from proxy.identity.access import Server
from proxy.identity.principal import Principal, Source
from proxy.identity.records import SYSTEM_TENANT
from tests.unit.dataplane.asked import ask, snapshot, somebody

SNAPSHOT = snapshot({"up": "http://up.test/mcp", "other": "http://other.test/mcp"})
ADA = replace(somebody("key:ada", "t-acme"), key_id="adaadaadaada", source=Source.KEY)
BOB = replace(somebody("user:bob", "t-zeta"), key_id="bob", source=Source.SESSION)
MINUTE = 30_000_000
BODY = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":{"name":"%b"}}'


class Rows:
    """Keeps what is handed over."""

    def __init__(self) -> None:
        self.servers: list[tuple[str, int, Sum, int]] = []
        self.keys: list[tuple[str, str, str, int, KeySum]] = []
        self.tenants: list[tuple[str, int, Sum]] = []

    def add_server(self, place: Server, minute: int, total: Sum, open_streams: int) -> None:
        self.servers.append((place.name, minute, total, open_streams))

    def add_key(self, *of_key: Any) -> None:
        self.keys.append(of_key)

    def add_tenant(self, *of_tenant: Any) -> None:
        self.tenants.append(of_tenant)


class Watched:
    """A traffic and its time. Both clocks go alike; they began apart."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.set_back = 0.0
        self.rows = Rows()
        self.tally = Tally()
        rows: Any = self.rows
        self.traffic = Traffic(
            self.tally, rows, lambda: SNAPSHOT.upstreams, lambda *tool: tool == ("up", "tool", "echo"),
            lambda: self.now, lambda: self.now - 1000 - self.set_back + MINUTE * 60,
        )  # fmt: skip

    def ended(self, ctx: RequestContext, outcome: str = "ok", s: float = 0.1) -> None:
        """A request that took so long ends now."""
        ctx.started_at = self.now - s
        self.tally.count(ctx, outcome, s)

    async def after(self, seconds: float) -> None:
        """Time goes by in steps."""
        self.now += seconds
        await self.traffic.step()

    def value(self, metric: str, tenant: str = "", server: str = "", window_s: float = 60) -> float | None:
        """What it says now."""
        return self.traffic.value(metric, tenant, server, window_s)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def asked(
    server: str = "up",
    principal: Principal = ADA,
    status: int = 200,
    method: bytes = b"tools/call",
    tool: bytes = b"echo",
) -> RequestContext:
    """A request that was sent to a server, of 100 bytes and an answer of 10; '' for one that came to none."""
    ctx = ask(SNAPSHOT, "/up/mcp", body=BODY % (method, tool))
    ctx.principal, ctx.status, ctx.bytes_in, ctx.bytes_out = principal, status, 100, 10
    ctx.upstream = SNAPSHOT.upstreams[server] if server else None
    return ctx


def got() -> RequestContext:
    """A GET that was sent to a server."""
    ctx = ask(SNAPSHOT, "/up/mcp", method="GET")
    ctx.principal, ctx.upstream = ADA, SNAPSHOT.upstreams["up"]
    return ctx


async def test_values_are_those_of_tenant_and_server(watched: Watched) -> None:
    """'' for all of them; nothing is known of what had no requests."""
    for server, principal, status in (("up", ADA, 200), ("up", ADA, 503), ("other", ADA, 200), ("", BOB, 401)):
        watched.ended(asked(server, principal, status), "refused" if status == 401 else "ok")
    await watched.after(30)
    assert watched.value("error_rate") == 0.25
    assert watched.value("error_rate", "t-acme", "up") == 0.5
    assert watched.value("error_rate", "t-zeta") == watched.value("error_rate", "", "other") == 0
    assert watched.value("error_rate", "t-zeta", "up") is None
    assert watched.value("p99_ms", "t-none") is None
    assert watched.value("requests_per_minute", "t-none") == 0
    assert watched.value("memory") is None


async def test_requests_per_minute_are_of_the_time_that_was_watched(watched: Watched) -> None:
    """A process that has just begun does not look idle; slots are whole."""
    for _ in range(30):
        watched.ended(asked())
    await watched.after(30)
    assert watched.value("requests_per_minute") == 60
    await watched.after(30)
    assert watched.value("requests_per_minute") == 30
    await watched.after(60 + SLOT_S)
    assert watched.value("requests_per_minute") == 0
    assert watched.value("requests_per_minute", window_s=600) == pytest.approx(30 * 60 / 125)


async def test_a_window_of_more_than_an_hour_is_an_hour(watched: Watched) -> None:
    """So much is remembered; the rate is not that of a time of which nothing is known."""
    for _ in range(90):
        await watched.after(60)
        watched.ended(asked())
    await watched.after(0)
    assert watched.value("requests_per_minute", window_s=7200) == watched.value("requests_per_minute", window_s=3600)
    assert watched.value("requests_per_minute", window_s=7200) == pytest.approx(1, rel=0.05)
    assert watched.value("requests", window_s=7200) == pytest.approx(60, abs=1)


async def test_requests_are_counted_not_worked_out_from_the_rate(watched: Watched) -> None:
    """A few just after the start are a high rate, and a few all the same."""
    for _ in range(3):
        watched.ended(asked())
    await watched.after(1)
    assert watched.value("requests_per_minute", window_s=300) == 180
    assert watched.value("requests", window_s=300) == 3
    assert watched.value("requests", "t-none") == 0


async def test_a_clock_that_is_set_back_makes_no_rate_higher(watched: Watched) -> None:
    """Not even when it shows a time before the start of the process."""
    await watched.after(600)
    watched.set_back = 3600
    await watched.after(0)
    for _ in range(5):
        watched.ended(asked())
        await watched.after(10)
    assert watched.value("requests_per_minute", window_s=60) == pytest.approx(5, abs=0.5)


async def test_quantiles_are_within_a_percent(watched: Watched) -> None:
    """Of what went before, within the window."""
    for number in range(1, 101):
        watched.ended(asked(), s=number / 1000)
    await watched.after(1)
    for metric, exact in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
        assert watched.value(metric) == pytest.approx(exact, rel=0.011)
    await watched.after(240)
    assert watched.value("p99_ms") is None
    assert watched.value("p99_ms", window_s=300) == pytest.approx(99, rel=0.011)
    await watched.after(1800)
    assert watched.value("p99_ms", window_s=3600) == pytest.approx(99, rel=0.011)
    await watched.after(3600)
    assert watched.value("p99_ms", window_s=3600) is None


@pytest.mark.parametrize("most", [0, 1000])
async def test_what_is_not_settled_yet_counts(watched: Watched, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of the current slot are added to by many requests first; whoever asks sees no difference."""
    monkeypatch.setattr(module, "_MOST_UNSETTLED", most)
    for seconds in (0.1, 0.1, 5, 0.1):
        watched.ended(asked())
        watched.ended(asked("other", BOB, 502))
        await watched.after(seconds)
        bare = replace(ADA, tenant="", key_id="", source=Source.ANONYMOUS)
        watched.ended(asked("", bare, 401), "refused")
        await watched.after(0)
    covered = 60 / (watched.now - 1000)
    for tenant, server, count in (
        ("", "", 12), ("t-acme", "", 4), ("t-acme", "up", 4), ("t-acme", "other", 0), ("", "other", 4),
        (SYSTEM_TENANT, "", 4), (SYSTEM_TENANT, "up", 0), ("t-zeta", "other", 4),
    ):  # fmt: skip
        assert watched.value("requests_per_minute", tenant, server) == pytest.approx(count * covered)
    assert watched.value("error_rate", "", "other") == 1


@pytest.mark.parametrize(
    ("status", "outcome", "failed"),
    [
        (200, "ok", 0), (404, "ok", 0), (429, "refused", 0), (0, "client_gone", 0), (200, "drained", 0),
        (502, "upstream_error", 1), (200, "upstream_truncated", 1), (200, "timeout", 1), (503, "refused", 1),
        (500, "internal", 1),
    ],
)  # fmt: skip
async def test_what_counts_as_failed(watched: Watched, status: int, outcome: str, failed: int) -> None:
    """What the client could do nothing about."""
    watched.ended(asked(status=status), outcome)
    await watched.after(1)
    assert watched.value("error_rate") == failed


@pytest.mark.parametrize("listens", ["GET", "tunnel", "subscription"])
async def test_a_stream_that_only_listens_has_no_duration(watched: Watched, listens: str) -> None:
    """It is a request all the same; an answer that is streamed has one."""
    answered = asked()
    listening = asked(method=b"subscriptions/listen") if listens == "subscription" else got()
    listening.status = 101 if listens == "tunnel" else 200
    answered.streaming = listening.streaming = listens != "tunnel"
    watched.ended(answered, s=0.1)
    watched.ended(listening, s=900)
    await watched.after(61)
    assert watched.value("p99_ms", window_s=120) == pytest.approx(100, rel=0.011)
    total = watched.rows.servers[0][2]
    assert (total.requests, total.timed, total.seconds) == (2, 1, pytest.approx(0.1))


async def test_a_minute_is_handed_over_when_it_is_over(watched: Watched) -> None:
    """By server, credential and tenant, once, a second after its end."""
    watched.ended(asked())
    watched.ended(asked("other", status=502), "upstream_error")
    for seconds in (0.5, 60):
        await watched.after(seconds)
        assert not watched.rows.servers
    watched.ended(asked())
    await watched.after(0.5)
    rows = watched.rows
    assert sorted((name, minute, total.requests, total.errors) for name, minute, total, _ in rows.servers) == [
        ("other", MINUTE, 1, 1), ("up", MINUTE, 1, 0)
    ]  # fmt: skip
    ((table, identity, tenant, minute, own),) = rows.keys
    assert (table, identity, tenant, minute) == ("enhanced_api_keys", "adaadaadaada", "t-acme", MINUTE)
    assert (own.requests, own.errors, own.bytes_in, own.bytes_out, own.timed) == (2, 1, 200, 20, 2)
    assert (own.tool_calls, own.tools) == (2, {("up", "echo"): 1, OTHER_TOOLS: 1})
    ((tenant, minute, total),) = rows.tenants
    assert (tenant, minute, total.requests, total.errors, total.tool_calls) == ("t-acme", MINUTE, 2, 1, 2)
    assert (total.bytes_in, total.bytes_out) == (200, 20)
    await watched.after(1)
    assert len(rows.tenants) == 1
    await watched.after(60)
    assert [(minute, total.requests) for _, minute, total in rows.tenants] == [(MINUTE, 2), (MINUTE + 1, 1)]


async def test_a_request_belongs_to_the_minute_in_which_it_ended(watched: Watched) -> None:
    """However late it is summed up: a second row for the same minute adds to the first."""
    watched.ended(asked())
    late = watched.tally.take()
    await watched.after(62)
    watched.tally._samples.extend(late)
    await watched.after(60)
    assert [(minute, total.requests) for _, minute, total in watched.rows.tenants] == [(MINUTE, 1)]


async def test_sessions_and_anonymous_clients_are_counted_for_their_tenant_only(watched: Watched) -> None:
    """Whoever belongs to none counts for the system tenant."""
    watched.ended(asked(principal=BOB))
    watched.ended(asked(principal=replace(ADA, tenant="", key_id="", source=Source.ANONYMOUS)))
    await watched.after(61)
    assert watched.rows.keys == []
    assert {tenant for tenant, _, _ in watched.rows.tenants} == {"t-zeta", SYSTEM_TENANT}
    assert watched.value("requests_per_minute", SYSTEM_TENANT, "up", 120) is not None


async def test_a_batch_counts_each_tool_and_one_request(watched: Watched) -> None:
    """What was refused before it came to a server called no tool."""
    body = b"[%b,%b]" % (BODY % (b"tools/call", b"echo"), (BODY % (b"tools/call", b"mine")).replace(b":1,", b":2,", 1))
    for upstream in (SNAPSHOT.upstreams["up"], None):
        ctx = ask(SNAPSHOT, "/up/mcp", body=body)
        ctx.principal, ctx.upstream, ctx.status = ADA, upstream, 200
        watched.ended(ctx)
    await watched.after(61)
    own = watched.rows.keys[0][4]
    assert (own.requests, own.tool_calls) == (2, 2)
    assert own.tools == {("up", "echo"): 1, OTHER_TOOLS: 1}, "a name of the client's own is none"


async def test_servers_with_open_streams_have_a_row_without_requests(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The streams may be all that they do."""
    monkeypatch.setattr(SNAPSHOT.upstreams["up"], "open_streams", 3)
    await watched.after(62)
    assert [(name, minute, total.requests, streams) for name, minute, total, streams in watched.rows.servers] == [
        ("up", MINUTE, 0, 3)
    ]


async def test_when_the_clock_is_set_back_minutes_are_handed_over_all_the_same(watched: Watched) -> None:
    """And those that come again, once more: rows of the same minute add up."""
    watched.ended(asked())
    await watched.after(62)
    for _ in range(2):
        watched.set_back += 31
        watched.ended(asked())
        await watched.after(1)
    await watched.after(120)
    assert sum(total.requests for _, _, total in watched.rows.tenants) == 3
    assert sum(total.requests for _, _, total, _ in watched.rows.servers) == 3


async def test_at_the_end_everything_is_handed_over(watched: Watched) -> None:
    """Also the minute that is not over."""
    watched.ended(asked())
    await watched.traffic.finish()
    assert [len(rows) for rows in (watched.rows.servers, watched.rows.keys, watched.rows.tenants)] == [1, 1, 1]


async def test_requests_go_first(watched: Watched) -> None:
    """Ten thousand requests are summed up in pieces, between which others have their turn."""
    ctx = asked()
    for number in range(10_000):
        watched.ended(ctx, s=0.001 * (number % 50 + 1))
    turns = 0
    step = asyncio.ensure_future(watched.after(62))
    while not step.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10_000 / module._SAMPLES
    assert sum(total.requests for _, _, total in watched.rows.tenants) == 10_000


async def test_a_step_that_is_cut_short_loses_nothing(watched: Watched) -> None:
    """The next one goes on."""
    ctx = asked()
    for _ in range(1000):
        watched.ended(ctx)
    step = asyncio.ensure_future(watched.traffic.step())
    for _ in range(3):
        await asyncio.sleep(0)
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    await watched.after(62)
    assert sum(total.requests for _, _, total in watched.rows.tenants) == 1000


async def test_credentials_without_room_are_counted_for_their_tenant(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as not counted for themselves."""
    monkeypatch.setattr(module, "MAX_KEYS", 1)
    for identity in ("one", "two", "one"):
        watched.ended(asked(principal=replace(ADA, key_id=identity)))
    await watched.after(62)
    assert [(row[1], row[4].requests) for row in watched.rows.keys] == [("one", 2)]
    assert watched.traffic.keys_crowded == 1
    assert watched.rows.tenants[0][2].requests == 3
