"""Rows of `audit_logs` and `request_logs`, and the signed heads of their chains.

Owns the statements: many rows in one round trip. Both are append-only tables that their writer cannot read, so there is
no conflict target; a row that is added again stays one row, as its identity was made with it. What a row says and where
it stands in its chain is `proxy.audit`'s to know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from proxy.audit.chain import Chains, Draft, Head, Link, begin
from proxy.audit.columns import COLUMNS, NAMES, PLACE, Unfit, Value, is_plain, line, read, tenant_of, values
from proxy.store.failures import REFUSED, Unusable
from proxy.store.observations import patient
from proxy.store.pool import Unavailable

if TYPE_CHECKING:
    from proxy.audit.signing import Signer
    from proxy.store.database import Database
    from proxy.store.pool import Session

__all__ = [
    "Row",
    "SignedHead",
    "Unavailable",
    "Unfit",
    "Unusable",
    "add_direct",
    "add_heads",
    "add_rows",
    "row_of",
    "signed",
    "writing",
]


class Repeated(Unusable):
    """Some of the rows are there already: add them as such."""


class Row(NamedTuple):
    """One row of `audit_logs`; of an outcome or a refusal, one of `request_logs`, too."""

    line: bytes
    """The canonical text, which was hashed."""
    chain: bytes
    text: str
    """The same as PostgreSQL reads it: the text of an `audit_line`."""
    is_line: bool
    """Whether it holds no end of a line."""


class SignedHead(NamedTuple):
    """One row of `audit_heads`."""

    head: Head
    key_id: str | None
    signature: bytes | None


_TS: Final = PLACE["ts"]
#: How a column is made of that of `audit_line`; where nothing is said, it is the same.
_MADE: Final = {
    "timestamptz": "timestamptz 'epoch' + n.{0} * interval '1 microsecond' AS {0}",
    "bytea": "decode(n.{0}, 'hex') AS {0}",
}
_COLUMNS: Final = ", ".join(_MADE.get(column.type, "n.{0}").format(column.name) for column in COLUMNS)
#: Columns of `request_logs` and what they are made from, of the columns of `audit_logs`.
_OF_REQUEST: Final = {
    "id": "id", "ts": "ts", "tenant_id": "tenant_id", "server_id": "server_id", "server_name": "server_name",
    "route_name": "route_name", "principal_id": "actor_id", "user_id": "user_id", "api_key_id": "key_id",
    "trace_id": "trace_id", "client_ip": "client_ip", "http_method": "coalesce(http_method, '')",
    "method": "CASE WHEN action <> http_method THEN action END",
    "tool_name": "CASE WHEN resource_type = 'tool' THEN resource_id END", "protocol_version": "protocol_version",
    "status_code": "coalesce(status_code, 0)", "error_code": "error_code", "outcome": "coalesce(outcome, kind)",
    "reason": "reason", "duration_ms": "coalesce(duration_ms, 0)", "upstream_ms": "first_byte_ms",
    "bytes_in": "coalesce(bytes_in, 0)", "bytes_out": "coalesce(bytes_out, 0)", "instance": "instance",
}  # fmt: skip
#: One statement for both tables, as the second needs nothing that the first has not. Rows come as texts of a composite
#: type, a line each ($1), or as an array where they may have ends of lines themselves ($2). An array of each
#: column would take both sides half as long again.
_ADD: Final = f"""/* records.add{{}} */ WITH rows AS (
    SELECT {_COLUMNS}, decode(n.chain, 'hex') AS chain FROM unnest(ARRAY(
        SELECT l::audit_line FROM unnest(string_to_array($1::text, E'\n')) AS l
        UNION ALL SELECT l::audit_line FROM unnest($2::text[]) AS l
    )) AS n
), audited AS (
    INSERT INTO audit_logs ({", ".join(NAMES)}, chain) SELECT * FROM rows {{}}
)
INSERT INTO request_logs ({", ".join(_OF_REQUEST)}) SELECT {", ".join(_OF_REQUEST.values())} FROM rows
WHERE kind IN ('outcome', 'denied') AND http_method IS NOT NULL {{}}"""  # noqa: S608 - our own names
#: To look for a row that may be there costs PostgreSQL a fifth more.
_ADD_NEW: Final = _ADD.format("_new", "", "")
_ADD_AGAIN: Final = _ADD.format("", *["ON CONFLICT DO NOTHING"] * 2)
#: Acts follow each other, so that each names the one before.
_ONE_AT_A_TIME: Final = "/* records.act */ SELECT pg_advisory_xact_lock(hashtextextended('mcp-manager.audit-acts', 0))"
_ACT_BEFORE: Final = """/* records.act_before */ SELECT h.segment FROM audit_heads AS h
WHERE h.tenant_id = $1 AND h.is_final AND h.segment LIKE 'direct/%' AND NOT EXISTS (
    SELECT FROM audit_heads AS n WHERE n.tenant_id = $1 AND n.previous = h.segment AND n.segment LIKE 'direct/%'
) ORDER BY h.last_ts DESC LIMIT 1"""
_ADD_HEADS: Final = """/* records.heads */ INSERT INTO audit_heads
    (tenant_id, segment, row_count, is_final, head, first_ts, last_ts, previous, key_id, signature)
SELECT n.tenant_id, n.segment, n.row_count, n.is_final, n.head, timestamptz 'epoch' + n.first_us * interval '1 us',
    timestamptz 'epoch' + n.last_us * interval '1 us', n.previous, n.key_id, n.signature
FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::boolean[], $5::bytea[], $6::bigint[], $7::bigint[], $8::text[],
    $9::text[], $10::bytea[])
    AS n (tenant_id, segment, row_count, is_final, head, first_us, last_us, previous, key_id, signature)
ON CONFLICT DO NOTHING"""


def row_of(raw: bytes, draft: Draft) -> Row:
    """The next row of a draft, made of a record of the spool. Raises Unfit, and then nothing was added. 13 µs."""
    plain = is_plain(raw)
    record = read(raw)
    tenant = tenant_of(record)
    made = values(record, draft.segment, draft.at(tenant).rows + 1, plain)
    text = line(made, plain)
    chain = draft.add(tenant, text, int(made[_TS] or 0))
    if plain and b'"' not in text:
        fields = f'("{text.decode()}"'.replace("\t", '","').replace('"\\N"', "")
        return Row(text, chain, f"{fields},{chain.hex()})", True)
    return Row(text, chain, _composite([*made, chain.hex()]), False)


def _composite(values: Sequence[Value]) -> str:
    """Values as the text of a composite type (PostgreSQL manual, section 8.16.6)."""
    quoted = [
        "" if value is None else '"{}"'.format(str(value).replace("\\", r"\\").replace('"', r"\"")) for value in values
    ]
    return f"({','.join(quoted)})"


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[Session]:
    """A transaction for rows and heads, whose end may fail as any statement may. Raises Repeated, Unusable,
    Unavailable."""
    with _told_apart():
        async with patient(database.audit()) as session:
            yield session


async def add_rows(session: Session, rows: Sequence[Row], *, new: bool = False) -> None:
    """Add rows of any tenant, each once; `session` is one of `Database.audit`. `new`: none should be there, or else
    Repeated is raised, and the transaction is void. Raises Unusable, Unavailable."""
    if not rows:
        return
    lines = "\n".join([row.text for row in rows if row.is_line])
    others = [row.text for row in rows if not row.is_line]
    await _execute(session, _ADD_NEW if new else _ADD_AGAIN, lines, others)


async def add_heads(session: Session, heads: Sequence[SignedHead]) -> None:
    """Add heads of any tenant, each once. Raises Unusable, Unavailable."""
    if not heads:
        return
    rows = [
        (
            at.tenant, at.segment, at.rows, at.is_final, at.digest, at.first_us, at.last_us, at.previous, key_id,
            signature,
        )
        for at, key_id, signature in heads
    ]  # fmt: skip
    await _execute(session, _ADD_HEADS, *zip(*rows, strict=True))


async def add_direct(session: Session, record: Mapping[str, Any], signer: Signer | None) -> None:
    """Add one row about an act of administration, in the transaction of the act, with a chain and a head of its own.

    `record` is what a spool would hold (kind, id, timestamp, tenant_id, rpc_method, target_kind, target, outcome,
    arguments, ...); with the source 'command line' or 'system' the actor is ourselves. Its head names the act before it
    of the tenant, so that none can go unnoticed. `session` is one of the admin plane, which alone may read heads.
    Raises Unfit for what no row can be made of, Unusable, Unavailable.
    """
    tenant, segment = tenant_of(record), f"direct/{record.get('id')}"
    await _execute(session, _ONE_AT_A_TIME)
    before = await session.fetch_value(_ACT_BEFORE, UUID(tenant))
    chains = Chains(segment, {tenant: Link(0, begin(segment, tenant), 0, 0, before)})
    draft = chains.draft()
    row = row_of(orjson.dumps(record), draft)
    chains.accept(draft)
    await add_rows(session, [row])
    await add_heads(session, [signed(head, signer) for head in chains.heads(final=True)])


def signed(head: Head, signer: Signer | None) -> SignedHead:
    """A head with its signature; without a key there is none, which `verify` tells."""
    return (
        SignedHead(head, signer.key_id, signer.sign(head.text()))
        if signer is not None
        else SignedHead(head, None, None)
    )


async def _execute(session: Session, statement: str, *parameters: object) -> None:
    with _told_apart():
        await session.execute(statement, *parameters)


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise Repeated(type(error).__name__) from None
    except REFUSED as error:
        raise Unusable(type(error).__name__) from None
    except asyncpg.PostgresError as error:  # no such table yet, no room, an administrator at work: later, perhaps
        raise Unavailable(type(error).__name__) from None
