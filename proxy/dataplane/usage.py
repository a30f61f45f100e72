"""How often credentials, tools, prompts and resources were used since somebody last asked.

Owns the counters, which requests add to as they end, and their bounds: what cannot be counted for want of room is
counted as such. A name counts only if a list of its server has named it, so that nobody fills the memory with names of
his own. It writes nothing; what could not be written comes back (`give_back`) and is added to what came since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from proxy.identity.principal import Source

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.upstream import Upstream
    from proxy.identity.access import Server
    from proxy.identity.principal import Principal
    from proxy.mcp.envelope import Message

#: Credentials, and likewise things, that are counted at a time.
MAX_KEYS: Final = 100_000
#: Methods that use something -> what it is.
_USES: Final = MappingProxyType({"tools/call": "tool", "prompts/get": "prompt", "resources/read": "resource"})
#: How a request ends whose server failed; an error status counts besides.
_FAILED: Final = frozenset(("timeout", "upstream_truncated"))

Named = Callable[[str, str, str], bool]
"""(server, kind, name) -> whether a list of the server has named it."""


@dataclass(slots=True)
class CredentialUse:
    """Use of one credential. Times are monotonic seconds."""

    source: Source
    tenant: str
    calls: int
    at: float
    ip: str

    def add(self, other: CredentialUse) -> None:
        """Both together; of the two last uses the later one counts."""
        self.calls += other.calls
        if other.at > self.at:
            self.at, self.ip = other.at, other.ip


@dataclass(slots=True)
class ItemUse:
    """Use of one tool, prompt or resource. Times are monotonic seconds."""

    place: Server
    """The server as it was when it was last asked."""
    calls: int
    errors: int
    seconds: float
    """Of all calls together."""
    at: float

    def add(self, other: ItemUse) -> None:
        """Both together."""
        self.calls += other.calls
        self.errors += other.errors
        self.seconds += other.seconds
        if other.at > self.at:
            self.at, self.place = other.at, other.place


@dataclass(slots=True)
class Uses:
    """Everything that was counted in some time."""

    credentials: dict[str, CredentialUse] = field(default_factory=dict)
    """By the id of the credential's row."""
    items: dict[tuple[str, str, str], ItemUse] = field(default_factory=dict)
    """By server, kind and name."""

    def __bool__(self) -> bool:
        return bool(self.credentials or self.items)


class Usage:
    """Counts every request."""

    def __init__(self, named: Named) -> None:
        #: Uses that were not counted: no room, or a name that no list has named.
        self.overflowed = 0
        self.unknown = 0
        self._named = named
        self._uses = Uses()

    def count(self, ctx: RequestContext, now: float) -> None:
        """A request is over, `now` in monotonic seconds. Once for each, whatever came of it."""
        uses, principal = self._uses, ctx.principal
        if principal.key_id:
            credential = uses.credentials.get(principal.key_id)
            if credential is not None:
                credential.calls += 1
                credential.at = now
                credential.ip = ctx.client_ip
            else:
                self._count_new_credential(principal, ctx.client_ip, now)
        message, upstream = ctx.message, ctx.upstream
        if message is None or upstream is None:
            return
        if ctx.envelope is not None and ctx.envelope.batch:
            for each in ctx.envelope.messages:
                self._count_item(ctx, upstream, each, now)
        else:
            self._count_item(ctx, upstream, message, now)

    def _count_item(self, ctx: RequestContext, upstream: Upstream, message: Message, now: float) -> None:
        kind = _USES.get(message.method)
        if kind is None:
            return
        item = self._uses.items.get((upstream.name, kind, message.target))
        if item is None:
            item = self._new_item((upstream.name, kind, message.target), upstream.place)
            if item is None:
                return
        item.place = upstream.place
        item.calls += 1
        item.seconds += now - ctx.started_at
        item.at = now
        if ctx.status >= 400 or ctx.outcome in _FAILED:
            item.errors += 1

    def _new_item(self, key: tuple[str, str, str], place: Server) -> ItemUse | None:
        if not self._named(*key):
            self.unknown += 1
            return None
        if len(self._uses.items) >= MAX_KEYS:
            self.overflowed += 1
            return None
        item = self._uses.items[key] = ItemUse(place, 0, 0, 0.0, 0.0)
        return item

    def _count_new_credential(self, principal: Principal, ip: str, now: float) -> None:
        if principal.source is Source.SESSION:  # its row has no counters
            return
        if len(self._uses.credentials) >= MAX_KEYS:
            self.overflowed += 1
            return
        self._uses.credentials[principal.key_id] = CredentialUse(principal.source, principal.tenant, 1, now, ip)

    # --- for whoever writes them ----------------------------------------------------------------------------------

    def take(self) -> Uses:
        """What was counted since the last time; counting begins anew."""
        taken, self._uses = self._uses, Uses()
        return taken

    def give_back(self, uses: Uses) -> None:
        """Count again what could not be written. Beyond the bounds it is lost, and counted as such."""
        mine = self._uses
        for identity, credential in uses.credentials.items():
            other = mine.credentials.get(identity)
            if other is not None:
                other.add(credential)
            elif len(mine.credentials) < MAX_KEYS:
                mine.credentials[identity] = credential
            else:
                self.overflowed += credential.calls
        for key, item in uses.items.items():
            same = mine.items.get(key)
            if same is not None:
                same.add(item)
            elif len(mine.items) < MAX_KEYS:
                mine.items[key] = item
            else:
                self.overflowed += item.calls
