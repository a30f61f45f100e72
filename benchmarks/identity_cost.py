"""What it costs to know who asks and what they may: CPU time of both phases, with every credential in memory.

    python -m benchmarks.identity_cost [--short]

The phases are called as the handler calls them, on heads that were read, with keys drawn at random; a figure is the
best of several runs. Then a real proxy is called in turns with a key and without a credential, and the CPU time of its
process compared: what a key costs all in all, reading a longer head included. The last line is `failed: N`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast
from urllib.parse import quote

from benchmarks import messages, rig
from benchmarks.load import Order, Target
from proxy.config.models import Config, Limits
from proxy.dataplane.admission import Admission, AdmissionBuilder, Freshness
from proxy.dataplane.authorize import authorize
from proxy.dataplane.context import RequestContext
from proxy.dataplane.head import parse_head
from proxy.dataplane.identity import authenticate
from proxy.identity.access import Server
from proxy.identity.keys import Minted, PepperRing, digest_of, mint
from proxy.mcp.envelope import read_envelope

TARGET_US: Final = 10.0
FLAT: Final = 1.5
"""With a thousand times as many keys: what misses of the processor's caches may cost, no more."""
TENANT: Final = "11111111-1111-1111-1111-111111111111"
SECRET: Final = "the secret of the front end's sign-in"
SESSION: Final = secrets.token_hex(16)
RING: Final = PepperRing({1: random.randbytes(32)})
#: Requests that are made beforehand, each with a key of its own.
REQUESTS: Final = 1000
FEW: Final = 10
MANY: Final = 10_000
LATER: Final = datetime.now(UTC) + timedelta(days=1)


def admission(keys: Sequence[Minted]) -> Admission:
    """A tenant with these keys, a session, and two rules of access, one with a time window."""
    scopes = ("proxy", "read", "write")
    rows: dict[str, dict[str, Any]] = {
        "tenants": {TENANT: SimpleNamespace(id=TENANT, slug="acme", status="active")},
        "user": {"u": SimpleNamespace(id="u", tenant_id=TENANT, role="user")},
        "session": {
            "s": SimpleNamespace(id="s", token_hash=digest_of(SESSION), user_id="u", expires_at=LATER),
        },
        "enhanced_api_keys": {
            key.id: SimpleNamespace(
                id=key.id, secret_hmac=key.secret_hmac, pepper_version=1, tenant_id=TENANT, scopes=scopes
            )
            for key in keys
        },
        "server_access_control": {
            "r1": SimpleNamespace(id="r1", tenant_id=TENANT, effect="deny", subject_type="role", subject_id="viewer"),
            "r2": SimpleNamespace(
                id="r2",
                tenant_id=TENANT,
                effect="deny",
                daily_from="03:00",
                daily_until="03:01",
                time_zone="Asia/Tokyo",
            ),
        },
    }
    config = Config.model_validate(
        {
            "servers": {"up": {"url": "http://up.test/mcp"}},
            "postgres": {"embedded": True},
            "auth": {"session_secret": SECRET},
        }
    )
    return AdmissionBuilder(lambda _: RING, Freshness(True)).build(config, rows)


def request(field: str) -> RequestContext:
    """A small call that has come as far as its route, with this header field."""
    headers, body = messages.call("modern")
    name, _, value = field.partition(": ")
    raw = messages.request(8080, "/up/mcp", headers | {name: value}, body)
    head = parse_head(raw[: raw.index(b"\r\n\r\n") + 4], Limits())
    exchange = SimpleNamespace(head=head, peer="192.0.2.7", secure=False)
    ctx = RequestContext(cast(Any, exchange), cast(Any, SimpleNamespace(shared=None, flags=None)), 0.0)
    ctx.envelope = read_envelope(body, ctx.fields)
    upstream = SimpleNamespace(name="up", place=Server("up", "", TENANT))
    ctx.route = cast(Any, SimpleNamespace(servers={"up": upstream}))
    return ctx


def cookie() -> str:
    """A session cookie as Better-Auth signs it."""
    signature = base64.b64encode(hmac.digest(SECRET.encode(), SESSION.encode(), hashlib.sha256)).decode()
    return f"Cookie: theme=dark; better-auth.session_token={quote(f'{SESSION}.{signature}', safe='')}"


Phase = Callable[[RequestContext, Admission, float], None]


@dataclass
class Job:
    """One phase, for requests of one kind, with so many keys in memory."""

    phase: Phase
    requests: list[RequestContext]
    admission: Admission
    best_us: float = float("inf")
    """Per request: of the fastest run, since everything else only adds to it."""

    def run(self) -> None:
        """Once for all requests."""
        phase, admitted, now = self.phase, self.admission, time.time()
        began = time.process_time_ns()
        for ctx in self.requests:
            phase(ctx, admitted, now)
        self.best_us = min(self.best_us, (time.process_time_ns() - began) / len(self.requests) / 1e3)


def jobs(count: int) -> dict[str, Job]:
    """All phases with so many keys."""
    keys = [mint(RING) for _ in range(count)]
    admitted = admission(keys)
    known = [request(f"Authorization: Bearer {random.choice(keys).text}") for _ in range(REQUESTS)]
    bearers = [request(f"Authorization: Bearer {SESSION}") for _ in range(REQUESTS)]
    cookies = [request(cookie()) for _ in range(REQUESTS)]
    made = {
        "authenticate": Job(authenticate, known, admitted),
        "authorize": Job(authorize, known, admitted),
        "authenticate_bearer": Job(authenticate, bearers, admitted),
        "authenticate_cookie": Job(authenticate, cookies, admitted),
    }
    for job in made.values():  # the first one of all finds the principals that the second asks about
        job.run()
    return made


def proxied(rounds: int, seconds: float) -> tuple[float, float, float]:
    """CPU microseconds per proxied call without a credential and with a key, and the median of the ratios."""
    with tempfile.TemporaryDirectory(prefix="mcpm-") as folder, rig.start_upstream() as upstream, rig.Load() as load:
        Path(folder).chmod(0o711)  # the embedded server runs as another user when we are root
        state = Path(folder, "state")
        config = rig.demo_config(upstream.port) | {"postgres": {"embedded": True}, "state_dir": str(state)}
        with rig.start_proxy(Path(folder), config) as proxy:
            key = (state / "first-key").read_text().strip()
            places = [Target("/demo/mcp"), Target("/demo/mcp", headers={"Authorization": f"Bearer {key}"})]
            orders = [Order(proxy.port, [place], "modern", seconds=seconds) for place in places]

            def cpu_us(which: int) -> float:
                before = proxy.cpu_ns()
                calls = load.run(orders[which]).calls
                return (proxy.cpu_ns() - before) / calls / 1e3

            for which in (0, 1):
                cpu_us(which)  # warm up
            found: list[list[float]] = [[], []]
            for number in range(rounds):
                for which in (0, 1) if number % 2 else (1, 0):
                    found[which].append(cpu_us(which))
    ratios = [known / anonymous for anonymous, known in zip(*found, strict=True)]
    return statistics.median(found[0]), statistics.median(found[1]), statistics.median(ratios)


def main() -> int:
    """Print the figures; 1 when one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few runs, targets twice as wide, and no proxy")
    short = parser.parse_args().short
    runs = 20 if short else 200
    few, many = jobs(FEW), jobs(MANY)
    for _ in range(runs):  # in turns, so that a machine that is slow for a while is slow for all
        for job in (*few.values(), *many.values()):
            job.run()
    for name, job in many.items():
        print(f"{name}_us: {job.best_us:.2f}")
    target_us = TARGET_US * (2 if short else 1)  # a short run may fall into a slow moment of the machine
    figures = [rig.Figure(f"{name}, {MANY:,} keys", job.best_us, target_us, "us") for name, job in many.items()]
    ratio = many["authenticate"].best_us / few["authenticate"].best_us
    figures.append(rig.Figure(f"authenticate, {MANY:,} keys by {FEW}", ratio, FLAT * (2 if short else 1), "x"))
    if not short:
        anonymous_us, known_us, ratio = proxied(20, 1.0)
        print(f"proxied_call_us: {anonymous_us:.1f} without a credential, {known_us:.1f} with a key")
        print(f"key_to_anonymous: {ratio:.3f}")
    return rig.conclude(figures)


if __name__ == "__main__":
    sys.exit(main())
