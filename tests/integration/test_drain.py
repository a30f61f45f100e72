"""SIGTERM: nothing that has begun fails, nothing hangs, and a second one ends at once."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.harness import ProxyProcess, ScriptedUpstream, Wire, json_answer, post, running_proxy, scripted_upstream
from tests.proofs import drain
from tests.proofs.drain import HALF, OTHER_HALF, Length
from tests.proofs.load import SSE_HEAD, Clients, chunk, event, get


@pytest.mark.alone
async def test_a_drain_under_load_with_two_hundred_streams_fails_nothing() -> None:
    """Short requests are answered, streams end after a whole event, every request has its line, the exit code is 0."""
    found = await drain.run(Length(clients=8, warm_s=0.5, delay_s=0.5, answer_s=1.0))
    assert (found.failed, found.torn, found.cut, found.unlogged) == (0, 0, 0, 0), found.notes
    assert found.calls_after_signal > 20
    assert found.not_ready_s < 0.5
    assert found.accepted_late
    assert found.exit_code == 0
    assert found.over_grace_s < 2


#: The longest that the end of a process may take on a busy machine, seconds: a grace of 20 s does not fit in.
ENDS_S = 10.0


def draining(upstream: ScriptedUpstream, grace: str = "5s") -> dict[str, Any]:
    return {"listen": {"drain": {"grace": grace}}, "servers": {"up": {"url": upstream.url}}}


async def terminate(proxy: ProxyProcess) -> None:
    """Send SIGTERM and wait until the drain has begun."""
    proxy.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(proxy.wait_for, lambda line: line.get("event") == "draining")


async def test_a_listening_stream_ends_with_the_event_it_is_in(clients: Clients) -> None:
    """The half that is out is followed by its other half, and nothing else; then the stream ends in order."""
    begin, go_on = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + chunk(event(0)))
        await begin.wait()
        await wire.send(chunk(HALF))
        await go_on.wait()
        await wire.send(chunk(OTHER_HALF))
        await wire.send(chunk(event(2)))
        await wire.reader.read()

    async with scripted_upstream(script) as upstream:
        with running_proxy(draining(upstream)) as proxy:
            client = await clients.started(proxy.port, get())
            begin.set()
            assert await client.chunk() == HALF
            await terminate(proxy)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.3)
            go_on.set()
            rest = b""
            while piece := await client.chunk():
                rest += piece
            assert rest in (OTHER_HALF, OTHER_HALF + event(2))
            assert await client.at_end()
            assert await asyncio.to_thread(proxy.process.wait, ENDS_S) == 0
            line = proxy.wait_for(lambda line: line.get("method") == "GET")
            assert (line["outcome"], line["status"]) == ("drained", 200)


@pytest.mark.parametrize("events", [0, 1])
async def test_an_idle_listening_stream_ends_at_once(clients: Clients, events: int) -> None:
    """Also one on which no event has come yet; the whole process is gone long before the grace is over."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + (chunk(event(0)) if events else b""))
        await wire.reader.read()

    async with scripted_upstream(script) as upstream:
        with running_proxy(draining(upstream, "20s")) as proxy:
            client = await clients.connect(proxy.port)
            await client.send(get())
            await client.head()
            for number in range(events):
                assert await client.chunk() == event(number)
            began = time.monotonic()
            await terminate(proxy)
            assert await client.chunk() == b""
            assert await client.at_end()
            assert await asyncio.to_thread(proxy.process.wait, ENDS_S) == 0
            assert time.monotonic() - began < ENDS_S


async def test_a_listening_stream_that_begins_in_a_drain_ends_at_once(clients: Clients) -> None:
    """The request had been sent before; its head comes after the signal."""
    go_on = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await go_on.wait()
        await wire.send(SSE_HEAD)
        await wire.reader.read()

    async with scripted_upstream(script) as upstream:
        with running_proxy(draining(upstream, "20s")) as proxy:
            client = await clients.connect(proxy.port)
            await client.send(get())
            while not upstream.seen:
                await asyncio.sleep(0.01)
            await terminate(proxy)
            go_on.set()
            status, fields, body = await client.answer()
            assert (status, fields["connection"], body) == (200, "close", b"")
            await client.close()
            assert await asyncio.to_thread(proxy.process.wait, ENDS_S) == 0


async def test_a_stream_that_owes_an_answer_after_the_grace_does_not_look_complete(clients: Clients) -> None:
    """It is reset when the grace is over, and the process still ends with 0."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + chunk(event(0)))
        await wire.reader.read()

    async with scripted_upstream(script) as upstream:
        with running_proxy(draining(upstream, "1s")) as proxy:
            client = await clients.started(proxy.port, post())
            began = time.monotonic()
            await terminate(proxy)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await client.chunk()
            assert await asyncio.to_thread(proxy.process.wait, ENDS_S) == 0
            assert time.monotonic() - began >= 1
            line = proxy.wait_for(lambda line: line.get("event") == "request")
            assert line["outcome"] == "drained"


async def test_a_running_call_is_answered_and_its_connection_closed(clients: Clients) -> None:
    """The answer that begins in a drain says `Connection: close`, and the connection ends."""
    go_on = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await go_on.wait()
        await wire.send(json_answer())

    async with scripted_upstream(script) as upstream:
        with running_proxy(draining(upstream)) as proxy:
            client = await clients.connect(proxy.port)
            await client.send(post())
            while not upstream.seen:
                await asyncio.sleep(0.01)
            await terminate(proxy)
            go_on.set()
            status, fields, _ = await client.answer()
            assert (status, fields["connection"]) == (200, "close")
            assert await client.at_end()
            with pytest.raises(OSError):
                await clients.connect(proxy.port)


@pytest.mark.alone
async def test_an_idle_connection_may_ask_once_more_and_is_closed_when_it_does_not(clients: Clients) -> None:
    """A request that crosses the signal is answered; an idle connection is closed after half a second."""
    async with scripted_upstream() as upstream:
        with running_proxy(draining(upstream, "20s")) as proxy:
            asking, silent, fresh = [await clients.connect(proxy.port) for _ in range(3)]
            for client in (asking, silent):
                await client.send(post())
                assert (await client.answer())[0] == 200
            began = time.monotonic()
            await terminate(proxy)
            await asyncio.sleep(0.1)
            await asking.send(post())
            status, fields, _ = await asking.answer()
            assert (status, fields["connection"]) == (200, "close")
            await asking.close()
            for client in (silent, fresh):
                assert await client.at_end()
            assert 0.4 < time.monotonic() - began < 2
            assert await asyncio.to_thread(proxy.process.wait, ENDS_S) == 0


async def test_not_ready_comes_before_the_port_closes(clients: Clients) -> None:
    """During the delay /readyz says 503 and why, /livez 200, and new connections are served."""
    async with scripted_upstream() as upstream:
        config = {"listen": {"drain": {"delay": "20s", "grace": "5s"}}, "servers": {"up": {"url": upstream.url}}}
        with running_proxy(config) as proxy:
            await terminate(proxy)
            with pytest.raises(HTTPError) as caught:
                proxy.admin("/readyz")
            assert caught.value.code == 503
            assert json.loads(caught.value.read())["checks"]["listener"] == {"ok": False, "detail": "draining"}
            caught.value.close()
            assert '"alive"' in proxy.admin("/livez")
            client = await clients.connect(proxy.port)
            await client.send(post())
            status, fields, _ = await client.answer()
            assert (status, fields["connection"]) == (200, "close")


@pytest.mark.parametrize("delay", ["0s", "20s"])
async def test_a_second_signal_ends_at_once(clients: Clients, delay: str) -> None:
    """Whether the first is in its delay or in its grace; what still runs is reset and logged."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + chunk(event(0)))
        await wire.reader.read()

    async with scripted_upstream(script) as upstream:
        config = {"listen": {"drain": {"delay": delay, "grace": "20s"}}, "servers": {"up": {"url": upstream.url}}}
        with running_proxy(config) as proxy:
            client = await clients.started(proxy.port, post())
            await terminate(proxy)
            await asyncio.sleep(0.1)
            began = time.monotonic()
            proxy.process.send_signal(signal.SIGINT)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await client.chunk()
            assert await asyncio.to_thread(proxy.process.wait, ENDS_S) == 0
            assert time.monotonic() - began < ENDS_S
            proxy.stop()
            assert len([line for line in proxy.lines if line.get("event") == "request"]) == 1


async def test_a_request_whose_body_still_arrives_is_answered(clients: Clients) -> None:
    """The head came before the signal, the rest after it."""
    async with scripted_upstream() as upstream:
        with running_proxy(draining(upstream)) as proxy:
            client = await clients.connect(proxy.port)
            request = post()
            await client.send(request[:-20])
            await asyncio.sleep(0.5)  # the head has been read
            await terminate(proxy)
            await asyncio.sleep(1)
            await client.send(request[-20:])
            status, fields, _ = await client.answer()
            assert (status, fields["connection"]) == (200, "close")


async def test_a_call_that_the_drain_cuts_has_not_been_left_by_its_client(clients: Clients) -> None:
    """Its line says so, and so does that of a call whose client did leave before."""
    asked = asyncio.Semaphore(0)

    async def script(wire: Wire) -> None:
        await wire.request()
        asked.release()
        await wire.reader.read()

    async with scripted_upstream(script) as upstream:
        with running_proxy(draining(upstream, "100ms")) as proxy:
            leaves, stays = await clients.connect(proxy.port), await clients.connect(proxy.port)
            for client in (leaves, stays):
                await client.send(post())
                await asked.acquire()
            await leaves.close()
            await asyncio.to_thread(proxy.wait_for, lambda line: line.get("outcome") == "client_gone")
            await terminate(proxy)
            await asyncio.to_thread(proxy.wait_for, lambda line: line.get("outcome") == "drained")
            await stays.close()
