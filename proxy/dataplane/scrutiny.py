"""What the record says of a call besides the bare facts: how risky it is, and what of its content is kept.

Owns where both come from: hints of the tool from the catalogue, scopes from the principal, arguments from the body.
How risk is rated is `audit/risk.py`'s, what is kept of content `capture.py`'s. It never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.audit.risk import LEVELS, LOW, RiskRules
from proxy.dataplane.capture import Captures
from proxy.identity.principal import Scope

if TYPE_CHECKING:
    from proxy.audit.risk import Verdict
    from proxy.config.record import Record
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.retries import Tools
    from proxy.dataplane.upstream import Upstream
    from proxy.mcp.envelope import Message

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
        #: Of sets of scopes, of which there are a few.
        self._admins: dict[frozenset[Scope], bool] = {}
        self._config = config
        self._rules = RiskRules(config.risk)
        self._keep(config)

    def configure(self, config: Record) -> None:
        """A reloaded configuration is in force. What is usual for whom stays known."""
        kept = self._rules.habits if config.risk.volume == self._config.risk.volume else None
        self._rules = RiskRules(config.risk, kept)
        self._keep(config)
        self._config = config

    def call(self, ctx: RequestContext, upstream: Upstream) -> None:
        """A call is about to be sent: rate it."""
        envelope = ctx.envelope
        if envelope is not None and envelope.batch:  # the first message may be harmless
            rated = [self._rated(ctx, message, upstream, "") for message in envelope.messages]
            self._note(ctx, max(rated, key=lambda verdict: LEVELS.index(verdict.level)))
        else:
            self._note(ctx, self._rated(ctx, ctx.message, upstream, ""))

    def keep_arguments(self, ctx: RequestContext) -> None:
        """Keep of its arguments what is to be kept."""
        kept = self._captures.of_request(ctx.body, ctx.envelope)
        if kept is not None:
            ctx.content = {"arguments": kept.value, "arguments_hash": kept.digest}

    def refusal(self, ctx: RequestContext) -> None:
        """A request was refused before anything of it was sent."""
        refusal = ctx.refusal
        denied = refusal.reason if refusal is not None and refusal.status < _SERVER_ERROR else ""
        self._note(ctx, self._rated(ctx, ctx.message, None, denied))

    def answer(self, ctx: RequestContext, headers: Headers) -> None:
        """An answer begins: overhear it, for what is to be kept of it."""
        ctx.capture = self._captures.of_answer(headers)

    def _rated(self, ctx: RequestContext, message: Message | None, upstream: Upstream | None, denied: str) -> Verdict:
        principal, hints = ctx.principal, None
        if upstream is not None and message is not None and message.target:
            item = self._tools.tool(upstream.name, message.target)
            hints = item.hints if item is not None else None
        admin = self._admins.get(principal.scopes)  # looking for an Enum takes five times as long
        if admin is None:
            admin = self._admins[principal.scopes] = Scope.ADMIN in principal.scopes
        return self._rules.assess(message, hints, principal.id, admin, denied, self._wall())

    def _note(self, ctx: RequestContext, verdict: Verdict) -> None:
        if verdict is LOW:
            ctx.risk = "low"
        else:
            ctx.risk = verdict.level
            ctx.risk_reasons = verdict.reasons
            if verdict.level in _ALARMING:
                self.risky(ctx, verdict.level, verdict.reasons)

    def _keep(self, config: Record) -> None:
        self._captures = Captures(config.arguments, config.results, config.max_content, self._key)
        self.keeps_arguments, self.keeps_results = config.arguments != "none", config.results != "none"
