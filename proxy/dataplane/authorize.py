"""The phase that says whether the principal may send this to the servers it would go to.

Scopes, what the credential is limited to, and the rules of `server_access_control` (docs/identity.md). Of several
servers those that are denied are passed over; when all are, the request is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from proxy.dataplane.context import PREFLIGHT
from proxy.errors import Forbidden, NoRoute, Refusal
from proxy.mcp.envelope import Kind, Message
from proxy.mcp.methods import Access

if TYPE_CHECKING:
    from proxy.dataplane.admission import Admission
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.upstream import Upstream

#: What a body that nobody reads may hold: anything, so it takes what the strongest message takes.
_ANYTHING: Final = (Message(Kind.REQUEST, "", None, Access.EXECUTE, "", ""),)
_NO_MESSAGE: Final = (None,)


def authorize(ctx: RequestContext, admission: Admission, now: float) -> None:
    """Fill `ctx.denied`, the names of servers that the request must not go to. `now`: wall clock, seconds.

    Raises NoRoute for servers of another tenant only, Forbidden when every server is denied.
    """
    if ctx.principal is PREFLIGHT:
        return  # it calls nothing, and the server says what pages may call
    messages, principal, ask = _messages(ctx), ctx.principal, admission.access.authorize
    denied: list[str] = []
    reason: Refusal = NoRoute("no server")
    permitted = False
    for upstream in _servers(ctx):
        try:
            for message in messages:
                ask(principal, upstream.place, message, now)
            permitted = True
        except (Forbidden, NoRoute) as refusal:
            denied.append(upstream.name)
            reason = refusal
    if not permitted:
        raise reason
    if denied:
        ctx.denied = denied


def _messages(ctx: RequestContext) -> Iterable[Message | None]:
    envelope = ctx.envelope
    if envelope is not None:
        return envelope.messages
    if ctx.head.method == "POST" or ctx.head.upgrade:
        return _ANYTHING
    return _NO_MESSAGE


def _servers(ctx: RequestContext) -> Iterable[Upstream]:
    if ctx.pinned is not None:
        return (ctx.pinned,)
    return ctx.route.servers.values() if ctx.route is not None else ()
