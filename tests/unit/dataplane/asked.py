"""What the tests of single phases start from: a real snapshot, and requests read from real heads."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from prometheus_client import CollectorRegistry

from proxy.config.models import Config, Limits
from proxy.dataplane.affinity import Sealer
from proxy.dataplane.client import UpstreamClient
from proxy.dataplane.context import ANONYMOUS, RequestContext
from proxy.dataplane.estates import estates_of
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.head import parse_head
from proxy.dataplane.router import Router
from proxy.dataplane.snapshot import Snapshot
from proxy.dataplane.upstream import Upstream
from proxy.dataplane.wellknown import Wellknown
from proxy.identity.principal import Principal, Source, anonymous
from proxy.mcp.envelope import read_envelope
from proxy.mcp.methods import metric_label
from proxy.metrics import Metrics

NOW_S = 1_800_000_000.0
KEY = b"a secret that seals sessions"


class Clock:
    """Unix time that only the test moves."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


class Arrived:
    """The client's side of a request: its head, and where it came from."""

    def __init__(self, raw: bytes, peer: str, secure: bool) -> None:
        self.head = parse_head(raw, Limits())
        self.peer = peer
        self.secure = secure


def sealer(*keys: bytes, clock: Clock | None = None, seed: int = 1) -> Sealer:
    """A sealer with a week of life and nonces that repeat from run to run."""
    return Sealer(keys or (KEY,), 7 * 86400.0, clock or Clock(), random.Random(seed).randbytes)


def somebody(identity: str, tenant: str = "") -> Principal:
    """A principal who may use the data plane for everything."""
    return replace(anonymous(), id=identity, tenant=tenant, source=Source.KEY)


def snapshot(servers: dict[str, Any], seal: Sealer | None = None, **config: Any) -> Snapshot:
    """A snapshot of `servers` (a URL, or keys of a server) and further configuration; nothing can be sent with it."""
    written = {name: {"url": server} if isinstance(server, str) else server for name, server in servers.items()}
    whole = Config.model_validate({"servers": written, **config})
    metrics = Metrics(CollectorRegistry(), 10, metric_label)
    upstreams = {
        name: Upstream(name, server, cast("UpstreamClient", None), metrics.server(name))
        for name, server in whole.servers.items()
    }
    router = Router.compile(whole.routes, upstreams, lambda: datetime(2026, 11, 22, tzinfo=UTC), lambda: 0.5)
    snap = Snapshot(1, whole, estates_of({}, whole, {}), seal or sealer())
    snap.upstreams, snap.shared = upstreams, router
    snap.wellknown = Wellknown.compile(whole, whole.routes, upstreams)
    return snap


def ask(
    snap: Snapshot,
    target: str,
    *fields: tuple[str, str],
    method: str = "POST",
    host: str = "localhost:8080",
    body: bytes | None = None,
    principal: Principal | None = None,
    peer: str = "192.0.2.7",
    secure: bool = False,
    minor: int = 1,
) -> RequestContext:
    """A request for `target` that has come as far as its route; `body` counts as read, and its envelope with it."""
    lines = [f"{method} {target} HTTP/1.{minor}", f"Host: {host}", *[f"{name}: {value}" for name, value in fields]]
    raw = "".join(f"{line}\r\n" for line in [*lines, ""]).encode()
    ctx = RequestContext(cast("Exchange", Arrived(raw, peer, secure)), snap, 0.0)
    ctx.principal = principal or ANONYMOUS
    if body is not None:
        ctx.body = body
        ctx.envelope = read_envelope(body, ctx.fields)
        ctx.message = ctx.envelope.first
    ctx.route = ctx.routing.match(ctx)
    if ctx.route is not None:
        ctx.upstream = ctx.route.selection.pick("", ())
    return ctx
