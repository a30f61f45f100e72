"""Whether a request goes to another server after one failed, or besides one that is slow. Pure decisions.

Owns which failures leave a request unsent, which requests may be sent twice, how often, and how much all of that may
add to the traffic. It must not know how servers are chosen, asked or judged.

- What was not sent goes to the next server, whatever it is.
- What may have been sent is sent again only if doing it twice is the same as doing it once: requests that read, and,
  where the route allows it, calls of tools that *both* servers call read-only or idempotent (MCP `ToolAnnotations`).
  Notifications and answers are sent once. So is what nobody has read (`inspect: none`, a streamed body).
- After a missed deadline nothing is sent again: the server may still be at it, and the client has waited long enough.
  Nor after the first byte of an answer.
- Retries and hedges share one budget. Where it is used up, the first failure is the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from proxy.errors import (
    CircuitOpen,
    ConnectFailed,
    PoolExhausted,
    QueueFull,
    QueueTimeout,
    Refusal,
    Shed,
    UnderMaintenance,
    UpstreamFailed,
)
from proxy.mcp.envelope import Kind
from proxy.mcp.methods import METHODS, Access

if TYPE_CHECKING:
    from proxy.config.resilience import Retry
    from proxy.config.resilience import RetryBudget as Settings
    from proxy.dataplane.catalogue import Item
    from proxy.dataplane.context import RequestContext
    from proxy.mcp.envelope import Message

#: Nothing was sent.
UNSENT: Final = (CircuitOpen, ConnectFailed, PoolExhausted, QueueFull, Shed, UnderMaintenance)
#: It has waited as long as it may, or what it holds is needed.
_FINAL: Final = (QueueTimeout, Shed)
#: They change what a session is told, so the first time counts.
_SUBSCRIBING: Final = frozenset(("resources/subscribe", "resources/unsubscribe"))
#: Methods that only read and whose answer ends.
REPEATABLE: Final = (
    frozenset(name for name, method in METHODS.items() if method.access is Access.READ and not method.long_lived)
    - _SUBSCRIBING
)
_CALL: Final = "tools/call"


class Tools(Protocol):
    """Where hints come from: the `Catalogue`."""

    def tool(self, server: str, name: str) -> Item | None:
        """What is known of a tool of a server, by its name at run time."""
        ...


class RetryBudget:
    """Retries and hedges that may be under way at once, of all servers together."""

    __slots__ = ("config", "refused", "requests", "retrying", "taken")

    def __init__(self, config: Settings) -> None:
        #: Replaced with the configuration.
        self.config = config
        #: Requests under way, and the retries and hedges among them. Whoever begins a request counts it up and down.
        self.requests = 0
        self.retrying = 0
        #: How often one was wanted: granted, and not.
        self.taken = self.refused = 0

    def begin(self) -> None:
        """A request has come."""
        self.requests += 1

    def end(self) -> None:
        """It is over."""
        self.requests -= 1

    def take(self) -> bool:
        """Whether one more may be under way; `give_back` must follow then."""
        wanted, config = self.retrying + 1, self.config
        if wanted > config.minimum and wanted * 100 > self.requests * config.percent:
            self.refused += 1
            return False
        self.retrying = wanted
        self.taken += 1
        return True

    def give_back(self) -> None:
        """A retry or hedge is over."""
        self.retrying -= 1


def was_sent(failure: Refusal) -> bool:
    """Whether a byte of the request may have left."""
    return not isinstance(failure, UNSENT)


def may_follow(ctx: RequestContext, failure: Refusal, sent: int, retry: Retry) -> bool:
    """Whether another server may be asked at all; for one that is picked then, `may_repeat` has to allow it, too.

    `sent`: how often the request may have left already, this time included.
    """
    if ctx.first_byte_at or ctx.exchange.started or isinstance(failure, _FINAL):
        return False
    if isinstance(failure, UNSENT):
        return True
    return isinstance(failure, UpstreamFailed) and sent < retry.attempts and _is_at_hand(ctx)


def may_repeat(ctx: RequestContext, retry: Retry, tools: Tools, *servers: str) -> bool:
    """Whether a request that one of `servers` may have got already may be sent to the others of them, too."""
    envelope = ctx.envelope
    if envelope is None or not _is_at_hand(ctx):
        return False
    hinted = retry.tools == "hinted"
    for message in envelope.messages:  # noqa: SIM110 - half the time of `all`, where every request may be hedged
        if not _is_safe(message, tools, servers, hinted):
            return False
    return True


def _is_at_hand(ctx: RequestContext) -> bool:
    """A POST whose body is held and was read. GET streams and the end of a session are no messages."""
    return ctx.body is not None and ctx.envelope is not None and ctx.head.method == "POST"


def _is_safe(message: Message, tools: Tools, servers: tuple[str, ...], hinted: bool) -> bool:
    if message.kind is not Kind.REQUEST:
        return False
    if message.method in REPEATABLE:
        return True
    if not hinted or message.method != _CALL or not servers:
        return False
    return all(_is_hinted(tools.tool(server, message.target)) for server in servers)


def _is_hinted(tool: Item | None) -> bool:
    """Read-only, or idempotent: then only the first call has an effect. No word of it is a no (MCP defaults)."""
    return tool is not None and (tool.hints.read_only is True or tool.hints.idempotent is True)
