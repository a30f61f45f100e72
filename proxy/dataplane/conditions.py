"""The conditions of a route: what each asks of a request, and how a whole set of routes can be asked at once.

Owns the translation of the configuration's `when` into `Condition`s. A new condition is one entry in `_KINDS` (and a
key in `config.models.When`). A fact that is not known never satisfies a condition. Nothing here knows routes or
servers, and nothing suspends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from proxy.dataplane.flags import FlagBook, FlagKey, FlagTable, asker_of
from proxy.dataplane.globs import Glob, GlobTable, keys_decide, keys_of
from proxy.dataplane.networks import NetworkTable, network_keys
from proxy.identity.addresses import Address, read_number
from proxy.identity.principal import read_scopes

if TYPE_CHECKING:
    from proxy.config.models import When
    from proxy.config.units import RevisionRange, TimeWindow
    from proxy.identity.principal import Principal
    from proxy.mcp.envelope import Message

_REVISION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Traits(Protocol):
    """What routing may ask of a request; `RequestContext` is one."""

    @property
    def path(self) -> str:
        """Path as sent, without the listener's public prefix."""
        ...

    @property
    def host(self) -> str:
        """`Host` without its port, lower-case."""
        ...

    @property
    def fields(self) -> Mapping[str, str]:
        """Lower-case header name to value."""
        ...

    @property
    def message(self) -> Message | None:
        """The JSON-RPC message; None when there is none or nobody read it."""
        ...

    @property
    def revision(self) -> str:
        """Protocol revision, '' when unknown."""
        ...

    @property
    def client_ip(self) -> str:
        """Address of the client, without port."""
        ...

    @property
    def principal(self) -> Principal:
        """Who asks."""
        ...

    @property
    def flags(self) -> FlagBook:
        """The feature flags in force."""
        ...

    @property
    def draws(self) -> dict[Condition, bool] | None:
        """Draws made for this request, where it is asked about more than once; None: nobody remembers them."""
        ...


@dataclass(frozen=True, slots=True)
class Axis:
    """A fact that can tell many routes apart in one look-up. Axes of one name are the same axis."""

    name: str
    read: Callable[[Traits], Any] = field(compare=False)
    """The fact, None when unknown. Pure: it may be asked several times for one request."""
    table: Callable[[Mapping[Any, Any]], Any] = field(compare=False)
    """`dict` for facts that are compared as a whole, else a table with `lookup(fact) -> list`."""


class Condition:
    """One question about a request. Without an axis it can only be asked route by route."""

    axis: Axis | None = None
    #: Values on the axis; a request that satisfies the condition has exactly one of them. Empty: no help.
    keys: Sequence[Hashable] = ()
    #: Having one of the keys is enough: the condition need not be asked again.
    decided = True

    def holds(self, traits: Traits) -> bool:
        """Whether the request satisfies it."""
        raise NotImplementedError


class OneOf(Condition):
    """The fact is one of these texts."""

    def __init__(self, axis: Axis, texts: Iterable[str]) -> None:
        self.axis = axis
        self._read = axis.read
        self._texts = frozenset(texts)
        self.keys = tuple(self._texts)

    def holds(self, traits: Traits) -> bool:
        return self._read(traits) in self._texts


class Matching(Condition):
    """The fact fits one of these globs."""

    def __init__(self, axis: Axis, patterns: Iterable[str]) -> None:
        globs = [Glob(pattern) for pattern in patterns]
        self.axis = axis
        self.keys = keys_of(globs)
        self.decided = keys_decide(globs)
        self._read = axis.read
        self._texts = frozenset(glob.head for glob in globs if glob.literal)
        self._globs = tuple(glob for glob in globs if not glob.literal)

    def holds(self, traits: Traits) -> bool:
        text = self._read(traits)
        return text is not None and (text in self._texts or any(glob.matches(text) for glob in self._globs))


class Within(Condition):
    """The address lies in one of these networks."""

    def __init__(self, axis: Axis, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        self.axis = axis
        self.keys = keys = network_keys(networks)
        self._read = axis.read
        self._table = NetworkTable(dict.fromkeys(keys, True))

    def holds(self, traits: Traits) -> bool:
        address = self._read(traits)
        return address is not None and bool(self._table.lookup(address))


class HasScope(Condition):
    """The principal has one of these scopes. It may have several, which no axis can tell."""

    def __init__(self, names: Iterable[str]) -> None:
        self._lacks = read_scopes(tuple(names)).isdisjoint

    def holds(self, traits: Traits) -> bool:
        return not self._lacks(traits.principal.scopes)


class Revision(Condition):
    """The protocol revision lies in the range; a word that is no date lies in none."""

    def __init__(self, revisions: RevisionRange) -> None:
        self._revisions = revisions

    def holds(self, traits: Traits) -> bool:
        revision = traits.revision
        return _REVISION.fullmatch(revision) is not None and self._revisions.holds(revision)


class Between(Condition):
    """The time of day lies in the window."""

    def __init__(self, window: TimeWindow, clock: Callable[[], datetime]) -> None:
        self._window = window
        self._clock = clock

    def holds(self, traits: Traits) -> bool:
        return self._window.holds(self._clock())


class Flagged(Condition):
    """The principal has one of these flags or variants. Of several flags it may have two, which no axis can tell."""

    def __init__(self, wanted: Sequence[FlagKey]) -> None:
        if len({name for name, _ in wanted}) == 1:
            self.axis = _FLAG
            self.keys = tuple(dict.fromkeys(wanted))
        self._wanted = tuple(wanted)

    def holds(self, traits: Traits) -> bool:
        asker, flags = asker_of(traits.principal, traits.client_ip), traits.flags
        return any(flags.has(key, asker) for key in self._wanted)


class Share(Condition):
    """A draw falls into the share. Asked last and once per message, so that the share is one of all that else match.

    A batch has one draw for all its messages: else chance would send them to different routes.
    """

    def __init__(self, percent: float, draw: Callable[[], float]) -> None:
        self._share = percent / 100.0
        self._draw = draw

    def holds(self, traits: Traits) -> bool:
        drawn = traits.draws
        if drawn is None:
            return self._draw() < self._share
        if self not in drawn:
            drawn[self] = self._draw() < self._share
        return drawn[self]


def _method(traits: Traits) -> str | None:
    message = traits.message
    return None if message is None else message.method


def _target(kind: str) -> Callable[[Traits], str | None]:
    def read(traits: Traits) -> str | None:
        message = traits.message
        return message.target or None if message is not None and message.target_kind == kind else None

    return read


def _field(name: str) -> Axis:
    name = name.lower()
    return Axis(f"header {name}", lambda traits: traits.fields.get(name), dict)


def _address(traits: Traits) -> Address | None:
    return read_number(traits.client_ip)


_HOST: Final = Axis("host", lambda traits: traits.host, dict)
_METHOD: Final = Axis("method", _method, dict)
_TOOL: Final = Axis("tool", _target("tool"), GlobTable)
_PROMPT: Final = Axis("prompt", _target("prompt"), GlobTable)
_RESOURCE: Final = Axis("resource", _target("resource"), GlobTable)
_CLIENT_IP: Final = Axis("client_ip", _address, NetworkTable)
#: The empty text stands for what the principal has not; no condition asks for it.
_TENANT: Final = Axis("tenant", lambda traits: traits.principal.tenant_slug, dict)
_KEY: Final = Axis("key", lambda traits: traits.principal.key_id, dict)
_TIER: Final = Axis("tier", lambda traits: traits.principal.tier, dict)
_FLAG: Final = Axis("flag", lambda traits: (traits.flags, asker_of(traits.principal, traits.client_ip)), FlagTable)


class Surroundings(NamedTuple):
    """What conditions may ask besides the request."""

    clock: Callable[[], datetime]
    """Now, aware of its zone."""
    draw: Callable[[], float]
    """A random number, 0 <= x < 1."""


#: Every key of `when`, in the order in which the conditions of a route are asked: cheap ones first, the draw last.
_KINDS: Final[Mapping[str, Callable[[Any, Surroundings], Iterable[Condition]]]] = {
    "host": lambda hosts, _: [OneOf(_HOST, map(str.lower, hosts))],
    "tenant": lambda slugs, _: [OneOf(_TENANT, slugs)],
    "key": lambda ids, _: [OneOf(_KEY, ids)],
    "tier": lambda tiers, _: [OneOf(_TIER, tiers)],
    "scope": lambda names, _: [HasScope(names)],
    "method": lambda methods, _: [OneOf(_METHOD, methods)],
    "header": lambda fields, _: [OneOf(_field(name), values) for name, values in fields.items()],
    "flag": lambda names, _: [Flagged([(name, None) for name in names])],
    "variant": lambda wanted, _: [Flagged(wanted)],
    "tool": lambda globs, _: [Matching(_TOOL, globs)],
    "prompt": lambda globs, _: [Matching(_PROMPT, globs)],
    "resource": lambda globs, _: [Matching(_RESOURCE, globs)],
    "client_ip": lambda networks, _: [Within(_CLIENT_IP, networks)],
    "protocol": lambda revisions, _: [Revision(revisions)],
    "between": lambda window, around: [Between(window, around.clock)],
    "percent": lambda percent, around: [Share(percent, around.draw)],
}


def compile_when(when: When, around: Surroundings) -> tuple[Condition, ...]:
    """All conditions of a route but its path, in the order in which they are to be asked."""
    return tuple(_written(when, around))


def _written(when: When, around: Surroundings) -> Iterator[Condition]:
    for name, compile_kind in _KINDS.items():
        value = _value(when, name)
        if value is not None and value != () and value != {}:
            yield from compile_kind(value, around)


def _value(when: When, name: str) -> Any:
    """What is written under a key. A variant is nothing without its flag: both are one condition."""
    if when.variant and name == "flag":
        return ()
    if when.variant and name == "variant":
        return tuple((when.flag[0], variant) for variant in when.variant)
    return getattr(when, name)
