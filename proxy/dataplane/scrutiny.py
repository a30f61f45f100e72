"""What the record says of a call besides the bare facts: how risky it is, and what of its content is kept.

Owns where both come from: hints of the tool from the catalogue, scopes from the principal, arguments from the body.
How risk is rated is `audit/risk.py`'s, what is kept of content `capture.py`'s. It never waits and never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.audit.risk import RiskRules
from proxy.dataplane.capture import Captures
from proxy.identity.principal import Scope

if TYPE_CHECKING:
    from proxy.audit.risk import Hints
    from proxy.config.record import Record
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.retries import Tools
    from proxy.dataplane.upstream import Upstream

#: From here on somebody should hear of it.
_ALARMING: Final = frozenset(("high", "critical"))
#: Statuses from here on are nobody's fault who asked.
_SERVER_ERROR: Final = 500


class Scrutiny:
    """One for the whole process; a reload replaces what it goes by."""

    def __init__(self, config: Record, tools: Tools, key: bytes, wall: Callable[[], float]) -> None:
        """`key` is that of digests of arguments; `wall` gives seconds since 1970."""
        self._tools = tools
        self._key = key
        self._wall = wall
        #: Told of calls that are alarming.
        self.risky: Callable[[RequestContext, str, tuple[str, ...]], None] = lambda ctx, level, reasons: None
        self._config = config
        self._rules = RiskRules(config.risk)
        self._captures = self._captures_of(config)

    def configure(self, config: Record) -> None:
        """A reloaded configuration is in force. What is usual for whom stays known."""
        kept = self._rules.habits if config.risk.volume == self._config.risk.volume else None
        self._rules = RiskRules(config.risk, kept)
        self._captures = self._captures_of(config)
        self._config = config

    def call(self, ctx: RequestContext, upstream: Upstream) -> None:
        """A call is about to be sent: rate it, and keep of its arguments what is to be kept."""
        message = ctx.message
        item = self._tools.tool(upstream.name, message.target) if message is not None and message.target else None
        self._rate(ctx, item.hints if item is not None else None, "")
        kept = self._captures.of_request(ctx.body, ctx.envelope)
        if kept is not None:
            ctx.content = {"arguments": kept.value, "arguments_hash": kept.digest}

    def refusal(self, ctx: RequestContext) -> None:
        """A request was refused before anything of it was sent."""
        refusal = ctx.refusal
        self._rate(ctx, None, refusal.reason if refusal is not None and refusal.status < _SERVER_ERROR else "")

    def answer(self, ctx: RequestContext, headers: Headers) -> None:
        """An answer begins: overhear it, if results are kept."""
        ctx.capture = self._captures.of_answer(headers)

    def _rate(self, ctx: RequestContext, hints: Hints | None, denied: str) -> None:
        principal = ctx.principal
        verdict = self._rules.assess(
            ctx.message, hints, principal.id, Scope.ADMIN in principal.scopes, denied, self._wall()
        )
        ctx.risk = verdict.level
        if verdict.reasons:
            ctx.risk_reasons = verdict.reasons
            if verdict.level in _ALARMING:
                self.risky(ctx, verdict.level, verdict.reasons)

    def _captures_of(self, config: Record) -> Captures:
        return Captures(config.arguments, config.results, config.max_content, self._key)
