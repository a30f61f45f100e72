"""A reload keeps what did not change, and closes what did only when nobody uses it any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.config.models import Config
from proxy.dataplane.client import UpstreamClient
from proxy.dataplane.estates import estates_of
from proxy.dataplane.snapshot import Snapshot
from proxy.dataplane.upstream import Upstream
from proxy.identity.records import SYSTEM_TENANT
from tests.harness import scripted_upstream
from tests.unit.dataplane.fakes import PATIENCE_S, Proxy, proxying
from tests.unit.dataplane.registered import registry, server, tenant, tenant_id

NAMES = ("a", "b", "c")


def servers(**versions: int) -> dict[str, Any]:
    """Configured servers by name; a server of another version is another server."""
    return {name: {"url": f"http://{name}.test/v{version}"} for name, version in versions.items()}


# --- building -------------------------------------------------------------------------------------------------------


def test_what_did_not_change_is_carried_over() -> None:
    """With its connections and counters; what changed or is new begins anew, what is gone is gone."""
    proxy = Proxy({"servers": servers(a=1, b=1, c=1)})
    before = proxy.live.snapshot.upstreams
    after = proxy.configure(servers=servers(a=1, b=2)).upstreams
    assert list(after) == ["a", "b"]
    assert after["a"] is before["a"]
    assert after["b"] is not before["b"]
    assert after["b"].config.url == "http://b.test/v2"


@pytest.mark.parametrize(
    "change",
    [
        {"headers": {"Authorization": "Bearer new"}}, {"timeouts": {"idle": "1s"}}, {"pool": {"max_connections": 1}},
        {"forwarded": False}, {"transport": "sse"},
    ],
)  # fmt: skip
def test_any_change_of_a_server_makes_another(change: dict[str, Any]) -> None:
    """A secret counts like any other value."""
    url = {"url": "http://a.test/mcp", "headers": {"Authorization": "Bearer old"}}
    proxy = Proxy({"servers": {"a": url}})
    before = proxy.live.snapshot.upstreams["a"]
    assert proxy.configure(servers={"a": {**url, **change}}).upstreams["a"] is not before


def test_generations_are_counted_and_routes_know_the_new_servers() -> None:
    """The router of a snapshot chooses among that snapshot's servers."""
    proxy = Proxy({"servers": servers(a=1)})
    assert proxy.live.snapshot.generation == 1
    snapshot = proxy.configure(servers=servers(a=2), listen={"public_url": "https://mcp.test/tools"})
    assert (snapshot.generation, snapshot.public_prefix) == (2, "/tools")
    ctx = proxy.request("/a/mcp").ctx
    route = snapshot.shared.match(ctx)
    assert route is not None
    assert route.selection.pick("", ()) is snapshot.upstreams["a"]


def test_names_are_looked_up_for_each_tenant_on_its_own() -> None:
    """One whose names hang takes no thread that another needs; what is found is everyone's."""
    proxy, config = Proxy({"servers": servers(a=1)}), Config.model_validate({"servers": servers(a=1)})
    rows = registry(tenant(1, "acme"), server(1, "own"), tenant(2, "bolt"), server(2, "own"))
    upstreams = proxy.builder.build(config, estates_of(rows, config, {}), None).upstreams
    resolvers = {name: upstream.client.resolver for name, upstream in upstreams.items()}
    assert {name: resolver.owner for name, resolver in resolvers.items()} == {
        "a": SYSTEM_TENANT,
        "acme/own": tenant_id(1),
        "bolt/own": tenant_id(2),
    }
    assert len({id(resolver.lookups) for resolver in resolvers.values()}) == 1


def test_a_configuration_that_cannot_be_built_changes_nothing() -> None:
    """The one in force goes on serving."""
    proxy = Proxy({"servers": servers(a=1)})
    before = proxy.live.snapshot
    broken = {"url": "https://b.test/mcp", "tls": {"ca": "/nowhere/ca.pem"}}
    with pytest.raises(OSError):
        proxy.configure(servers={**servers(a=1), "b": broken})
    assert proxy.live.snapshot is before


# --- retiring -------------------------------------------------------------------------------------------------------


class Closing(UpstreamClient):
    """A client that tells when it is closed."""

    closed = False

    async def close(self) -> None:
        self.closed = True
        await super().close()


class LiveMachine(RuleBasedStateMachine):
    """Reloads, requests and copies for mirrors in any order; retired servers are looked for whenever it pleases."""

    @initialize()
    def begin(self) -> None:
        self.proxy = Proxy({"servers": servers(a=0)})
        self.seen: dict[int, Upstream] = {}
        self.requests: list[Snapshot] = []
        self.copies: list[Upstream] = []
        self._watch(self.proxy.live.snapshot)

    def _watch(self, snapshot: Snapshot) -> None:
        for upstream in snapshot.upstreams.values():
            if id(upstream) not in self.seen:
                self.seen[id(upstream)] = upstream
                upstream.client.__class__ = Closing

    @rule(versions=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 1), min_size=1))
    def reload(self, versions: dict[str, int]) -> None:
        self._watch(self.proxy.configure(servers=servers(**versions)))

    @rule()
    def request_begins(self) -> None:
        snapshot = self.proxy.live.snapshot
        snapshot.requests += 1
        self.requests.append(snapshot)

    @precondition(lambda self: self.requests)
    @rule(draw=st.integers(0, 9))
    def request_ends(self, draw: int) -> None:
        self.requests.pop(draw % len(self.requests)).requests -= 1

    @precondition(lambda self: self.requests)
    @rule(draw=st.integers(0, 9))
    def copy_begins(self, draw: int) -> None:
        known = list(self.requests[draw % len(self.requests)].upstreams.values())
        upstream = known[draw % len(known)]
        upstream.in_flight += 1
        self.copies.append(upstream)

    @precondition(lambda self: self.copies)
    @rule(draw=st.integers(0, 9))
    def copy_ends(self, draw: int) -> None:
        self.copies.pop(draw % len(self.copies)).in_flight -= 1

    @rule()
    def retired_are_closed(self) -> None:
        asyncio.run(self.proxy.live.close_retired())
        for upstream in self.seen.values():
            assert self._closed(upstream) == (not self._used(upstream))

    def _used(self, upstream: Upstream) -> bool:
        """Whether the snapshot in force or any request knows it, or a copy is under way to it."""
        knowing = [self.proxy.live.snapshot, *self.requests]
        return upstream.in_flight > 0 or any(upstream in snapshot.upstreams.values() for snapshot in knowing)

    def _closed(self, upstream: Upstream) -> bool:
        assert isinstance(upstream.client, Closing)
        return upstream.client.closed

    @invariant()
    def what_is_used_is_open(self) -> None:
        for upstream in getattr(self, "seen", {}).values():
            assert not (self._closed(upstream) and self._used(upstream))

    def teardown(self) -> None:
        if hasattr(self, "proxy"):
            asyncio.run(self.proxy.live.close())
            assert all(self._closed(upstream) for upstream in self.seen.values())


TestLive = LiveMachine.TestCase


async def test_a_retired_server_closes_although_others_are_busy() -> None:
    """A server that was carried over may never be idle: that keeps nothing else open."""
    async with scripted_upstream() as old, proxying({"old": old.url, **servers(busy=1)}) as proxy:
        upstream = proxy.live.snapshot.upstreams["old"]
        response = await upstream.client.send("GET", "", [("Host", "h")], None)
        response.close()
        proxy.live.snapshot.upstreams["busy"].in_flight = 1
        proxy.configure(servers=servers(busy=1))
        assert upstream.metrics.pool_limit > 0
        await proxy.live.close_retired()
        assert upstream.metrics.pool_limit == 0
        async with asyncio.timeout(PATIENCE_S):
            while old.open:
                await asyncio.sleep(0)


async def test_a_server_is_found_with_those_that_it_replaced() -> None:
    """As long as a request may wait there."""
    async with proxying(servers(a=1, b=1)) as proxy:
        first = proxy.live.snapshot
        first.requests = 1
        second = proxy.configure(servers=servers(a=2, b=1))
        proxy.configure(servers=servers(a=2))
        assert set(proxy.live.named("a")) == {second.upstreams["a"], first.upstreams["a"]}
        await proxy.live.close_retired()
        assert list(proxy.live.named("a")) == [second.upstreams["a"], first.upstreams["a"]]
        assert list(proxy.live.named("b")) == [first.upstreams["b"]]
        first.requests = 0
        await proxy.live.close_retired()
        assert list(proxy.live.named("a")) == [second.upstreams["a"]]


async def test_closing_closes_what_earlier_snapshots_left_behind() -> None:
    """Also what a copy still uses."""
    async with proxying(servers(a=1)) as proxy:
        first = proxy.live.snapshot
        first.upstreams["a"].in_flight = 1
        proxy.configure(servers=servers(a=2))
        await proxy.live.close_retired()
        assert first.upstreams["a"].metrics.pool_limit == 400  # both are counted under one name
        await proxy.live.close()
        assert first.upstreams["a"].metrics.pool_limit == 0
