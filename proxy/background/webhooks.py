"""Tells webhooks of alerts: each at its own pace, in order, again and again until it is taken.

Owns who is told what, what waits, and when it is tried again. A receiver that is slow or gone holds up no other one.
A notification is delivered at least once for as long as this process lives; each try carries the same id. What was not
taken in `give_up_after`, or finds no room, is counted and named in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final

from proxy.background.webhook_sender import Outcome, Sender, body_of
from proxy.identity.records import SYSTEM_TENANT
from proxy.metrics import Family

if TYPE_CHECKING:
    from proxy.background.alert_states import Notice
    from proxy.background.observing import Clocks
    from proxy.config.alerts import Webhook
    from proxy.dataplane.resolver import Resolver
    from proxy.log import Logger

Spawn = Callable[[str, Coroutine[Any, Any, None]], bool]
"""Starts a named one-shot task; False (and the coroutine closed) when too many run already."""

#: How often `step` is called, seconds.
STEP_S: Final = 0.25
#: Notifications that wait for one receiver.
_MOST_WAITING: Final = 1000
#: The first wait after a failed try, and the longest; each is twice as long as the one before, and drawn from its
#: upper half.
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 300.0
#: Tries of one that the receiver does not want: what it says may be a mistake that is mended soon.
_HOPELESS_TRIES: Final = 5
_RANKS: Final = {"low": 0, "medium": 1, "high": 2, "critical": 3}


@dataclass(slots=True)
class _Waiting:
    """A notification that was not taken yet."""

    id: str
    body: bytes
    since: float
    """Monotonic seconds."""
    tries: int = 0


class Receiver:
    """One webhook, and what waits for it."""

    def __init__(self, name: str, sender: Sender, clocks: Clocks, draw: Callable[[], float], log: Logger) -> None:
        self.name = name
        self.sender = sender
        self.waiting: deque[_Waiting] = deque()
        #: One is being sent; this receiver is no longer wanted.
        self.busy = self.closed = False
        #: Notifications that were taken, tries that failed, and notifications that were given up or had no room.
        self.delivered = self.failed = self.lost = 0
        self._clocks = clocks
        self._draw = draw
        self._log = log
        self._due_at = -inf

    @property
    def due(self) -> bool:
        """Whether there is something to send now."""
        return bool(self.waiting) and not self.busy and self._clocks.monotonic() >= self._due_at

    def add(self, notice: str, body: bytes) -> None:
        """Have it sent. The oldest that is not under way makes room if there is none."""
        if len(self.waiting) >= _MOST_WAITING:
            oldest = 1 if self.busy else 0
            self._give_up(self.waiting[oldest], "no room")
            del self.waiting[oldest]
        self.waiting.append(_Waiting(notice, body, self._clocks.monotonic()))

    async def run(self) -> None:
        """Send what waits until nothing does, or a try fails."""
        self.busy = True
        try:
            while self.waiting and not self.closed:
                first = self.waiting[0]
                outcome = await self.sender.send(first.body, first.id)
                if self.closed or not self._settle(first, outcome):
                    return
        finally:
            self.busy = False

    def _settle(self, first: _Waiting, outcome: Outcome) -> bool:
        """What follows from a try; whether the next one may be sent at once."""
        first.tries += 1
        if outcome.delivered:
            self._remove(first)
            self.delivered += 1
            self._due_at = -inf
            return True
        self.failed += 1
        if first.tries == 1:
            self._log.warning("a webhook does not take a notification", webhook=self.name, reason=outcome.reason)
        age_s = self._clocks.monotonic() - first.since
        if age_s >= self.sender.config.give_up_after or (outcome.hopeless and first.tries >= _HOPELESS_TRIES):
            self._remove(first)
            self._give_up(first, outcome.reason)
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(first.tries - 1, 30)) * (1 + self._draw()) / 2
        self._due_at = self._clocks.monotonic() + max(wait_s, outcome.wait_s)
        return False

    def _remove(self, first: _Waiting) -> None:
        """At the end of the process two may have sent it."""
        if self.waiting and self.waiting[0] is first:
            self.waiting.popleft()

    def _give_up(self, one: _Waiting, reason: str) -> None:
        self.lost += 1
        self._log.error(
            "a notification was given up", webhook=self.name, notice=one.id, reason=reason, tries=one.tries
        )  # fmt: skip


class Webhooks:
    """All receivers."""

    def __init__(
        self, spawn: Spawn, clocks: Clocks, draw: Callable[[], float], log: Logger, resolver: Resolver | None = None
    ) -> None:
        """`draw` gives a number, 0 <= x < 1."""
        self._spawn = spawn
        self._clocks = clocks
        self._draw = draw
        self._log = log
        self._resolver = resolver
        self._receivers: dict[str, Receiver] = {}

    @property
    def waiting(self) -> int:
        """Notifications that were not taken yet."""
        return sum(len(receiver.waiting) for receiver in self._receivers.values())

    def configure(self, webhooks: Mapping[str, Webhook]) -> None:
        """Take a (new) configuration. What waits for a receiver that is still there is sent in the new way."""
        before, self._receivers = self._receivers, {}
        for name, config in webhooks.items():
            known = before.get(name)
            if known is not None and known.sender.config == config:
                self._receivers[name] = before.pop(name)
                continue
            try:
                sender = Sender(config, self._clocks.wall, self._resolver)
            except OSError as error:
                self._log.error("a webhook cannot be used", webhook=name, reason=type(error).__name__)
                continue
            made = self._receivers[name] = Receiver(name, sender, self._clocks, self._draw, self._log)
            if known is not None:
                made.waiting.extend(known.waiting)
        for receiver in before.values():
            receiver.closed = True
            self._spawn("close webhook", receiver.sender.close())

    def tell(self, notice: Notice) -> None:
        """Have everyone told whom it concerns."""
        concerned = [receiver for receiver in self._receivers.values() if _concerns(notice, receiver)]
        if concerned:
            body = body_of(notice)
            for receiver in concerned:
                receiver.add(str(notice.id), body)
            self.step()

    def step(self) -> None:
        """Start sending what is due."""
        for receiver in self._receivers.values():
            if receiver.due:
                receiver.busy = True
                receiver.busy = self._spawn("webhook", receiver.run())

    async def finish(self, deadline_s: float) -> None:
        """Try once more what waits, for so long at most; then end all connections."""
        late = [receiver for receiver in self._receivers.values() if receiver.waiting]
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await asyncio.gather(*(receiver.run() for receiver in late))
        if self.waiting:
            self._log.warning("notifications of alerts are lost with the end of the process", count=self.waiting)
        for receiver in self._receivers.values():
            receiver.closed = True
            await receiver.sender.close()

    def families(self) -> Iterator[Family]:
        """The metrics of webhooks."""
        for attribute, kind, name, purpose in _FAMILIES:
            rows = [
                (f'{{webhook="{receiver.name}"}}', float(_count(getattr(receiver, attribute))))
                for receiver in self._receivers.values()
            ]
            yield Family(kind, f"mcp_proxy_webhook_{name}", purpose, rows)


_FAMILIES: Final = (
    ("waiting", "gauge", "waiting", "Notifications that a webhook has not taken yet"),
    ("delivered", "counter", "delivered", "Notifications that a webhook took"),
    ("failed", "counter", "failures", "Tries that failed"),
    ("lost", "counter", "lost", "Notifications that were given up or had no room"),
)


def _count(value: int | deque[_Waiting]) -> int:
    return value if isinstance(value, int) else len(value)


def _concerns(notice: Notice, receiver: Receiver) -> bool:
    """The operator's rules are told to whom they name, or to all; a tenant's to whom they name and may."""
    rule, config = notice.episode.rule, receiver.sender.config
    if _RANKS[rule.severity] < _RANKS[config.min_severity]:
        return False
    if rule.channels is None:
        return rule.tenant == SYSTEM_TENANT
    return receiver.name in rule.channels and (config.tenants or rule.tenant == SYSTEM_TENANT)
