"""What forwarding needs besides the request: one of each for the whole process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from proxy.dataplane.lists import keep_nothing
from proxy.dataplane.mirror import Mirrors
from proxy.dataplane.retries import RetryBudget, Tools
from proxy.dataplane.shedding import Load
from proxy.dataplane.streams import Streams

if TYPE_CHECKING:
    from proxy.dataplane.lessons import Lessons
    from proxy.dataplane.lists import Keeps
    from proxy.dataplane.ratelimit import Limiter
    from proxy.dataplane.recorder import Recorder
    from proxy.limits.rules import Rule

    Violated = Callable[[Rule, str, str, str, float, float], None]
    """(rule, subject, tenant, client's address, what the rule holds, seconds to wait; 0 for one not enforced)."""


class Parts(NamedTuple):
    """Built by the composition root, handed to the handler."""

    streams: Streams
    mirrors: Mirrors
    clock: Callable[[], float]
    """Monotonic seconds."""
    load: Load
    """How busy the process is."""
    budget: RetryBudget
    """What retries may add to the traffic."""
    tools: Tools
    """What servers said of their tools."""
    keeps: Keeps = keep_nothing
    """Says of an answer which items of its lists the client may use."""
    lessons: Lessons | None = None
    """Keeps lists that pass; None: nothing is learned."""
    limiter: Limiter | None = None
    """Counts what is used; None: nothing is limited."""
    violated: Violated | None = None
    """Told of each rule that refused or would have."""
    recorder: Recorder | None = None
    """Writes down a call before it is sent; None: nothing is recorded."""
    weight_of: Callable[[str], float] = lambda tenant: 1.0
    """Share of a tenant, by its id, where tenants wait for the same."""
