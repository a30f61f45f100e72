"""Records as the recorder writes them, ordinary and strange ones."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from hypothesis import strategies as st

TENANT: Final = "0198c0de-0000-7000-8000-00000000000a"
SECOND_TENANT: Final = "0198c0de-0000-7000-8000-00000000000b"


def record(number: int, kind: str = "outcome", **changes: Any) -> dict[str, Any]:
    """An ordinary one; those of one number belong to one call."""
    made: dict[str, Any] = {
        "kind": kind,
        "id": f"0198c0de-0000-7000-8000-{number:012x}",
        "timestamp": f"2026-11-22T12:{number // 60 % 60:02}:{number % 60:02}.{number % 1_000_000:06}Z",
        "tenant_id": TENANT,
        "tenant": "acme",
        "method": "POST",
        "path": "/mcp/one",
        "rpc_method": "tools/call",
        "target": "search",
        "target_kind": "tool",
        "messages": 1,
        "server": "one",
        "server_id": "0198c0de-0000-7000-8000-0000000000ff",
        "route": "default",
        "era": "modern",
        "revision": "2025-11-25",
        "bytes_in": 412,
        "client": "10.1.2.3",
        "principal": "key:abcdefghijkl",
        "key_id": "abcdefghijkl",
        "user_id": "u1",
        "source": "enhanced_api_keys",
        "session": "5f2b0c6de1f24a0a",
        "user_agent": "example-client/1.0",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
        "risk": "low",
        "arguments_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "generation": 3,
        "instance": "host:1",
    }
    if kind != "intent":
        made |= {
            "status": 200,
            "outcome": "ok",
            "duration_ms": 12.345,
            "first_byte_ms": 10.0,
            "auth_ms": 0.021,
            "limit_ms": 0.114,
            "connect_ms": 0.5,
            "bytes_out": 5120,
            "streamed": False,
            "tries": 1,
        }
    return made | changes


# --- strange ones ---------------------------------------------------------------------------------------------------

#: What JSON can hold: no half of a surrogate pair.
TEXTS: Final = st.text(st.characters(exclude_categories=("Cs",)), max_size=300)
_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
_WORDS: Final = (
    "principal key_id user_id impersonator rpc_method target_kind target server route method era revision outcome"
    " reason detail user_agent session trace_id span_id instance"
)  # fmt: skip
_DURATIONS: Final = "duration_ms auth_ms limit_ms queue_ms connect_ms first_byte_ms"
RECORDS: Final = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(("intent", "outcome", "denied")),
        "id": st.uuids().map(str),
        "timestamp": st.datetimes(datetime(1970, 1, 1), datetime(2255, 1, 1)).map(
            lambda moment: moment.isoformat(timespec="microseconds") + "Z"
        ),
    },
    optional={
        "tenant_id": st.uuids().map(str),
        "server_id": st.uuids().map(str) | st.none(),
        "risk": st.sampled_from(("low", "medium", "high", "critical")),
        "risk_reasons": st.lists(TEXTS, max_size=3),
        "arguments": _JSON,
        "result": _JSON,
        "arguments_hash": st.binary(min_size=32, max_size=32).map(bytes.hex),
        "status": st.integers(-32768, 32767),
        "error_code": st.integers(-(2**31), 2**31 - 1),
        "bytes_in": st.integers(0, 2**63 - 1),
        "bytes_out": st.integers(0, 2**63 - 1),
        "messages": st.integers(0, 32767),
        "tries": st.integers(0, 32767),
        "streamed": st.booleans(),
        "client": st.ip_addresses().map(str)
        | st.sampled_from(("::ffff:1.2.3.4", "::1.2.3.4", "::1", "::2:0", "fe80::1%eth0", "?")),
        **{name: st.none() | TEXTS for name in _WORDS.split()},
        **{name: st.none() | st.floats(0, 1e15) | st.integers(0, 10**9) for name in _DURATIONS.split()},
    },
)  # fmt: skip
