"""Identities of records: UUIDs of version 7, which sort by the time of their making (RFC 9562 section 5.7).

Owns their bits. Within one maker they only grow, also within a millisecond and when the clock is set back (RFC 9562
section 6.2, method 1): then the counter goes on where it was. Clock and randomness are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

#: Bits of the counter, which begins anew, at random in its lower half, with every millisecond.
_COUNTER_BITS: Final = 12
_RANDOM_BITS: Final = 62
_RANDOM_BYTES: Final = 10


class RecordIds:
    """Makes identities; one maker for each process or purpose."""

    __slots__ = ("_entropy", "_last", "_wall")

    def __init__(self, wall: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        """`wall`: seconds since 1970; `entropy`: so many random bytes."""
        self._wall = wall
        self._entropy = entropy
        #: Milliseconds and counter of the last one, as one number.
        self._last = 0

    def new(self) -> UUID:
        """One more, larger than all before."""
        random = int.from_bytes(self._entropy(_RANDOM_BYTES))
        start = (random >> _RANDOM_BITS) & ((1 << (_COUNTER_BITS - 1)) - 1)
        self._last = max(int(self._wall() * 1e3) << _COUNTER_BITS | start, self._last + 1)
        ms, counter = self._last >> _COUNTER_BITS, self._last & ((1 << _COUNTER_BITS) - 1)
        tail = random & ((1 << _RANDOM_BITS) - 1)
        return UUID(int=ms << 80 | 0x7 << 76 | counter << 64 | 0b10 << _RANDOM_BITS | tail)
