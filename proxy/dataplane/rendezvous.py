"""Rendezvous hashing (highest random weight, Thaler and Ravishankar 1998): which server a key belongs to.

Pure arithmetic, the same in every process and on every replica: no seed, no state. A key belongs to the server of the
highest `score`; when that one leaves, its keys spread over the others and no other key moves.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Final

_MASK: Final = (1 << 64) - 1


def point(text: str) -> int:
    """64 bits for a key or a server's name. JSON may hold lone surrogates, which are no reason to fail here."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def score(key: int, server: int) -> int:
    """64 bits for a pair of points: the finalizer of SplitMix64 (Steele, Lea and Flood 2014), which mixes every bit."""
    bits = key ^ server
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & _MASK
    return bits ^ bits >> 31


def weighted_score(key: int, server: int, weight: int) -> float:
    """A score that wins in proportion to the weight: -weight / ln(u), u in (0, 1); 52 bits, so that u is never 1.0."""
    return -weight / math.log(((score(key, server) >> 12) + 0.5) / (1 << 52))
