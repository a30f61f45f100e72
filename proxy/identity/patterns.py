"""What a key or a rule names: servers and tools, exactly or by the beginning of their name.

Owns the grammar `name`, `beginning*` and `*`, and scopes of the form `server:NAME[:TOOL]`. There is no other wildcard:
a `*` anywhere else, `%`, `..` or a control character makes a pattern that fits nothing, so that nobody widens a key by
a name that some other matcher would read differently. A name in a request is text, never a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_PREFIX: Final = "server:"
#: Characters of one pattern.
_LONGEST: Final = 512
_FORBIDDEN: Final = re.compile(r"[*%\\\x00-\x20\x7f-\x9f]|\.\.")


def is_pattern(text: str) -> bool:
    """Whether a pattern can fit anything: what a form should check before it saves one."""
    body = text.removesuffix("*")
    return 0 < len(text) <= _LONGEST and _FORBIDDEN.search(body) is None


class Names:
    """A set of patterns: exact names and beginnings."""

    __slots__ = ("_beginnings", "_exact")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Patterns that are none fit nothing, and the others stay."""
        valid = [pattern for pattern in patterns if is_pattern(pattern)]
        self._exact = frozenset(pattern for pattern in valid if not pattern.endswith("*"))
        self._beginnings = tuple(sorted({pattern[:-1] for pattern in valid if pattern.endswith("*")}))

    def __contains__(self, name: str) -> bool:
        return name in self._exact or name.startswith(self._beginnings)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Names):
            return NotImplemented
        return self._exact == other._exact and self._beginnings == other._beginnings

    def __hash__(self) -> int:
        return hash((self._exact, self._beginnings))

    def __repr__(self) -> str:
        return f"Names({sorted((*self._exact, *(f'{beginning}*' for beginning in self._beginnings)))})"


@dataclass(frozen=True, slots=True)
class Grants:
    """The servers and tools that a credential is limited to; each part that is None limits nothing."""

    servers: Names | None = None
    tools: Names | None = None
    pairs: tuple[tuple[Names, Names], ...] | None = None
    """Of `server:` scopes: servers, and tools on these. One of them must fit."""

    def server(self, name: str) -> bool:
        """Whether anything at all may be asked of a server."""
        if self.servers is not None and name not in self.servers:
            return False
        return self.pairs is None or any(name in servers for servers, _ in self.pairs)

    def tool(self, server: str, name: str) -> bool:
        """Whether a tool of a server may be called."""
        if not self.server(server) or (self.tools is not None and name not in self.tools):
            return False
        return self.pairs is None or any(server in servers and name in tools for servers, tools in self.pairs)


EVERYTHING: Final = Grants()


def read_grants(servers: Sequence[str] | None, tools: Sequence[str] | None, scopes: Sequence[str] = ()) -> Grants:
    """Grants of the columns `allowed_servers` and `allowed_tools` (None or empty: no limit) and of `server:` scopes.

    A column that holds only patterns that fit nothing permits nothing: a typing error never opens a key.
    """
    pairs = [_read_pair(scope) for scope in scopes if scope.startswith(_PREFIX)]
    if not servers and not tools and not pairs:
        return EVERYTHING
    return Grants(Names(servers) if servers else None, Names(tools) if tools else None, tuple(pairs) or None)


def _read_pair(scope: str) -> tuple[Names, Names]:
    """`server:NAME` permits all its tools; tool names hold no `:` (SEP-986), server names none either."""
    server, _, tool = scope.removeprefix(_PREFIX).partition(":")
    return Names((server,)), Names((tool or "*",) if scope.count(":") < 3 else ())
