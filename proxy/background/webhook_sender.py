"""Posts a signed notification to one receiver, once.

Owns the body, the signature, and what an answer means; docs/alerts.md describes them for receivers. A receiver may only
stand where `Webhook.allow_private_networks` permits or on a public address: that is checked of the address that its
name has led to, at each connect. Redirects are not followed, and the body of an answer is not read. Neither URL nor
secret is in what is said of a failure. When to try again is the business of `webhooks.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson

from proxy.config.models import Pool, Server, UpstreamTls
from proxy.config.reachable import Reachable
from proxy.dataplane.client import UpstreamClient, origin_of
from proxy.dataplane.deadlines import Deadlines
from proxy.errors import ConnectFailed, Refusal
from proxy.metrics import ServerMetrics

if TYPE_CHECKING:
    import socket

    from proxy.background.alert_states import Notice
    from proxy.config.alerts import Webhook
    from proxy.dataplane.resolver import Resolver

VERSION: Final = 1
SIGNATURE: Final = "MCP-Manager-Signature"
_NOT_PERMITTED: Final = "its address is not permitted"
#: Answers after which the same may be taken later: 408 Request Timeout, 425 Too Early, 429 Too Many Requests.
_LATER: Final = (408, 425, 429)
#: Longest `Retry-After` that is believed, seconds.
_LONGEST_WAIT_S: Final = 3600.0
#: Digits of a number of seconds that is read as one: more are more than that anyway.
_DIGITS: Final = 12


class Outcome(NamedTuple):
    """How a try ended."""

    delivered: bool
    reason: str = ""
    """Why not, in a few words."""
    hopeless: bool = False
    """The receiver understood, and does not want it: 4xx, or a redirect."""
    wait_s: float = 0.0
    """It asked to be left alone for so long."""


def body_of(notice: Notice) -> bytes:
    """The notification as JSON; the same in each try."""
    episode, rule = notice.episode, notice.episode.rule
    return orjson.dumps(
        {
            "version": VERSION,
            "id": str(notice.id),
            "status": notice.status,
            "alert": rule.name,
            "severity": rule.severity,
            "metric": rule.metric,
            "comparison": rule.comparison,
            "threshold": rule.threshold,
            "value": episode.value,
            "labels": {
                "tenant": rule.owner, "server": episode.series or rule.server or None, "instance": episode.instance
            },
            "episode": str(episode.id),
            "started_at": _moment(episode.started_at),
            "resolved_at": _moment(episode.resolved_at),
            "ended": episode.ended,
        }
    )  # fmt: skip


def signature(secret: str, body: bytes, at: int) -> str:
    """What goes into the field `MCP-Manager-Signature`; `at`: seconds since 1970."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256)
    return f"t={at},v1={digest.hexdigest()}"


class Sender:
    """The way to one receiver. Made without I/O; connects with the first notification."""

    def __init__(self, config: Webhook, wall: Callable[[], float], resolver: Resolver | None = None) -> None:
        """`wall` gives seconds since 1970. Raises OSError for a file of authorities that cannot be read."""
        url = config.url.get_secret_value()
        self.config = config
        self._wall = wall
        self._host = urlsplit(url).netloc
        #: Whether addresses were refused in this try, and none was permitted.
        self._refused_address = False
        self._permitted_address = False
        server = Server(url=url, pool=Pool(max_connections=2), tls=UpstreamTls(ca=config.ca))
        self._client = UpstreamClient(
            server, ServerMetrics("webhook", str), Deadlines(wall), Reachable(config.allow_private_networks), resolver
        )
        self._guarded = self._client.new_socket
        self._client.new_socket = self._new_socket

    async def send(self, body: bytes, notice: str) -> Outcome:
        """One try; `notice`: its id. Takes `timeout` at most, and raises nothing."""
        self._refused_address = self._permitted_address = False
        try:
            async with asyncio.timeout(self.config.timeout):
                response = await self._client.send("POST", "", self._fields(body, notice), body)
        except TimeoutError:
            return Outcome(False, _NOT_PERMITTED if self._refused_address else "no answer in time")
        except ConnectFailed as error:
            return Outcome(False, _NOT_PERMITTED if self._refused_address else f"no connection ({origin_of(error)})")
        except Refusal:
            return Outcome(False, "the connection was lost")
        response.close()
        return _read(response.status, {name.lower(): value for name, value in response.headers}, self._wall())

    async def close(self) -> None:
        """End the connections."""
        await self._client.close()

    def _fields(self, body: bytes, notice: str) -> list[tuple[str, str]]:
        """A fresh signature for each try: receivers may refuse old ones."""
        config = self.config
        return [
            ("Host", self._host),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("User-Agent", "mcp-manager"),
            ("MCP-Manager-Notice", notice),
            (SIGNATURE, signature(config.secret.get_secret_value(), body, int(self._wall()))),
            *((name, value.get_secret_value()) for name, value in config.headers.items()),
        ]

    def _new_socket(self, address: tuple[Any, ...]) -> socket.socket:
        try:
            made = self._guarded(address)
        except PermissionError:
            self._refused_address = not self._permitted_address
            raise
        self._permitted_address, self._refused_address = True, False
        return made


def _read(status: int, fields: dict[str, str], now: float) -> Outcome:
    if 200 <= status < 300:
        return Outcome(True)
    wait_s = min(max(_asked_s(fields.get("retry-after", ""), now), 0.0), _LONGEST_WAIT_S)
    return Outcome(False, f"status {status}", status < 500 and status not in _LATER, wait_s)


def _asked_s(retry_after: str, now: float) -> float:
    """Seconds from now; 0 for what is neither a number of them nor a date (RFC 9110 section 10.2.3)."""
    if retry_after.isdecimal():
        return float(retry_after) if len(retry_after) <= _DIGITS else inf
    try:
        at = parsedate_to_datetime(retry_after)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0


def _moment(at: float | None) -> str | None:
    """RFC 3339, in UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
