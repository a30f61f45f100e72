"""The address of the client, also when the connection comes from a trusted proxy.

Owns the reading of `X-Forwarded-For` and `Forwarded` (RFC 7239). Anyone can send these fields: they are read only when
the connection itself comes from a trusted address, and from right to left, since only the hops that trusted proxies
appended are true. It knows no socket and no configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from proxy.errors import BadRequest
from proxy.identity.addresses import Network, Networks, read_address

FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"
#: Hops in one field; more are no real chain of proxies.
MAX_HOPS: Final = 50
#: Characters of one field.
_LONGEST: Final = 8192

#: A hop that withholds its address (RFC 7239 section 6.3); Squid writes `unknown` into X-Forwarded-For, too.
_HIDDEN: Final = ""

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~\x80-\U0010ffff]|\\[\t !-~\x80-\U0010ffff])*"'
#: One parameter and what follows it: `;` another one, `,` another element, or the end.
_PAIR: Final = re.compile(rf"({_WORD})=({_WORD}|{_QUOTED})([ \t]*,[ \t]*|;|[ \t]*\Z)")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
#: `for=` of RFC 7239 section 6: an address and perhaps a port, which may be hidden, too.
_NODE: Final = re.compile(
    r"(?:\[(?P<wide>[^\[\]]+)\]|(?P<narrow>[0-9.]+)|(?P<hidden>unknown|_[A-Za-z0-9._\-]+))"
    r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._\-]+))?",
    re.IGNORECASE,
)


class ClientAddress:
    """Finds the client's address; made once per configuration."""

    __slots__ = ("_fields", "_trusted")

    def __init__(self, trusted: Iterable[Network], fields: Sequence[str] = (FORWARDED_FOR, FORWARDED)) -> None:
        """`trusted`: networks of the proxies in front of us. `fields`: the fields that these proxies write; one that
        they only pass on is the client's own word and must not be listed."""
        networks = Networks(trusted)
        self._trusted = networks if networks else None
        self._fields = tuple(fields)

    def secure(self, peer: str, fields: Mapping[str, str]) -> bool:
        """Whether a trusted proxy says that the client's own connection to it was TLS."""
        return self._trusted is not None and fields.get("x-forwarded-proto") == "https" and peer in self._trusted

    def of(self, peer: str, fields: Mapping[str, str]) -> str:
        """The address of the client whose request came over a connection from `peer`.

        The rightmost hop that is not trusted; when all are, the leftmost. Raises BadRequest when a trusted proxy sends
        a field that cannot be read, or two that disagree.
        """
        trusted = self._trusted
        if trusted is None or peer not in trusted:
            return peer
        found = [
            _rightmost_untrusted(trusted, peer, _READERS[name](fields[name])) for name in self._fields if name in fields
        ]
        if len(set(found)) > 1:
            raise BadRequest("the forwarding fields name different clients")
        return found[0] if found else peer


def _rightmost_untrusted(trusted: Networks, peer: str, hops: Sequence[str]) -> str:
    """`hops`: left to right, '' for a hidden one: then whoever told of it is as far as anyone can see."""
    client = peer
    for hop in reversed(hops):
        if hop == _HIDDEN:
            break
        client = hop
        if hop not in trusted:
            break
    return client


def read_forwarded_for(value: str) -> list[str]:
    """The hops of an `X-Forwarded-For`, left to right, as canonical addresses. Raises BadRequest."""
    hops = value.split(",", MAX_HOPS)
    if len(hops) > MAX_HOPS or len(value) > _LONGEST:
        raise BadRequest("too many hops")
    return [_read_hop(hop.strip(" \t")) for hop in hops]


def read_forwarded(value: str) -> list[str]:
    """The hops of a `Forwarded` field, left to right, as canonical addresses. Raises BadRequest.

    An element without `for` is a hidden hop. RFC 7239 section 4: no blanks around `=` and `;`, no parameter twice.
    """
    if len(value) > _LONGEST:
        raise BadRequest("too many hops")
    hops: list[str] = []
    names: set[str] = set()
    node, at = _HIDDEN, 0
    while at < len(value) or not hops:
        match = _PAIR.match(value, at)
        if match is None or (name := match[1].lower()) in names:
            raise BadRequest("Forwarded breaks the grammar")
        names.add(name)
        if name == "for":
            node = _read_node(_unquoted(match[2]))
        at = match.end()
        if match[3] != ";":
            hops.append(node)
            names, node = set(), _HIDDEN
    if names or value[at - 1] in ", \t" or len(hops) > MAX_HOPS:
        raise BadRequest("Forwarded breaks the grammar, or has too many hops")
    return hops


_READERS: Final = {FORWARDED_FOR: read_forwarded_for, FORWARDED: read_forwarded}


def _unquoted(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1]) if value[0] == '"' else value


def _read_hop(hop: str) -> str:
    """One hop of X-Forwarded-For: an address, with a port only where IPv6 is in brackets or the address is IPv4."""
    address = read_address(hop)
    return str(address) if address is not None else _read_node(hop)


def _read_node(node: str) -> str:
    """The address of an RFC 7239 node in canonical text, '' for one that is hidden."""
    match = _NODE.fullmatch(node)
    if match is None:
        raise BadRequest("a hop is not an address")
    if match["hidden"]:
        return _HIDDEN
    text = match["wide"] or match["narrow"]
    address = read_address(text)
    if address is None or (match["wide"] and ":" not in text):
        raise BadRequest("a hop is not an address")
    return str(address)
