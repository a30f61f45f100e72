"""What a key or a rule names: servers and tools, exactly or by the beginning of their name.

Owns the grammar `name`, `beginning*` and `*`. There is no other wildcard:
a `*` anywhere else, `%`, `..` or a control character makes a pattern that fits nothing, so that nobody widens a key by
a name that some other matcher would read differently. A name in a request is text, never a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

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
    """The servers and tools that a credential is limited to; None limits nothing."""

    servers: Names | None = None
    tools: Names | None = None

    def server(self, name: str) -> bool:
        """Whether anything at all may be asked of a server."""
        return self.servers is None or name in self.servers

    def tool(self, server: str, name: str) -> bool:
        """Whether a tool of a server may be called."""
        return self.server(server) and (self.tools is None or name in self.tools)


EVERYTHING: Final = Grants()


def read_grants(servers: Sequence[str], tools: Sequence[str]) -> Grants:
    """Grants of the columns `allowed_servers` and `allowed_tools`; empty: no limit.

    A column that holds only patterns that fit nothing permits nothing: a typing error never opens a key.
    """
    if not servers and not tools:
        return EVERYTHING
    return Grants(Names(servers) if servers else None, Names(tools) if tools else None)
