"""Nothing of a request leaves before it is written down: neither to a server nor to a mirror."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxy.errors import CircuitOpen, Unrecorded
from tests.harness import scripted_upstream
from tests.unit.dataplane.fakes import Proxy, proxying
from tests.unit.dataplane.walking import LIST, LOSES, gone, open_breaker, route, walk

MIRRORED = {"mirror": {"server": "shadow"}}


class Desk:
    """A recorder of grade `strict`, which notes what had left by then; `full` or `late`, it takes nothing."""

    tracer = None

    def __init__(self, proxy: Proxy, trouble: str = "") -> None:
        self.trouble = trouble
        self.left: list[int] = []
        self._proxy = proxy
        proxy.parts = proxy.parts._replace(recorder=cast(Any, self))

    def intend(self, ctx: Any, upstream: Any) -> bool:
        self.left.append(len(self._proxy.copies))
        if self.trouble == "full":
            raise Unrecorded("spool full")
        ctx.intended = True
        return True

    async def durable(self) -> None:
        self.left.append(len(self._proxy.copies))
        if self.trouble == "late":
            raise Unrecorded("disk")

    def answered(self, ctx: Any, headers: Any) -> None:
        return None


async def test_a_mirror_gets_its_copy_when_the_request_is_written_down() -> None:
    """And on the disk, where that is asked for."""
    async with scripted_upstream() as upstream:
        servers = {"a": upstream.url, "shadow": gone()}
        async with proxying(servers, routes=[route("a", **MIRRORED)]) as proxy:
            desk = Desk(proxy)
            request = proxy.request("/all")
            await walk(proxy, request)
            assert (desk.left, len(proxy.copies), request.ctx.tries) == ([0, 0], 1, 1)


@pytest.mark.parametrize("trouble", ["full", "late"])
async def test_nothing_leaves_of_a_request_that_cannot_be_written_down(trouble: str) -> None:
    """It was tried nowhere, and what it had taken on its way is given back: the trial, and the place in the queue."""
    async with scripted_upstream() as upstream:
        one = {"url": upstream.url, "queue": {"max_concurrent": 1}}
        servers = {"a": one, "b": one, "shadow": gone()}
        async with proxying(servers, routes=[route("a", "b", **MIRRORED)]) as proxy:
            desk = Desk(proxy, trouble)
            request = proxy.request("/all")
            with pytest.raises(Unrecorded):
                await walk(proxy, request)
            assert (upstream.connections, proxy.copies, request.ctx.tries) == (0, [], 0)
            assert len(desk.left) == (1 if trouble == "full" else 2)
            for name in ("a", "b"):
                server = proxy.live.snapshot.upstreams[name]
                assert (server.breaker.state, server.breaker.ready()) == ("closed", True)
                assert server.queue is not None and (server.queue.running, server.queue.pending) == (0, 0)


async def test_a_request_that_nobody_can_be_asked_for_is_not_copied() -> None:
    """A mirror sees what a server sees."""
    async with proxying({"a": gone(), "shadow": gone()}, routes=[route("a", **MIRRORED)]) as proxy:
        open_breaker(proxy.live.snapshot.upstreams["a"])
        with pytest.raises(CircuitOpen):
            await walk(proxy, proxy.request("/all"))
        assert proxy.copies == []


async def test_a_request_is_written_down_and_copied_once_however_often_it_is_tried() -> None:
    """The second server gets the same request."""
    async with scripted_upstream(LOSES) as broken, scripted_upstream() as other:
        servers = {"none": gone(), "a": broken.url, "b": other.url, "shadow": gone()}
        routes = [route("none", "a", "b", retry={"attempts": 2}, **MIRRORED)]
        async with proxying(servers, routes=routes) as proxy:
            proxy.room = 9
            desk = Desk(proxy)
            request = proxy.request("/all", body=(LIST,))
            client = await walk(proxy, request)
            assert (client.status, request.ctx.tries, len(other.seen)) == (200, 3, 1)
            assert (desk.left, len(proxy.copies)) == ([0, 0], 1)
