"""Each server is checked in its turn, a change is made sure of at once, and maintenance counts for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.background import health_checks as module
from proxy.background.health_checks import HealthChecks, families, status_of
from proxy.config.models import Server
from proxy.dataplane import tcp
from proxy.dataplane.health import Health
from proxy.dataplane.probe import Result
from proxy.log import logger
from tests.harness import ScriptedUpstream, answer_json, json_answer, scripted_upstream
from tests.unit.dataplane.fakes import Time


class Up:
    """What the checks ask of a server, without the rest of an `Upstream`."""

    def __init__(self, name: str, url: str, time: Time, check: dict[str, Any] | None) -> None:
        self.name = name
        self.config = Server.model_validate({"url": url, "health_check": check})
        self.client: Any = SimpleNamespace(new_socket=tcp.new_socket, tls=None, resolver=None)
        self.health = Health(self.config.health_check, time, name)
        self.window: object = None


class Bench:
    """The checks of some servers on the test's time; one-shots run when the test says so."""

    def __init__(self) -> None:
        self.time = Time()
        self.drawn = 0.0
        self.servers: dict[str, Up] = {}
        self.started: list[tuple[str, Coroutine[Any, Any, None]]] = []
        self.room = 1000
        self.observed: list[tuple[str, bool, str]] = []
        self.checks = HealthChecks(
            lambda: self.servers, self._spawn, logger("health"), self.time, lambda: self.drawn, self._observe
        )

    def add(self, name: str = "up", url: str = "http://127.0.0.1:9/", **check: Any) -> Up:
        """Another configuration, with one more server that is checked."""
        up = Up(name, url, self.time, check)
        self.servers = {**self.servers, name: up}
        return up

    def start(self, seconds: float = 0.0) -> list[str]:
        """Let time pass; which checks start then, by the names of their servers."""
        self.time.now += seconds
        before = len(self.started)
        self.checks.step()
        return [name.removeprefix("health check ") for name, _ in self.started[before:]]

    async def run(self, seconds: float = 0.0) -> list[str]:
        """The same, and they come to their end."""
        names = self.start(seconds)
        started, self.started = self.started, []
        await asyncio.gather(*(coroutine for _, coroutine in started))
        return names

    async def until_due(self) -> float:
        """Go on in steps of a tenth of a second until a check was made; the seconds that passed."""
        for step in range(1, 1000):
            if await self.run(0.1):
                return step / 10
        raise AssertionError("no check is due")

    def drop(self) -> None:
        """Close what has not run."""
        for _, coroutine in self.started:
            coroutine.close()

    def _spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> bool:
        if len(self.started) >= self.room:
            coroutine.close()
            return False
        self.started.append((name, coroutine))
        return True

    def _observe(self, server: Up, result: Result, kind: str) -> None:
        self.observed.append((server.name, result.ok, kind))


@pytest.fixture
def bench() -> Any:
    """No servers yet."""
    made = Bench()
    yield made
    made.drop()


def failing(upstream: ScriptedUpstream) -> None:
    """From now on it answers 503."""

    async def script(wire: Any) -> None:
        await wire.request()
        await wire.send(json_answer(b"", b"503 X"))

    upstream.script = script


async def test_first_checks_are_spread_over_the_interval_and_then_repeated(bench: Bench) -> None:
    """A tenth earlier at most; a server without checks is never asked."""
    async with scripted_upstream() as upstream:
        bench.drawn = 0.4
        up = bench.add(url=upstream.url)
        bench.servers["quiet"] = Up("quiet", upstream.url, bench.time, None)
        up.health.passive(True)
        assert await bench.run() == []
        assert await bench.run(3.9) == []
        assert await bench.run(0.11) == ["up"]
        assert await bench.run(9.5) == []
        assert await bench.run(0.11) == ["up"]
        assert upstream.connections == bench.checks.made == 2
        assert bench.observed == [("up", True, "mcp")] * 2


async def test_a_change_is_made_sure_of_within_a_second(bench: Bench) -> None:
    """Of a server that fails, and of one that is back; each is told in the log once."""
    async with scripted_upstream() as upstream:
        up = bench.add(url=upstream.url)
        with capture_logs() as lines:
            await bench.run()
            assert status_of(up) == "unknown"
            assert await bench.until_due() <= 1.0
            assert status_of(up) == "healthy"
            failing(upstream)
            assert await bench.until_due() == pytest.approx(10, abs=0.2)
            assert await bench.until_due() + await bench.until_due() <= 1.0
            assert status_of(up) == "unhealthy"
            upstream.script = answer_json
            assert await bench.until_due() == pytest.approx(10, abs=0.2)
            assert await bench.until_due() <= 1.0
            assert await bench.until_due() == pytest.approx(10, abs=0.2)
    changes = [(line["server"], line["before"], line["after"], line.get("cause")) for line in lines]
    assert changes == [
        ("up", "unknown", "healthy", None),
        ("up", "healthy", "unhealthy", "status"),
        ("up", "unhealthy", "healthy", None),
    ]
    assert lines[1]["status"] == 503


async def test_under_maintenance_it_is_asked_but_nothing_counts(bench: Bench) -> None:
    """Its status is reported as maintenance, and afterwards is what it was."""
    async with scripted_upstream() as upstream:
        up = bench.add(url=upstream.url)
        up.health.passive(True)
        up.window = object()
        failing(upstream)
        await bench.run()
        for _ in range(5):
            assert await bench.until_due() == pytest.approx(10, abs=0.2)
        assert status_of(up) == "maintenance"
        assert bench.observed == [("up", False, "mcp")] * 6
        up.window = None
        assert (status_of(up), up.health.checks) == ("healthy", 0)


async def test_servers_come_and_go_with_the_configuration(bench: Bench) -> None:
    """One that stays keeps its turn, one that is gone is asked no more, and its last result does not count."""
    bench.drawn = 0.5
    stays, goes = bench.add("stays"), bench.add("goes")
    bench.start()
    assert sorted(bench.start(5.0)) == ["goes", "stays"]
    bench.servers = {"stays": stays}
    bench.add("comes")
    assert bench.start() == []
    assert await bench.run() == []
    assert (stays.health.checks, goes.health.checks) == (1, 0)
    assert sorted(bench.start(5.0)) == ["comes", "stays"]


async def test_only_so_many_run_at_once_and_the_others_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the checks or the one-shots of the process are the bound."""
    monkeypatch.setattr(module, "_MOST_AT_ONCE", 3)
    for number in range(8):
        bench.add(f"up{number}")
    assert len(bench.start()) == 3
    assert (bench.checks.running, bench.checks.late) == (3, 1)
    assert bench.start(0.1) == []
    bench.room = 4
    started, bench.started = bench.started, []
    await asyncio.gather(*(coroutine for _, coroutine in started))
    assert bench.checks.running == 0
    bench.room = 2
    assert len(bench.start()) == 2
    assert (bench.checks.running, bench.checks.made) == (2, 3)


async def test_a_check_that_was_ended_from_outside_is_made_again(bench: Bench) -> None:
    """Nothing takes a server out of the schedule but the configuration."""
    bench.add("up")
    bench.start()
    ((_, coroutine),) = bench.started
    bench.started = []
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.checks.running == 0
    assert bench.start(10.0) == ["up"]


def test_metrics_count_servers_by_status(bench: Bench) -> None:
    """Those under maintenance apart, and each once."""
    for name in ("a", "b", "c"):
        bench.add(name)
    bench.servers["a"].health.passive(True)
    bench.servers["b"].window = object()
    rows = {family.name: dict(family.rows) for family in families(bench.servers, bench.checks)}
    assert rows["mcp_proxy_servers"] == {
        '{status="unknown"}': 1, '{status="healthy"}': 1, '{status="degraded"}': 0, '{status="unhealthy"}': 0,
        '{status="maintenance"}': 1,
    }  # fmt: skip
    assert rows["mcp_proxy_health_checks"] == {"": 0}
