"""Which unknown credentials the database may be asked about, so that guessing costs it nothing.

Owns the negative cache and the budget of questions: a directory holds every credential, so an unknown one is either
wrong or younger than the last change that was heard of. It knows no credential beyond its name or digest.
"""

from __future__ import annotations

from collections import OrderedDict


class Misses:
    """At most one question per credential and `ttl_s`, and at most `per_s` questions per second in all."""

    __slots__ = ("_allowance", "_capacity", "_filled_at", "_per_s", "_seen", "_ttl_s")

    def __init__(self, *, capacity: int = 10_000, ttl_s: float = 5.0, per_s: float = 20.0) -> None:
        self._capacity = capacity
        self._ttl_s = ttl_s
        self._per_s = per_s
        self._allowance = per_s
        self._filled_at = 0.0
        #: Name of a credential -> when it may be asked about again, oldest first.
        self._seen: OrderedDict[str | bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def may_ask(self, name: str | bytes, now: float) -> bool:
        """Whether to ask about an unknown credential; True at most once per `ttl_s`. `now`: monotonic seconds."""
        self._forget(now)
        if name in self._seen:
            return False
        self._refill(now)
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        self._seen[name] = now + self._ttl_s
        return True

    def clear(self) -> None:
        """Forget everything: something changed, so that what was unknown may be known."""
        self._seen.clear()

    def _forget(self, now: float) -> None:
        """All live equally long, so what ends first came first."""
        while self._seen:
            name, until = next(iter(self._seen.items()))
            if until > now and len(self._seen) < self._capacity:
                return
            del self._seen[name]

    def _refill(self, now: float) -> None:
        if self._filled_at:
            self._allowance = min(self._per_s, self._allowance + (now - self._filled_at) * self._per_s)
        self._filled_at = now
