"""The sums of the last hour, by tenant and server, for whoever watches how things go now.

Owns how time is cut: slots of 5 seconds for the last six minutes, then minutes, as a minute of which a part is within
the last five must not come into them with what is older. A time is answered to within a slot,
one of more than five minutes to within a minute. Bounded: when there are too many sums, series that have none yet in a
slot get none, but for the one of everything.
"""

from __future__ import annotations

from typing import Final

from proxy.background.sums import Sum

#: Length of a slot, seconds; a minute has a whole number of them.
SLOT_S: Final = 5
_SLOTS_OF_MINUTE: Final = 60 // SLOT_S
_SLOTS: Final = 360 // SLOT_S
_MINUTES: Final = 60
#: So long all this is remembered, seconds.
KEPT_S: Final = _MINUTES * 60.0
#: Sums at a time: some 40 MB at worst, when each has a few dozen bins.
MAX_SUMS: Final = 20_000

Series = tuple[str, str]
"""Id of the tenant and name of the server; '' for all of them, so ('', '') is everything."""


class Recent:
    """Sums by time and series."""

    def __init__(self) -> None:
        #: Sums that were not kept for want of room.
        self.crowded = 0
        self._slots: dict[int, dict[Series, Sum]] = {}
        self._minutes: dict[int, dict[Series, Sum]] = {}
        self._size = 0

    def add(self, slot: int, tenant: str, server: str, delta: Sum) -> None:
        """Requests of a tenant to a server in the slot of this number (since 1970). '' for no server."""
        sums = self._slots.setdefault(slot, {})
        for series in {("", ""), (tenant, ""), ("", server), (tenant, server)}:
            self._add(sums, series, delta)

    def _add(self, sums: dict[Series, Sum], series: Series, delta: Sum) -> None:
        found = sums.get(series)
        if found is None:
            if self._size >= MAX_SUMS and series != ("", ""):
                self.crowded += 1
                return
            found = sums[series] = Sum()
            self._size += 1
        found.add(delta)

    def age(self, slot: int, most: int) -> bool:
        """It is now this slot: move at most so many sums from old slots to their minutes, and forget old minutes. True
        when there is more to do."""
        now = slot // _SLOTS_OF_MINUTE
        for minute in [minute for minute in self._minutes if not now - _MINUTES <= minute <= now]:
            self._size -= len(self._minutes.pop(minute))
        for future in [each for each in self._slots if each > slot + _SLOTS_OF_MINUTE]:  # the clock was set back
            self._size -= len(self._slots.pop(future))
        for old in [old for old in self._slots if old <= slot - _SLOTS]:
            sums = self._slots[old]
            minute_sums = self._minutes.setdefault(old // _SLOTS_OF_MINUTE, {})
            while sums:
                if not most:
                    return True
                most -= 1
                series, moved = sums.popitem()
                self._size -= 1
                self._add(minute_sums, series, moved)
            del self._slots[old]
        return False

    def total(self, tenant: str, server: str, since: int, until: int) -> Sum:
        """A series from one slot to another, both included. Of a minute that is only partly in it, all counts when more
        than half of it is, else nothing."""
        total, series = Sum(), (tenant, server)
        for slot, sums in self._slots.items():
            if since <= slot <= until and series in sums:
                total.add(sums[series])
        for minute, sums in self._minutes.items():
            middle = minute * _SLOTS_OF_MINUTE + _SLOTS_OF_MINUTE // 2
            if since <= middle <= until and series in sums:
                total.add(sums[series])
        return total
