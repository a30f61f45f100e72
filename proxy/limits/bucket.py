"""Token buckets, some with a sliding window beside them, and the decision over all that concern one request.

Owns the arithmetic: `dataplane/token_bucket.lua` does the same with the state in Redis, and the tests compare the two.
It must not know where the numbers of a rule come from, nor what a subject is. Pure: the caller says what time it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

__all__ = ["LONGEST_WAIT_S", "Ask", "Bucket", "Buckets", "Fair", "Outcome"]

#: What "never" is told as; seconds.
LONGEST_WAIT_S: Final = 86_400.0
#: A window that has no room has none for so long at least, whatever rounding says; seconds.
_SHORTEST_WAIT_S: Final = 0.001


class Ask(NamedTuple):
    """One bucket, and what is asked of it."""

    key: bytes
    capacity: float
    refill_per_s: float
    cost: float
    #: 0: no window.
    window_s: float = 0.0
    window_limit: float = 0.0
    #: Otherwise it never refuses, and is not taken from when it would have.
    enforce: bool = True


class Fair(NamedTuple):
    """What the tenant of the request may take of a bucket that all share."""

    key: bytes
    #: Which of the asks is for the bucket that all share; from 0.
    shared: int
    capacity: float
    refill_per_s: float
    #: What nobody may touch that is over its share.
    reserve: float


class Outcome(NamedTuple):
    """The decision, and for each ask what remains and the seconds until it lets the request pass; 0: it does."""

    allowed: bool
    remaining: Sequence[float]
    waits: Sequence[float]


class Bucket:
    """The state for one subject at one time."""

    __slots__ = ("ask", "at", "before", "number", "tokens", "used")

    def __init__(self, tokens: float, now: float) -> None:
        """A bucket with so many tokens at the time `now` (s), and an unused window."""
        #: What was asked of it last; None: nothing yet, or it is that of a share.
        self.ask: Ask | None = None
        self.tokens = tokens
        self.at = now
        #: Which window since time 0 was the last, what was used in it and in the one before.
        self.number = -1.0
        self.used = 0.0
        self.before = 0.0

    def brought_to(self, now: float, ask: Ask | Fair) -> Bucket:
        """The same at the time `now` (s). A clock that went back adds nothing, and counting goes on from there."""
        tokens = self.tokens
        if now > self.at:
            tokens += (now - self.at) * ask.refill_per_s
        later = Bucket(min(tokens, ask.capacity), now)
        if isinstance(ask, Ask):
            later.ask = ask
            if ask.window_s > 0:
                later._turn(self, math.floor(now / ask.window_s))
        return later

    def _turn(self, earlier: Bucket, number: float) -> None:
        self.number = number
        if number <= earlier.number:
            self.used, self.before = earlier.used, earlier.before
        elif number == earlier.number + 1:
            self.before = earlier.used

    def until_filled(self, need: float, ask: Ask | Fair) -> float:
        """Seconds until it holds `need`."""
        if self.tokens >= need:
            return 0.0
        if need > ask.capacity or ask.refill_per_s <= 0:
            return LONGEST_WAIT_S
        return min((need - self.tokens) / ask.refill_per_s, LONGEST_WAIT_S)

    def until_room(self, ask: Ask) -> float:
        """Seconds until the window has room: what was used before slides out of it."""
        if ask.window_s <= 0:
            return 0.0
        over = self.at / ask.window_s - self.number
        if self.in_window(ask) + ask.cost <= ask.window_limit:
            return 0.0
        if ask.cost > ask.window_limit:
            return LONGEST_WAIT_S
        room = ask.window_limit - ask.cost - self.used
        if room >= 0:
            windows = 1 - room / self.before - over
        else:
            windows = 1 - over + 1 - (ask.window_limit - ask.cost) / self.used
        return min(max(windows * ask.window_s, _SHORTEST_WAIT_S), LONGEST_WAIT_S)

    def in_window(self, ask: Ask) -> float:
        """What was used in the window that ends now, as if the one before had been used evenly."""
        return self.before * (1 - (self.at / ask.window_s - self.number)) + self.used

    def remaining(self, ask: Ask) -> float:
        """What could be taken now, of the tokens and of the window."""
        if ask.window_s <= 0:
            return self.tokens
        return max(0.0, min(self.tokens, ask.window_limit - self.in_window(ask)))


class Buckets:
    """The buckets of one process: those that were asked last, in bounded number."""

    def __init__(self, capacity: int, tokens_of: Callable[[Ask, float], float] | None = None) -> None:
        """Keeps `capacity` buckets; `tokens_of(ask, now)` says what a new one holds, instead of all it can."""
        self._capacity = capacity
        self._tokens_of = tokens_of
        #: In the order of their last use.
        self.by_key: dict[bytes, Bucket] = {}

    def take(self, asks: Sequence[Ask], fair: Fair | None, now: float) -> Outcome:
        """Check all, and take from all if all that are enforced let it pass. `now`: seconds, of one clock."""
        buckets = [self._get(ask, now) for ask in asks]
        waits = [
            max(bucket.until_filled(ask.cost, ask), bucket.until_room(ask))
            for bucket, ask in zip(buckets, asks, strict=True)
        ]
        share = None if fair is None else self._get(fair, now)
        if fair is not None and share is not None:
            shared, ask = buckets[fair.shared], asks[fair.shared]
            waits[fair.shared] = max(_until_shared(shared, share, ask, fair), shared.until_room(ask))
        allowed = all(wait == 0 or not ask.enforce for ask, wait in zip(asks, waits, strict=True))
        for bucket, ask, wait in zip(buckets, asks, waits, strict=True):
            self._take(bucket, ask, ask.cost if allowed and wait == 0 else None)
        if fair is not None and share is not None:
            cost = asks[fair.shared].cost
            within = allowed and waits[fair.shared] == 0 and share.tokens >= cost
            self._take(share, fair, cost if within else None)
        left = tuple(bucket.remaining(ask) for bucket, ask in zip(buckets, asks, strict=True))
        return Outcome(allowed, left, tuple(waits))

    def _get(self, ask: Ask | Fair, now: float) -> Bucket:
        bucket = self.by_key.get(ask.key)
        if bucket is None:
            tokens_of = self._tokens_of
            tokens = ask.capacity if tokens_of is None or isinstance(ask, Fair) else tokens_of(ask, now)
            bucket = Bucket(tokens, now)
        return bucket.brought_to(now, ask)

    def _take(self, bucket: Bucket, ask: Ask | Fair, cost: float | None) -> None:
        """Keep a bucket from which so much is taken; one from which nothing is (None) only if the clock went back."""
        before = self.by_key.pop(ask.key, None)
        if cost is None:
            kept = bucket if before is not None and bucket.at < before.at else before
        else:
            bucket.tokens -= cost
            bucket.used += cost
            kept = bucket
        if kept is not None:
            self.by_key[ask.key] = kept
            if len(self.by_key) > self._capacity:
                del self.by_key[next(iter(self.by_key))]


def _until_shared(shared: Bucket, share: Bucket, ask: Ask, fair: Fair) -> float:
    """Who has a token of its own share needs no more than the cost, everybody else leaves the reserve alone."""
    own = shared.until_filled(ask.cost, ask)
    if share.tokens >= ask.cost:
        return own
    return min(max(own, share.until_filled(ask.cost, fair)), shared.until_filled(ask.cost + fair.reserve, ask))
