"""What became of a request, out of what its buckets say.

Owns which rule is named: of those that refuse the one to wait for longest, otherwise the one nearest to refusing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from proxy.limits.rules import Demand, Rule

__all__ = ["UNLIMITED", "Verdict", "judged"]


class Verdict(NamedTuple):
    """Whether a request may pass, and what its client can be told."""

    allowed: bool
    rule: Rule | None = None
    """The one that refuses and is to be waited for longest; None if allowed."""
    retry_after_s: float = 0.0
    remaining: float = 0.0
    """Tokens left: of the rule that refuses, or of the one that has least left of what it holds at most."""
    limit: float = 0.0
    """What that one holds at most; 0: nothing limits the request."""
    shadowed: tuple[Rule, ...] = ()
    """Rules that would have refused, were they enforced."""
    source: Literal["redis", "local"] = "local"


UNLIMITED: Final = Verdict(True)


def judged(
    demands: Sequence[Demand], remaining: Sequence[float], waits: Sequence[float], source: Literal["redis", "local"]
) -> Verdict:
    """The verdict on demands of which each has so much left, and is to be waited for so many seconds; 0: it passes."""
    longest_s, least = 0.0, 2.0
    refusing: Demand | None = None
    left = limit = 0.0
    shadowed: tuple[Rule, ...] = ()
    for demand, tokens, wait_s in zip(demands, remaining, waits, strict=True):
        rule = demand.rule
        if not rule.enforce:
            if wait_s > 0:
                shadowed += (rule,)
        elif wait_s > longest_s:
            refusing, longest_s, left, limit = demand, wait_s, tokens, rule.capacity
        elif refusing is None and tokens < least * rule.capacity:
            least, left, limit = tokens / rule.capacity, tokens, rule.capacity
    if refusing is None:
        return Verdict(True, None, 0.0, left, limit, shadowed, source)
    return Verdict(False, refusing.rule, longest_s, left, limit, shadowed, source)
