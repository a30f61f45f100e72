"""The `Mcp-*` header fields: their names, how a value is encoded, and when it agrees with a body.

Rules: MCP 2026-07-28 streamable HTTP, "Value Encoding" and "Server Validation" (SEP-2243). Fields come as a mapping of
lower-case name to value with repeats joined by ', ', so a repeated field agrees with nothing. It knows nothing of JSON.
"""

from __future__ import annotations

import binascii
from typing import Final

PROTOCOL_VERSION: Final = "mcp-protocol-version"
METHOD: Final = "mcp-method"
NAME: Final = "mcp-name"
SESSION_ID: Final = "mcp-session-id"
#: Fields that repeat single arguments of a tool. Whether they agree takes the tool's schema: forwarded, never read.
PARAM_PREFIX: Final = "mcp-param-"

#: Optional white space around a field value (RFC 9110 section 5.6.3), no part of it.
BLANKS: Final = " \t"
_PREFIX: Final = "=?base64?"
_SUFFIX: Final = "?="


def decode(value: str) -> str | None:
    """What a trimmed field value stands for, or None when no body can say the same.

    `=?base64?...?=` holds canonical base64 of UTF-8; its markers are case-sensitive, and a value with only one of them
    is literal. A literal value is ASCII: other bytes mean different things to different servers.
    """
    if not value.startswith(_PREFIX) or not value.endswith(_SUFFIX) or len(value) < len(_PREFIX) + len(_SUFFIX):
        return value if value.isascii() else None
    payload = value[len(_PREFIX) : -len(_SUFFIX)]
    try:
        raw = binascii.a2b_base64(payload, strict_mode=True)
        # strict mode still lets the unused bits of the last digit be anything
        return raw.decode() if binascii.b2a_base64(raw, newline=False).decode() == payload else None
    except ValueError:
        return None


def agrees(value: str, expected: str) -> bool:
    """Whether an encoded field value says `expected`; blanks around it do not count."""
    return decode(value.strip(BLANKS)) == expected
