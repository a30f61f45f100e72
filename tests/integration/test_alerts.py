"""Alerts of the whole proxy: a server that fails is told of to a webhook, signed, and so is its recovery."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from proxy.dataplane.snapshot import Live
from tests.harness import RawClient, Wire, answer_json, post, scripted_upstream
from tests.inprocess import running_app
from tests.unit.background.notices import SECRET, Endpoint, endpoint

INTERVAL_S = 1.0


async def heard(here: Endpoint, alert: str, status: str) -> tuple[float, dict[str, Any]]:
    """When a notification came, and what it says."""
    async with asyncio.timeout(20):
        count = 0
        while True:
            await here.until(count + 1)
            body = here.bodies[count]
            count += 1
            if (body["alert"], body["status"]) == (alert, status):
                return time.monotonic(), body


def is_closed(live: Live) -> bool:
    """Whether the breaker of the server is."""
    return live.snapshot.upstreams["up"].breaker.state == "closed"


def configured(upstream: str, receiver: str) -> dict[str, Any]:
    """One server whose breaker opens soon, one receiver."""
    local = {"secret": SECRET, "allow_http": True, "allow_private_networks": "127.0.0.0/8"}
    return {
        "servers": {"up": {"url": upstream, "breaker": {"failures": 2, "open_for": "200ms", "max_open_for": "200ms"}}},
        "alerts": {
            "interval": f"{INTERVAL_S:g}s",
            "rules": {"breaker_open": {"keep_firing_for": 0, "cooldown": 0}},
            "webhooks": {"ops": {**local, "url": receiver}},
        },
    }


@pytest.mark.alone
async def test_an_open_breaker_is_told_within_an_interval_and_a_second_and_so_is_its_end() -> None:
    """From the failure that opens it, and from the success that closes it."""
    failing = True

    async def script(wire: Wire) -> None:
        if failing and await wire.request():
            wire.reset()
            return
        await answer_json(wire)

    async with endpoint() as here, scripted_upstream(script) as upstream:
        config = configured(upstream.url, here.url)
        async with running_app(config) as (app, port):
            live = app.live
            client = await RawClient.connect(port)
            while is_closed(live):
                await client.send(post())
                await client.answer()
            opened = time.monotonic()
            at, body = await heard(here, "breaker_open", "firing")
            assert at - opened <= INTERVAL_S + 1
            assert (body["labels"]["server"], body["severity"], body["value"]) == ("up", "high", 1.0)
            failing = False
            while not is_closed(live):
                await client.send(post())
                await client.answer()
                await asyncio.sleep(0.02)
            closed = time.monotonic()
            at, body = await heard(here, "breaker_open", "resolved")
            assert at - closed <= INTERVAL_S + 1 and body["ended"] == "clear"
            shown = app.metrics.exposition("")[1].decode()
            await client.close()
    assert "mcp_proxy_alerts_fired_total 1" in shown and "mcp_proxy_alert_notices_total 2" in shown


async def test_errors_of_requests_are_told() -> None:
    """The figures of the traffic are those of the requests that went by."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    async with endpoint() as here, scripted_upstream(script) as upstream:
        config = configured(upstream.url, here.url)
        config["alerts"]["rules"] = {"error_rate": {"holds_for": 0, "min_requests": 5}}
        async with running_app(config) as (_, port):
            client = await RawClient.connect(port)
            for _ in range(8):
                await client.send(post())
                await client.answer()
            _, body = await heard(here, "error_rate", "firing")
            assert body["value"] == 1.0
            await client.close()
