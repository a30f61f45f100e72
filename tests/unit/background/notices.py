"""Notifications, and a receiver of webhooks with a real socket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from proxy.background.alert_states import Episode, Notice, Rule, Status
from proxy.config.alerts import Webhook
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from tests.harness import ScriptedUpstream, Wire, json_answer, scripted_upstream
from tests.unit.background.test_alert_states import rule

SECRET = "a secret of sixteen"
IDS = RecordIds(lambda: 1e9, os.urandom)


def notice(status: Status = "firing", **given: Any) -> Notice:
    """Of an alert of the operator, unless said otherwise."""
    watched: Rule = rule(**{"name": "slow", "tenant": SYSTEM_TENANT, "owner": "system", **given})
    episode = Episode(IDS.new(), watched, "", "here", 1e9, 11.5)
    if status == "resolved":
        episode.resolved_at, episode.ended = 1e9 + 60, "clear"
    return Notice(IDS.new(), status, 1e9, episode)


def webhook(url: str, **given: Any) -> Webhook:
    """One that may stand on this machine."""
    return Webhook.model_validate(
        {"url": url, "secret": SECRET, "allow_http": True, "allow_private_networks": "127.0.0.0/8", **given}
    )


class Endpoint:
    """A receiver that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[bytes] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.news = asyncio.Event()
        #: Holds every answer back until it is set.
        self.open = asyncio.Event()
        self.open.set()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    async def serve(self, wire: Wire) -> None:
        while request := await wire.request():
            head, _, body = request.partition(b"\r\n\r\n")
            lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
            self.got.append(({name.lower(): value for name, _, value in lines}, body))
            self.news.set()
            await self.open.wait()
            await wire.send(self.answers.pop(0) if self.answers else json_answer(b"", b"200 OK"))

    async def until(self, count: int) -> None:
        """Wait for so many requests."""
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    """One that listens."""
    here = Endpoint()
    upstream: ScriptedUpstream
    async with scripted_upstream(here.serve) as upstream:
        here.url = upstream.url
        yield here
        here.open.set()
