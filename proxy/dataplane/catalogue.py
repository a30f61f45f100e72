"""What every server offers, as far as its lists have passed: tools with their hints, prompts, resources, templates.

Owns what is known in memory, its bounds, how pages of a list become a whole one, and what of it is news to the
database. It reads no answers (`list_pages.py`) and knows no item's form (`offers.py`). Plain functions of one loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from proxy.dataplane.offers import Hints, key_of, offer_of

if TYPE_CHECKING:
    from proxy.dataplane.list_pages import Page
    from proxy.identity.access import Server

#: Servers, those not heard of for longest go first; items of one server; items of all.
MAX_SERVERS: Final = 10_000
MAX_OF_SERVER: Final = 2_000
MAX_ITEMS: Final = 200_000
#: Lists of one server that are under way page by page, and how long one may take, seconds.
_MAX_CHAINS: Final = 8
_CHAIN_S: Final = 60.0
#: What stays as it is is written again after this, seconds: its row may be gone, and says when it was last seen.
REFRESH_S: Final = 3600.0

Key = tuple[str, str]
"""Kind (tool, prompt, resource, template) and name or URI."""


@dataclass(slots=True)
class Item:
    """One thing that a server offers."""

    title: str
    description: str
    """Its beginning."""
    hints: Hints
    digest: int
    """Of everything that the server said of it."""
    written_at: float = -inf


class Offered(NamedTuple):
    """A row to be written."""

    digest: int
    columns: dict[str, object]
    size: int
    """Of the item as the server sent it, bytes."""


@dataclass(slots=True)
class Change:
    """What is news of one server."""

    server: str
    place: Server
    offers: dict[Key, Offered] = field(default_factory=dict)
    complete: dict[str, frozenset[str]] = field(default_factory=dict)
    """Kind -> all there are."""

    def __bool__(self) -> bool:
        return bool(self.offers or self.complete)

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return sum(offered.size for offered in self.offers.values()) + 100 * sum(map(len, self.complete.values()))

    def add(self, later: Change) -> None:
        """Take in what was learned later of the same server. What came after a whole list is there besides it."""
        for kind, names in self.complete.items():
            self.complete[kind] = names | {name for of_kind, name in later.offers if of_kind == kind}
        self.offers.update(later.offers)
        self.complete.update(later.complete)


@dataclass(slots=True)
class _Entry:
    """One server."""

    place: Server
    items: dict[Key, Item] = field(default_factory=dict)
    whole: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Kind -> digest of the names of its last whole list, and when that was written."""
    chains: dict[Key, tuple[frozenset[str], float]] = field(default_factory=dict)
    """Kind and cursor -> the names on the pages before it, and when the list began."""


class Catalogue:
    """All servers."""

    def __init__(self) -> None:
        #: Items that were not taken in: too many, or without a name that can be kept.
        self.skipped = 0
        self._servers: dict[str, _Entry] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many items there are."""
        return self._count

    def tool(self, server: str, name: str) -> Item | None:
        """What is known of a tool; None when the server's lists did not name it. `server`: name at run time."""
        entry = self._servers.get(server)
        return entry.items.get(("tool", name)) if entry is not None else None

    def names(self, server: str, kind: str, name: str) -> bool:
        """Whether a list of the server named this tool, prompt, resource or template."""
        entry = self._servers.get(server)
        return entry is not None and (kind, name) in entry.items

    def learn(self, server: str, place: Server, pages: Iterable[Page], now: float) -> Change:
        """Take in pages of a server, and say what has to be written. `now`: monotonic seconds."""
        entry = self._entry(server, place)
        change = Change(server, place)
        for page in pages:
            self._learn_page(entry, page, change, now)
        self._evict(server)
        return change

    def written(self, change: Change, now: float) -> None:
        """A change is in the database."""
        entry = self._servers.get(change.server)
        if entry is None or entry.place != change.place:
            return
        for key, offered in change.offers.items():
            item = entry.items.get(key)
            if item is not None and item.digest == offered.digest:
                item.written_at = now
        for kind, names in change.complete.items():
            entry.whole[kind] = (hash(names), now)

    # --- pages ----------------------------------------------------------------------------------------------------

    def _learn_page(self, entry: _Entry, page: Page, change: Change, now: float) -> None:
        names = set()
        whole = True
        for raw in page.items:
            name = key_of(page.kind, raw)
            if name is None or not self._learn_item(entry, (page.kind, name), raw, change, now):
                self.skipped += 1
                whole = whole and name is None  # what has no name is in no row
            else:
                names.add(name)
        complete = _joined(entry, page, frozenset(names), now) if whole else None
        if complete is None:
            return
        for key in [key for key in entry.items if key[0] == page.kind and key[1] not in complete]:
            del entry.items[key]
            self._count -= 1
        if not _is_written(entry.whole.get(page.kind), hash(complete), now):
            change.complete[page.kind] = complete

    def _learn_item(self, entry: _Entry, key: Key, raw: dict[str, Any], change: Change, now: float) -> bool:
        """Whether there was room for it, and it could be read."""
        try:
            text = orjson.dumps(raw)
        except TypeError:  # nested too deeply
            return False
        item, digest = entry.items.get(key), hash(text)
        if item is not None and item.digest == digest and now - item.written_at < REFRESH_S:
            return True
        if item is None and len(entry.items) >= MAX_OF_SERVER:
            return False
        offer = offer_of(*key, raw)
        if item is None or item.digest != digest:
            self._count += item is None
            entry.items[key] = Item(offer.title, offer.description, offer.hints, digest)
        change.offers[key] = Offered(digest, offer.columns, len(text))
        return True

    # --- bounds ---------------------------------------------------------------------------------------------------

    def _entry(self, server: str, place: Server) -> _Entry:
        """The entry of a server, now the last to go. Another server of that name has nothing of the one before."""
        entry = self._servers.pop(server, None)
        if entry is None or entry.place != place:
            self._count -= len(entry.items) if entry is not None else 0
            entry = _Entry(place)
        self._servers[server] = entry
        return entry

    def _evict(self, keep: str) -> None:
        while len(self._servers) > MAX_SERVERS or self._count > MAX_ITEMS:
            oldest = next(iter(self._servers))
            if oldest == keep:
                return
            self._count -= len(self._servers.pop(oldest).items)


def _joined(entry: _Entry, page: Page, names: frozenset[str], now: float) -> frozenset[str] | None:
    """All names of the list that ends with this page; None when it goes on, or its beginning is not known."""
    if page.cursor is not None:
        before, began = entry.chains.pop((page.kind, page.cursor), (None, now))
        if before is None or now - began > _CHAIN_S:
            return None
        names |= before
    else:
        began = now
    if page.next_cursor is None:
        return names
    entry.chains.pop((page.kind, page.next_cursor), None)
    if len(entry.chains) >= _MAX_CHAINS:
        del entry.chains[next(iter(entry.chains))]
    if len(names) <= MAX_OF_SERVER:
        entry.chains[page.kind, page.next_cursor] = (names, began)
    return None


def _is_written(whole: tuple[int, float] | None, digest: int, now: float) -> bool:
    return whole is not None and whole[0] == digest and now - whole[1] < REFRESH_S
