"""Violation scores of client addresses: who misbehaves, and for how long that blocks the address.

Owns the arithmetic. Each violation adds the weight of its kind to the score of the address, which halves every
`half_life_s`. A score that reaches the threshold blocks, for `first_block_s` the first time and twice as long each time
again, up to `longest_block_s`; how often it happened is forgotten by half in every `longest_block_s` of good conduct. A
block starts the score anew, and what happens during a block counts for nothing. It knows no request, no clock and no
other replica; `dataplane/bans.lua` does the same for all replicas together.

IPv6 addresses count by /64, which is what one customer has (RFC 6177, RIPE-690): whoever is blocked has 2^64 others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address
from math import exp2
from typing import Final, NamedTuple

from proxy.identity.addresses import Networks, read_address, read_network

#: Kinds of violations, as they stand in `security_events.event_type`.
KINDS: Final = ("bad_key", "unknown_route", "session_guess", "header_mismatch", "parse_error", "flood")
#: Addresses whose scores are kept; of more, those that were quiet for longest are forgotten.
MOST: Final = 100_000
#: Doublings after which any block is the longest one; keeps the power finite.
_DOUBLINGS: Final = 40
_HOST_BITS: Final = 64

#: The machine itself: what comes from there is a proxy on the same host more often than a client, and blocking it would
#: shut out everybody behind it.
LOOPBACK: Final = (read_network("127.0.0.0/8"), read_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Policy:
    """What blocks, and for how long. Times in seconds."""

    threshold: float
    half_life_s: float
    first_block_s: float
    longest_block_s: float
    weights: Mapping[str, float] = field(default_factory=dict)
    """Kind -> what it adds to the score; a kind that is absent adds nothing."""
    spared: Networks = field(default_factory=lambda: Networks(LOOPBACK))
    """Networks that are never blocked."""


class Verdict(NamedTuple):
    """An address is to be blocked."""

    seconds: float
    times: int
    """How often by now, what is forgotten left out."""
    score: float


class _Entry(NamedTuple):
    """What is known of an address. `at`: when the score was this much; `free_at`: end of the last block; seconds."""

    score: float = 0.0
    at: float = 0.0
    times: float = 0.0
    free_at: float = 0.0


_NEW: Final = _Entry()


@lru_cache(4096)
def subject_of(ip: str) -> str | None:
    """What a client address counts as: itself, the /64 of an IPv6 one; None when it is no address (a Unix socket)."""
    address = read_address(ip)
    if address is None:
        return None
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS)}/{128 - _HOST_BITS}"
    return str(address)


class Scores:
    """The scores of one process. `now` is monotonic seconds throughout."""

    __slots__ = ("_entries", "_most", "policy")

    def __init__(self, policy: Policy, most: int = MOST) -> None:
        #: Replaced on a reload; scores stay.
        self.policy = policy
        self._most = most
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, subject: str, weight: float, now: float) -> Verdict | None:
        """Count a violation; a verdict when it is the one that blocks. About 1 µs."""
        policy = self.policy
        score, at, times, free_at = self._entries.get(subject, _NEW)
        if now < free_at:
            return None
        score = score * exp2((at - now) / policy.half_life_s) + weight
        if score < policy.threshold:
            self._keep(subject, _Entry(score, now, times, free_at))
            return None
        times *= exp2((free_at - now) / policy.longest_block_s)
        before = round(times)
        seconds = min(policy.longest_block_s, policy.first_block_s * exp2(min(before, _DOUBLINGS)))
        self._keep(subject, _Entry(0.0, now, times + 1.0, now + seconds))
        return Verdict(seconds, before + 1, score)

    def punished(self, subject: str, times: int, until: float, now: float) -> None:
        """Somebody else has blocked the address, for the `times`-th time."""
        self._keep(subject, _Entry(0.0, now, float(times), until))

    def forgive(self, subject: str) -> None:
        """Know nothing of an address any more."""
        self._entries.pop(subject, None)

    def score(self, subject: str, now: float) -> float:
        """The score as it is now."""
        score, at, _, _ = self._entries.get(subject, _NEW)
        return score * exp2((at - now) / self.policy.half_life_s)

    def _keep(self, subject: str, entry: _Entry) -> None:
        entries = self._entries
        entries[subject] = entry
        entries.move_to_end(subject)
        if len(entries) > self._most:
            entries.popitem(last=False)
