"""What the spool knows of a record: its kind, the request it is about, and whose it is.

Owns the form of a *carried* record: that of a request's beginning, copied because its segment goes while the request
lasts. It is no row; it only says, should the process die, that the request was open.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson

_CARRIED: Final = b'{"kind":"carried","intent":'
#: How records begin here, which saves reading the rest of them.
_INTENT: Final = b'{"kind":"intent","id":"'
_OUTCOME: Final = b'{"kind":"outcome","id":"'
_ID_CHARS: Final = 36


def carried(intent: bytes) -> bytes:
    """The record that says that the request of this beginning is still open."""
    return _CARRIED + intent + b"}"


def summary(key: UUID, tenant: str, minute: int, dropped: int) -> bytes:
    """The record of so many records that were not kept, in the minute that begins at so many seconds since 1970."""
    begun = datetime.fromtimestamp(minute, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    about = {"kind": "summary", "id": str(key), "timestamp": begun, "dropped": dropped}
    return orjson.dumps({**about, "tenant_id": tenant} if tenant else about)


def is_row(record: bytes) -> bool:
    """Whether a record becomes rows."""
    return not record.startswith(_CARRIED)


def tenant_of(record: bytes) -> str:
    """Id of the tenant whose it is; '' for nobody in particular."""
    found = fields_of(record).get("tenant_id")
    return found if isinstance(found, str) else ""


def fields_of(record: bytes) -> dict[str, Any]:
    """What a record says; nothing when it is no JSON object."""
    try:
        found = orjson.loads(record)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def opened(record: bytes) -> tuple[str, bytes] | None:
    """Id and beginning of the request that is open by this record, if it says so."""
    if record.startswith(_CARRIED):
        record = record[len(_CARRIED) : -1]
    if record.startswith(_INTENT):
        return _id_after(_INTENT, record), record
    fields = fields_of(record)
    return (str(fields.get("id")), record) if fields.get("kind") == "intent" else None


def closed(record: bytes) -> str:
    """Id of the request that is over by this record; '' when it says no such thing."""
    if record.startswith(_OUTCOME):
        return _id_after(_OUTCOME, record)
    fields = fields_of(record)
    return str(fields.get("id", "")) if fields.get("kind") in ("outcome", "denied") else ""


def _id_after(start: bytes, record: bytes) -> str:
    return record[len(start) : len(start) + _ID_CHARS].decode("ascii", "replace")
