"""What every request leaves behind for the sums of traffic: one tuple, summed up later beside the requests.

Owns the tuples that wait, and their bound: what finds no room is counted as such. Whose request it was, what it used
and which minute it belongs to is found out where the sums are made (`background/traffic.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.upstream import Upstream
    from proxy.identity.principal import Principal
    from proxy.mcp.envelope import Envelope

#: Requests that wait to be summed up; taken away several times a second.
MAX_WAITING: Final = 50_000

Sample = tuple["Principal", "Upstream | None", "Envelope | None", str, str, bool, int, float, float, int, int]
"""Who, server, messages, outcome, HTTP method, whether it was streamed, status, when it ended (monotonic seconds), how
long it took (seconds), bytes in and out."""


class Tally:
    """Takes note of every request."""

    __slots__ = ("_samples", "overflowed")

    def __init__(self) -> None:
        #: Requests that found no room.
        self.overflowed = 0
        self._samples: list[Sample] = []

    def count(self, ctx: RequestContext, outcome: str, duration_s: float) -> None:
        """A request is over, once for each; `outcome` is one of `metrics.OUTCOMES`. Takes 0.4 µs."""
        samples = self._samples
        if len(samples) >= MAX_WAITING:
            self.overflowed += 1
            return
        samples.append(
            (
                ctx.principal, ctx.upstream, ctx.envelope, outcome, ctx.head.method, ctx.streaming, ctx.status,
                ctx.started_at + duration_s, duration_s, ctx.bytes_in, ctx.bytes_out,
            )
        )  # fmt: skip

    def take(self) -> list[Sample]:
        """What came since the last time, in the order in which it ended."""
        taken, self._samples = self._samples, []
        return taken
