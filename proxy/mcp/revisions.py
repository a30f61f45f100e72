"""The released revisions of the protocol, and which era each belongs to.

Owns the names only. Revisions are an enumerated set, not an ordered scalar: what we do not know is neither old nor new.
It knows nothing of headers or bodies.
"""

from __future__ import annotations

from typing import Final

#: Revisions with an `initialize` handshake and, over HTTP, sessions; oldest first.
LEGACY: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
#: Revisions in which every request stands for itself and is mirrored in `Mcp-*` headers.
MODERN: Final = ("2026-07-28",)
#: Every released revision, oldest first.
KNOWN: Final = LEGACY + MODERN
#: What a request without `MCP-Protocol-Version` is taken for (2025-06-18 transports, "Protocol Version Header").
DEFAULT: Final = "2025-03-26"
#: Stands for a revision that is named but unknown here: neither old nor new. The upstream answers for it.
UNKNOWN: Final = ""


def revision_of(declared: str | None) -> str:
    """The revision that the value of `MCP-Protocol-Version` stands for; None when the field is absent."""
    if declared is None:
        return DEFAULT
    return declared if declared in KNOWN else UNKNOWN
