"""Rows of `error_logs` that the proxy writes about requests and about itself.

Owns the statement: many rows in one round trip, added by whoever may only add. A row whose commit was lost on the way
may be written again; its identity was made with it, so it stays one row. Texts are mended to what PostgreSQL takes, so
that no row can hold up the others. Sessions are those of `Database.audit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import UUID

from proxy.store.failures import told_apart
from proxy.store.observations import json_of, plain
from proxy.store.violations import moment_of, tenant_of, uuid_of

if TYPE_CHECKING:
    from proxy.store.pool import Session

#: Rows of one statement.
MOST_ROWS: Final = 500
#: Characters of a stack.
_LONGEST: Final = 8192


class ErrorRow(NamedTuple):
    """`error_logs`."""

    id: UUID
    at: float
    """Seconds since 1970."""
    tenant: str
    """Id; anything else is the system tenant."""
    severity: Literal["warning", "error", "critical"]
    component: str
    kind: str
    """Class of the error, or the reason of a refusal."""
    message: str
    fingerprint: str
    stack: str
    context: Mapping[str, Any]
    request_id: str
    """'' for none."""
    instance: str


_ERRORS: Final = """/* incidents.add_errors */ INSERT INTO error_logs
        (id, ts, tenant_id, severity, component, error_type, message, fingerprint, stack, context, request_id, instance)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::jsonb[], $11::uuid[], $12::text[])
    ON CONFLICT DO NOTHING"""


async def add_errors(session: Session, rows: Sequence[ErrorRow]) -> None:
    """Add errors of any tenant. Raises Unusable, Unavailable."""
    values = [
        (
            row.id, moment_of(row.at), tenant_of(row.tenant), row.severity, plain(row.component), plain(row.kind),
            plain(row.message), plain(row.fingerprint), _stack(row.stack), json_of(row.context),
            uuid_of(row.request_id), plain(row.instance),
        )
        for row in rows
    ]  # fmt: skip
    for start in range(0, len(values), MOST_ROWS):
        with told_apart():
            await session.execute(_ERRORS, *zip(*values[start : start + MOST_ROWS], strict=True))


def _stack(text: str) -> str | None:
    return text[-_LONGEST:].encode("utf-8", "replace").decode().replace("\0", "?") or None
