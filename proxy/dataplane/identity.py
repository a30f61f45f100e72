"""The phase that says who asks, before anything of the body is read.

Every client is the anonymous principal of no tenant as long as no keys are configured; sessions and affinity are bound
to the principal all the same, so nothing behind this phase changes when there are more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.dataplane.context import ANONYMOUS

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext


def authenticate(ctx: RequestContext) -> None:
    """Set `ctx.principal` and `ctx.client_ip` from the connection."""
    ctx.principal = ANONYMOUS
    ctx.client_ip = ctx.exchange.peer
