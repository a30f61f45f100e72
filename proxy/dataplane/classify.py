"""The phase that says whom a request goes before, and refuses those for whom an overloaded process has no room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.dataplane.shedding import check_load

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.shedding import Load


def classify(ctx: RequestContext, load: Load) -> None:
    """Fill `ctx.priority`. Raises Shed."""
    ctx.priority = ctx.snapshot.ranking.priority_of(ctx)
    check_load(load, ctx.priority, ctx.message.method if ctx.message is not None else "")
