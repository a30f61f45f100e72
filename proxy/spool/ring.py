"""What waits in memory while the disk takes nothing: some megabytes of records, and counts of what found no room.

Owns both and their bounds. What is here dies with the process; that is why only records of grade `standard`, and ends
of requests whose beginning was kept, come here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

#: Ends of requests may fill the ring up to so many times its size: their number is that of open requests.
_ENDS: Final = 2
#: Pairs of tenant and minute that are counted apart; those beyond count for nobody in particular.
_MOST_TALLIES: Final = 4096
_ORDINARY: Final = 4 << 10
#: Bytes that a record in memory takes besides itself, about.
_AROUND: Final = 160


class Ring:
    """Records in the order of their coming, each with the id of the request that it begins or ends."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[tuple[str, bytes]] = deque()
        #: Bytes of memory in use.
        self.size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether a record of ordinary size finds room."""
        return self.size < max(self._limit - _ORDINARY, self._limit // 2)

    def put(self, key: str, record: bytes, *, end: bool = False) -> bool:
        """Keep a record; `end`: of the end of a request whose beginning was kept. False: no room."""
        size = self.size + len(record) + _AROUND
        if size > (self._limit * _ENDS if end else self._limit):
            return False
        self._waiting.append((key, record))
        self.size = size
        return True

    @property
    def first(self) -> tuple[str, bytes]:
        """The oldest; the ring is not empty."""
        return self._waiting[0]

    def drop_first(self) -> None:
        """The oldest was written."""
        _, record = self._waiting.popleft()
        self.size -= len(record) + _AROUND


class Tallies:
    """How many records were not kept, by tenant and minute."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, tenant: str, now: float) -> None:
        """One more; `tenant`: its id, or '' for none; `now`: seconds since 1970."""
        minute = int(now // 60) * 60
        key = (tenant, minute)
        if key not in self._counts and len(self._counts) >= _MOST_TALLIES:
            key = ("", next(reversed(self._counts))[1])
        self._counts[key] = self._counts.get(key, 0) + 1

    def due(self, now: float, *, last: bool = False) -> bool:
        """Whether there is a count of another minute than that of `now`, or any, if it is the `last` time to ask."""
        return bool(self._counts) and (last or next(iter(self._counts))[1] != int(now // 60) * 60)

    def each(self) -> Iterator[tuple[str, int, int]]:
        """(tenant, begin of the minute in seconds since 1970, count), while they may be taken out."""
        for (tenant, minute), count in list(self._counts.items()):
            yield tenant, minute, count

    def drop(self, tenant: str, minute: int) -> None:
        """A count was written."""
        del self._counts[tenant, minute]
