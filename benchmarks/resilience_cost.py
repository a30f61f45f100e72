"""What it costs that servers may fail: CPU time of breaker, balancer, queue and retry budget, per request.

    python -m benchmarks.resilience_cost [--short]

The steps are called as a request's walk calls them, when all is well: class, budget, choice among three servers, a
place in the queue, admission by the breaker, what both learn of the answer, and everything given back. Beside all of it
together stand single parts, and what is left where there is one server and no queue; a figure is the best of several
runs. Then two real proxies are called in turns, one with three servers, queues and health checks, the other with one
server and neither, and the CPU time of their processes is compared. The last line is `failed: N`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast, get_args

from benchmarks import messages, rig
from benchmarks.load import Order, Target
from proxy.config.fields import Strategy
from proxy.config.models import Config, Limits
from proxy.config.resilience import RetryBudget as BudgetSettings
from proxy.dataplane.attempt import enter
from proxy.dataplane.balancer import select
from proxy.dataplane.choice import pick
from proxy.dataplane.classify import classify
from proxy.dataplane.context import ANONYMOUS, RequestContext
from proxy.dataplane.head import parse_head
from proxy.dataplane.priority import Ranking
from proxy.dataplane.retries import RetryBudget
from proxy.dataplane.shedding import Load
from proxy.dataplane.upstream import Upstream
from proxy.mcp.envelope import read_envelope

TARGET_US: Final = 8.0
#: What two proxies that differ in nothing differ by, on a machine that does other things, too.
PROXIED_US: Final = TARGET_US + 4
#: Requests that are made beforehand.
REQUESTS: Final = 1000
SERVERS: Final = 3
PROTECTED: Final[dict[str, Any]] = {"queue": {"max_concurrent": 64}, "health_check": {}}
_STATUS: Final = 200
_ANSWER: Final = [("Content-Type", "application/json"), ("Content-Length", str(len(messages.SMALL_JSON)))]


class Bench:
    """Requests that have come as far as their route, and what their walk needs."""

    def __init__(self, servers: int, strategy: Strategy, options: dict[str, Any]) -> None:
        names = [f"s{number}" for number in range(servers)]
        self.config = Config.model_validate(
            {"servers": {name: {"url": f"http://{name}.test/mcp", **options} for name in names}}
        )
        self.upstreams = [
            Upstream(name, server, cast(Any, None), cast(Any, None)) for name, server in self.config.servers.items()
        ]
        selection = select(strategy, [(each, 1) for each in self.upstreams], random.random, sticky=False)
        retry = SimpleNamespace(attempts=2, tools="never", hedge=None)
        self._route = SimpleNamespace(selection=selection, retry=retry, mirror=None, config=None)
        self._snapshot = SimpleNamespace(shared=None, flags=None, ranking=Ranking(self.config.priorities))
        self.load = Load()
        self.budget = RetryBudget(BudgetSettings())
        self.parts = cast(Any, SimpleNamespace(budget=self.budget, load=self.load, clock=time.monotonic, recorder=None))
        self.requests = [self._request() for _ in range(REQUESTS)]

    def _request(self) -> RequestContext:
        headers, body = messages.call("modern")
        raw = messages.request(8080, "/all", headers, body)
        head = parse_head(raw[: raw.index(b"\r\n\r\n") + 4], Limits())
        ctx = RequestContext(
            cast(Any, SimpleNamespace(head=head, peer="192.0.2.7", secure=False)), cast(Any, self._snapshot), 0.0
        )
        ctx.principal = ANONYMOUS
        ctx.envelope = read_envelope(body, ctx.fields)
        ctx.message = ctx.envelope.first
        ctx.route = cast(Any, self._route)
        return ctx


def run_coroutine(coroutine: Any) -> Any:
    """The result of one that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        return result.value
    raise RuntimeError("it waits")


def whole(bench: Bench) -> None:
    """Everything, as `classify` and `forward` do it."""
    parts, load, budget = bench.parts, bench.load, bench.budget
    for ctx in bench.requests:
        classify(ctx, load)
        budget.begin()
        upstream = pick(ctx, [])
        assert upstream is not None
        attempt = run_coroutine(enter(ctx, upstream, parts))
        attempt.answered(_STATUS, _ANSWER)
        upstream.observe_latency(0.01)
        attempt.end()
        budget.end()


def nothing(bench: Bench) -> None:
    """The loop, and a coroutine as `enter` is one."""
    for ctx in bench.requests:
        run_coroutine(_nothing(ctx))


async def _nothing(ctx: RequestContext) -> None:
    return


def breaker(bench: Bench) -> None:
    """Admission and success."""
    guard = bench.upstreams[0].breaker
    for _ in bench.requests:
        guard.succeeded(guard.admit())


def balancer(bench: Bench) -> None:
    """The choice, and what it learns."""
    for ctx in bench.requests:
        upstream = pick(ctx, [])
        assert upstream is not None
        upstream.observe_latency(0.01)


def queue(bench: Bench) -> None:
    """A place that is free."""
    places = bench.upstreams[0].queue
    assert places is not None
    for _ in bench.requests:
        places.try_enter()
        places.leave()


def retry_budget(bench: Bench) -> None:
    """One request more and less."""
    budget = bench.budget
    for _ in bench.requests:
        budget.begin()
        budget.end()


@dataclass
class Job:
    """One of these, for requests that find so many servers."""

    steps: Callable[[Bench], None]
    bench: Bench
    best_us: float = float("inf")
    """Per request: of the fastest run, since everything else only adds to it."""

    def run(self) -> None:
        """Once for all requests."""
        began = time.process_time_ns()
        self.steps(self.bench)
        self.best_us = min(self.best_us, (time.process_time_ns() - began) / REQUESTS / 1e3)


def jobs() -> dict[str, Job]:
    """All of it by strategy, the parts of it, and what is left without."""
    strategies: tuple[Strategy, ...] = get_args(Strategy)
    made = {f"all_{name}": Job(whole, Bench(SERVERS, name, PROTECTED)) for name in strategies}
    usual = Bench(SERVERS, "round_robin", PROTECTED)
    made |= {each.__name__: Job(each, usual) for each in (breaker, balancer, queue, retry_budget, nothing)}
    return made | {"one_server_without_queue": Job(whole, Bench(1, "round_robin", {}))}


def proxied(rounds: int, seconds: float) -> tuple[float, float, float]:
    """CPU microseconds per proxied call without and with protection, and the median of the differences."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpm-")))
        others, own = rig.two_cores()
        upstream, load = stack.enter_context(rig.start_upstream(others)), stack.enter_context(rig.Load(others))
        url = f"http://127.0.0.1:{upstream.port}/mcp"
        names = [f"s{number}" for number in range(SERVERS)]
        configs: list[dict[str, Any]] = [
            {"servers": {"s0": {"url": url}}, "routes": [{"name": "all", "path": "/all", "servers": "s0"}]},
            {
                "servers": {name: {"url": url, **PROTECTED} for name in names},
                "routes": [{"name": "all", "path": "/all", "servers": names, "retry": {"tools": "hinted"}}],
            },
        ]
        quiet = {"log": {"access": False}}
        proxies = [
            stack.enter_context(rig.start_proxy(folder / str(number), config | quiet, own))
            for number, config in enumerate(configs)
        ]

        def cpu_us(which: int) -> float:
            before = proxies[which].cpu_ns()
            calls = load.run(Order(proxies[which].port, [Target("/all")], "modern", seconds=seconds)).calls
            return (proxies[which].cpu_ns() - before) / calls / 1e3

        for which in (0, 1):
            cpu_us(which)  # warm up
        found: list[list[float]] = [[], []]
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                found[which].append(cpu_us(which))
    added = statistics.median(with_it - without for without, with_it in zip(*found, strict=True))
    return statistics.median(found[0]), statistics.median(found[1]), added


def main() -> int:
    """Print the figures; 1 when one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few runs, targets twice as wide, and no proxy")
    short = parser.parse_args().short
    measured = jobs()
    for _ in range(20 if short else 200):  # in turns, so that a machine that is slow for a while is slow for all
        for job in measured.values():
            job.run()
    for name, job in measured.items():
        print(f"{name}_us: {job.best_us:.2f}")
    empty_us = measured["nothing"].best_us
    target_us = TARGET_US * (2 if short else 1)  # a short run may fall into a slow moment of the machine
    together = {name: job.best_us - empty_us for name, job in measured.items() if name.startswith("all_")}
    print(f"resilience_us: {together['all_round_robin']:.2f}")
    figures = [rig.Figure(f"{name}, {SERVERS} servers", cost_us, target_us, "us") for name, cost_us in together.items()]
    if not short:
        without_us, with_us, added_us = proxied(20, 1.0)
        print(f"proxied_call_us: {without_us:.1f} with one server and no queue, {with_us:.1f} with all of it")
        figures.append(rig.Figure("proxied call: added by queues, checks and a choice", added_us, PROXIED_US, "us"))
    return rig.conclude(figures)


if __name__ == "__main__":
    sys.exit(main())
