"""What the record costs a request: CPU time of both rows of the audit trail, its log line and its metrics.

    python -m benchmarks.record_cost [--short]

The steps are called as a request's walk calls them: its name, intent before it is sent, the head of its answer, outcome
at its end. The journal is a real one on this disk, the log goes to a file, and names are made as far apart as a busy
process makes them. Beside all of it together stand its parts and what is left without any; a figure is the best of
several runs. The last line is `failed: N`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from benchmarks import messages, rig
from proxy.batched_stream import BatchedStream
from proxy.config.models import Limits
from proxy.config.record import Record
from proxy.dataplane.catalogue import Catalogue
from proxy.dataplane.context import ANONYMOUS, RequestContext
from proxy.dataplane.facts import Facts
from proxy.dataplane.head import parse_head
from proxy.dataplane.recorder import Recorder
from proxy.dataplane.scrutiny import Scrutiny
from proxy.dataplane.tally import Tally
from proxy.dataplane.usage import Usage
from proxy.identity.access import Server
from proxy.identity.principal import Source
from proxy.identity.uuid7 import RecordIds
from proxy.log import AccessLog
from proxy.mcp.envelope import read_envelope
from proxy.mcp.methods import metric_label
from proxy.metrics import Metrics, new_registry
from proxy.spool.journal import Bounds, Journal

TARGET_US: Final = 6.0
#: Requests of one run.
REQUESTS: Final = 2000
#: Between two names: a request is hardly ever the second of its millisecond.
BETWEEN_S: Final = 1 / 600
#: Fields of an answer.
ANSWER: Final = [("Content-Type", "application/json"), ("Content-Length", "456")]
TENANT: Final = "018f0000-0000-7000-8000-000000000001"


class Bench:
    """Requests that have come to the point where they are sent, and a recorder."""

    def __init__(self, folder: Path, *, journal: bool = True, log: bool = True) -> None:
        self.ids = RecordIds(count(time.time(), BETWEEN_S).__next__, os.urandom)
        self.metrics = Metrics(new_registry(), 10, metric_label)
        self._stream = BatchedStream(os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        self.usage = Usage(lambda server, kind, name: True)
        self.recorder = Recorder(self.metrics, AccessLog(self._stream, "json"), log, self.usage, Facts("host-1"))
        self.recorder.new_id = self.ids.text
        self.recorder.tally = self.tally = Tally()
        if journal:
            self.recorder.scrutiny = Scrutiny(Record(), Catalogue(), b"k" * 32, time.time)
            folder.joinpath("spool").mkdir(exist_ok=True)
            self.recorder.journal = Journal(folder / "spool", Bounds(), time.time)
        self.upstream = cast(
            Any, SimpleNamespace(name="alpha", metrics=self.metrics.server("alpha"), place=Server("alpha"))
        )
        self._snapshot = SimpleNamespace(generation=1, shared=None, flags=None)
        self._principal = replace(
            ANONYMOUS,
            id="key:abcdefghijkl",
            tenant=TENANT,
            tenant_slug="acme",
            key_id="abcdefghijkl",
            source=Source.KEY,
        )
        self._route = SimpleNamespace(name="all", audit=None)
        headers, self._body = messages.call("modern")
        raw = messages.request(8080, "/all", headers, self._body)
        self._head = parse_head(raw[: raw.index(b"\r\n\r\n") + 4], Limits())

    def requests(self) -> list[RequestContext]:
        """As they are when their server is chosen."""
        return [self._request() for _ in range(REQUESTS)]

    def _request(self) -> RequestContext:
        exchange = SimpleNamespace(head=self._head, peer="192.0.2.7", secure=False)
        ctx = RequestContext(cast(Any, exchange), cast(Any, self._snapshot), 100.0)
        ctx.principal, ctx.route, ctx.body = self._principal, cast(Any, self._route), self._body
        ctx.envelope = read_envelope(self._body, ctx.fields)
        ctx.message, ctx.revision = ctx.envelope.first, ctx.envelope.revision
        ctx.upstream, ctx.status, ctx.tries, ctx.bytes_out = self.upstream, 200, 1, 456
        ctx.first_byte_at, ctx.authenticated_s, ctx.connected_s = 100.2, 0.00001, 0.00002
        return ctx


def whole(bench: Bench, requests: list[RequestContext]) -> None:
    """Everything, as the handler, `forward` and `relay` do it."""
    recorder, upstream = bench.recorder, bench.upstream
    for ctx in requests:
        ctx.id = recorder.new_id()
        recorder.begin(ctx)
        recorder.intend(ctx, upstream)
        recorder.answered(ctx, ANSWER)
        recorder.record(ctx, 100.25)


def names(bench: Bench, requests: list[RequestContext]) -> None:
    """The name of each request."""
    for ctx in requests:
        ctx.id = bench.recorder.new_id()


def nothing(bench: Bench, requests: list[RequestContext]) -> None:
    """The loop, and what is there without log, trail and names: requests in flight."""
    metrics = bench.metrics
    for ctx in requests:
        ctx.id = ""
        metrics.in_flight += 1
        metrics.in_flight -= 1


@dataclass
class Job:
    """One of these."""

    steps: Callable[[Bench, list[RequestContext]], None]
    bench: Bench
    runs_us: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Once for all requests, which are made anew since a record leaves its marks."""
        requests = self.bench.requests()
        began = time.process_time_ns()
        self.steps(self.bench, requests)
        self.runs_us.append((time.process_time_ns() - began) / REQUESTS / 1e3)
        self.bench.tally.take()

    @property
    def best_us(self) -> float:
        """Per request: of the fastest run, since everything else only adds to it."""
        return min(self.runs_us)


def jobs(folder: Path) -> dict[str, Job]:
    """All of it, its parts, and what is left without."""
    for name in ("all", "log", "trail", "none"):
        (folder / name).mkdir()
    everything = Bench(folder / "all")
    return {
        "rows_line_and_metrics": Job(whole, everything),
        "line_and_metrics": Job(whole, Bench(folder / "log", journal=False)),
        "rows_and_metrics": Job(whole, Bench(folder / "trail", log=False)),
        "metrics": Job(whole, Bench(folder / "none", journal=False, log=False)),
        "names": Job(names, everything),
        "nothing": Job(nothing, everything),
    }


def measure(rounds: int) -> dict[str, float]:
    """CPU microseconds of each by its name, per request."""
    with tempfile.TemporaryDirectory(prefix="mcpm-", dir=Path.cwd()) as folder:
        measured = jobs(Path(folder))
        for _ in range(rounds):  # in turns, so that a machine that is slow for a while is slow for all
            for job in measured.values():
                job.run()
    return {name: job.best_us for name, job in measured.items()}


def main() -> int:
    """Print the figures; 1 when one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few runs, and a target twice as wide")
    short = parser.parse_args().short
    measured = measure(10 if short else 60)
    for name, best_us in measured.items():
        print(f"{name}_us: {best_us:.2f}")
    cost_us = measured["rows_line_and_metrics"] - measured["nothing"]
    print(f"record_us: {cost_us:.2f}")
    target_us = TARGET_US * (2 if short else 1)  # a short run may fall into a slow moment of the machine
    return rig.conclude([rig.Figure("both rows, log line and metrics", cost_us, target_us, "us")])


if __name__ == "__main__":
    sys.exit(main())
