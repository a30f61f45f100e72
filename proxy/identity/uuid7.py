"""Identities of records: UUIDs of version 7, which sort by the time of their making (RFC 9562 section 5.7).

Owns their bits. Within one maker they only grow, also within a millisecond and when the clock is set back (RFC 9562
section 6.2, method 1): then the counter goes on where it was. Clock and randomness are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

#: The version of these identities.
_KIND: Final = 7
#: Bits of the counter, which begins anew, at random in its lower half, with every millisecond.
_COUNTER_BITS: Final = 12
_RANDOM_BITS: Final = 62
_RANDOM_BYTES: Final = 10
_COUNTER: Final = (1 << _COUNTER_BITS) - 1
_HALF_COUNTER: Final = _COUNTER >> 1
#: Random ends that `text` makes at a time, 0.1 ms, and bytes of each.
_STOCK: Final = 256
_TAIL_BYTES: Final = 8
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class RecordIds:
    """Makes identities; one maker for each process or purpose."""

    __slots__ = ("_entropy", "_head", "_last", "_ms", "_tail", "_tails", "_wall")

    def __init__(self, wall: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        """`wall`: seconds since 1970; `entropy`: so many random bytes."""
        self._wall = wall
        self._entropy = entropy
        #: Milliseconds and counter of the last one, as one number.
        self._last = 0
        #: Of `text`: the millisecond of the last one, its digits, and random ends.
        self._ms = -1
        self._head = self._tail = ""
        self._tails: list[str] = []

    def new(self) -> UUID:
        """One more, larger than all before."""
        random = int.from_bytes(self._entropy(_RANDOM_BYTES))
        start = (random >> _RANDOM_BITS) & ((1 << (_COUNTER_BITS - 1)) - 1)
        self._last = max(int(self._wall() * 1e3) << _COUNTER_BITS | start, self._last + 1)
        ms, counter = self._last >> _COUNTER_BITS, self._last & ((1 << _COUNTER_BITS) - 1)
        tail = random & ((1 << _RANDOM_BITS) - 1)
        return UUID(int=ms << 80 | 0x7 << 76 | counter << 64 | 0b10 << _RANDOM_BITS | tail)

    def text(self) -> str:
        """One more, as text: a fifth of what `str(new())` takes, since every request has one."""
        last = self._last + 1
        now = int(self._wall() * 1e3) << _COUNTER_BITS
        if now > last:
            last = now | last & _HALF_COUNTER  # begins anew somewhere in its lower half
        self._last = last
        if last >> _COUNTER_BITS != self._ms:
            self._begin(last >> _COUNTER_BITS)
        return f"{self._head}{last & _COUNTER:03x}{self._tail}"

    def _begin(self, ms: int) -> None:
        """What is the same within a millisecond: the counter tells its identities apart, and 62 random bits tell them
        from those of others."""
        self._ms = ms
        digits = f"{ms:012x}"
        self._head = f"{digits[:8]}-{digits[8:]}-7"
        if not self._tails:
            self._tails = _tails(self._entropy(_STOCK * _TAIL_BYTES).hex())
        self._tail = self._tails.pop()


def made_ms(identity: UUID) -> int | None:
    """When one of these was made, milliseconds since 1970 (section 5.7); None for an identity of another kind."""
    return identity.int >> 80 if identity.version == _KIND else None


def _tails(digits: str) -> list[str]:
    """The last two groups of identities, made of random hex digits; two bits are the variant (section 4.1)."""
    each = range(0, len(digits), 2 * _TAIL_BYTES)
    return [f"-{_VARIANT[digits[at]]}{digits[at + 1 : at + 4]}-{digits[at + 4 : at + 16]}" for at in each]
