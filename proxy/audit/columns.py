"""The columns of `audit_logs`, and what each is made from in a record of the spool.

Owns the order of the columns and their canonical text, which is hashed: that of PostgreSQL's COPY, so that the database
can give it as fast as it reads. The same record always gives the same text. What hashing is for, and where rows go, is
known elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from proxy.audit.scalars import Unfit, address, identity, json_text, micros, millis, truth, uuid, uuid_or_none, whole
from proxy.identity.records import SYSTEM_TENANT

__all__ = [
    "COLUMNS", "NAMES", "PLACE", "SELECTED", "SETTINGS", "Column", "Unfit", "Value", "is_plain", "line", "read",
    "tenant_of", "values",
]  # fmt: skip

Value: TypeAlias = str | int | float | bool | None
"""Of a column. A time: microseconds since 1970; a hash: hexadecimal digits; JSON: its text; a duration: millis,
as many of them as a float holds with three decimals."""


class Column(NamedTuple):
    """One column of `audit_logs`."""

    name: str
    type: str
    """Of PostgreSQL."""
    source: str
    """Key of the record; '' for what is made of several."""


#: In the order of the canonical text; every column but `chain`.
COLUMNS: Final = tuple(
    Column(*line.split(":"))
    for line in [
        "tenant_id:uuid:tenant_id",
        "ts:timestamptz:timestamp",
        "id:uuid:id",
        "kind:text:kind",
        "segment:text:",
        "seq:integer:",
        "actor_type:text:",
        "actor_id:text:principal",
        "key_id:text:key_id",
        "auth_source:text:source",
        "user_id:text:user_id",
        "impersonated_by:text:impersonator",
        "action:text:",
        "resource_type:text:target_kind",
        "resource_id:text:target",
        "server_name:text:server",
        "server_id:uuid:server_id",
        "route_name:text:route",
        "http_method:text:method",
        "era:text:era",
        "protocol_version:text:revision",
        "status_code:smallint:status",
        "outcome:text:outcome",
        "reason:text:reason",
        "error_code:integer:error_code",
        "error_detail:text:detail",
        "risk_level:text:risk",
        "risk_reasons:text:risk_reasons",
        "arguments:json:arguments",
        "arguments_hash:bytea:arguments_hash",
        "result:json:result",
        "duration_ms:float8:duration_ms",
        "auth_ms:float8:auth_ms",
        "limit_ms:float8:limit_ms",
        "queue_ms:float8:queue_ms",
        "connect_ms:float8:connect_ms",
        "first_byte_ms:float8:first_byte_ms",
        "bytes_in:bigint:bytes_in",
        "bytes_out:bigint:bytes_out",
        "messages:smallint:messages",
        "tries:smallint:tries",
        "streamed:boolean:streamed",
        "client_ip:inet:client",
        "user_agent:text:user_agent",
        "session_ref:text:session",
        "trace_id:text:trace_id",
        "span_id:text:span_id",
        "instance:text:instance",
    ]
)
NAMES: Final = tuple(column.name for column in COLUMNS)
PLACE: Final = {name: place for place, name in enumerate(NAMES)}

#: What a query names to get the canonical values; as lines with `COPY (SELECT ...) TO STDOUT`, which need SETTINGS.
SELECTED: Final = ", ".join(
    {
        "timestamptz": f"(extract(epoch FROM {column.name}) * 1000000)::bigint AS {column.name}",
        "bytea": f"encode({column.name}, 'hex') AS {column.name}",
    }.get(column.type, column.name)
    for column in COLUMNS
)
#: A float reads as the shortest text that means the same, and a text is UTF-8, whatever the database was told.
SETTINGS: Final = "SET LOCAL extra_float_digits = 1; SET LOCAL client_encoding = 'UTF8'"

#: A record of at most so many bytes without a backslash holds no text that is too long or that needs mending.
_SMALL: Final = 2048
#: Characters of a text: several are in one index, whose entries have at most 2704 bytes.
_LONGEST: Final = 256
#: Columns that are in no index.
_LONG: Final = {"error_detail": 1024, "user_agent": 512, "risk_reasons": 1024}
_TEXTS: Final = tuple(
    (place, _LONG.get(column.name, _LONGEST)) for place, column in enumerate(COLUMNS) if column.type == "text"
)
#: COPY's escapes (PostgreSQL manual, COPY, "Text Format"); NUL is in no text of PostgreSQL.
_ESCAPES: Final = str.maketrans(
    {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
)
_PEOPLE: Final = frozenset(("session",))
_OURSELVES: Final = frozenset(("system", "command line"))


# --- a record as values ---------------------------------------------------------------------------------------------


def read(raw: bytes) -> dict[str, Any]:
    """A record as it was written. Raises Unfit."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Unfit("not JSON") from None
    if not isinstance(record, dict):
        raise Unfit("not an object")
    return record


def values(record: Mapping[str, Any], segment: str, seq: int, plain: bool = False) -> list[Value]:
    """The canonical values of a record, in the order of COLUMNS. Raises Unfit. 5 µs for a call.

    `plain` (see `is_plain`) says that no text needs to be looked at. What a number may be at most is for PostgreSQL to
    say.
    """
    get = record.get
    arguments, result, reasons, hashed = get("arguments"), get("result"), get("risk_reasons"), get("arguments_hash")
    if get("kind") == "summary":
        arguments = {"dropped": get("dropped")}
    try:
        made: list[Value] = [
            tenant_of(record), micros(get("timestamp")), identity(get("id")), get("kind"), segment, seq,
            _actor_type(record), get("principal"), get("key_id"), get("source"), get("user_id"),
            get("impersonator"), _action(record), get("target_kind"), get("target"),
            get("server"), uuid_or_none(get("server_id")), get("route"), get("method"), get("era"), get("revision"),
            whole(get("status")), get("outcome"), get("reason"), whole(get("error_code")), get("detail"),
            get("risk") or "low", ",".join(reasons) if reasons else None, json_text(arguments),
            hashed.lower() if hashed else None, json_text(result), millis(get("duration_ms")), millis(get("auth_ms")),
            millis(get("limit_ms")), millis(get("queue_ms")), millis(get("connect_ms")), millis(get("first_byte_ms")),
            whole(get("bytes_in")), whole(get("bytes_out")), whole(get("messages")), whole(get("tries")),
            truth(get("streamed")), address(get("client")), get("user_agent"), get("session"), get("trace_id"),
            get("span_id"), get("instance") or "",
        ]  # fmt: skip
    except (TypeError, AttributeError, ValueError) as error:
        raise Unfit(str(error) if isinstance(error, Unfit) else "a value of a wrong type") from None
    if not plain:
        _mend(made)
    return made


def is_plain(raw: bytes) -> bool:
    """Whether no text of a record can be too long, or hold what PostgreSQL or its COPY has a special way for: JSON
    writes every such character with a backslash (RFC 8259 section 7)."""
    return len(raw) <= _SMALL and b"\\" not in raw


def tenant_of(record: Mapping[str, Any]) -> str:
    """The tenant whose row it is: the system's when none is known. Raises Unfit."""
    tenant = record.get("tenant_id")
    if not tenant:
        return SYSTEM_TENANT
    if tenant.__class__ is not str:
        raise Unfit("no UUID")
    return uuid(tenant)


def _actor_type(record: Mapping[str, Any]) -> str:
    source, principal = record.get("source"), record.get("principal")
    if source in _OURSELVES or record.get("kind") == "summary":
        return "system"
    if principal is None or principal in ("", "anonymous"):
        return "anonymous"
    return "user" if source in _PEOPLE else "api_key"


def _action(record: Mapping[str, Any]) -> str:
    """JSON-RPC method; of a request that has none, its HTTP method."""
    if record.get("kind") == "summary":
        return "records dropped"
    return record.get("rpc_method") or record.get("method") or "unknown"


def _mend(made: list[Value]) -> None:
    """Make texts such that PostgreSQL takes them. Raises Unfit for what is none."""
    for place, longest in _TEXTS:
        text = made[place]
        if text is None:
            continue
        if not isinstance(text, str):
            raise Unfit(f"no text for {NAMES[place]}")
        if len(text) > longest or "\0" in text:
            made[place] = text[:longest].replace("\0", "\ufffd")


# --- values as text -------------------------------------------------------------------------------------------------


def line(made: Iterable[Value], plain: bool = False) -> bytes:
    """The canonical text of a row, without the end of the line. `plain`: as of `values`. 4 µs for a call."""
    texts = [
        "\\N" if value is None
        else (value if plain else escaped(value)) if value.__class__ is str
        else str(value) if value.__class__ is int
        else _number(value)
        for value in made
    ]  # fmt: skip
    return "\t".join(texts).encode()


def escaped(text: Any) -> str:
    """A text as COPY writes it."""
    return str(text) if text.isprintable() and "\\" not in text else text.translate(_ESCAPES)


def _number(value: Any) -> str:
    """A float or truth as COPY writes it. Floats are within the bounds of `_ms`, or it is not canonical."""
    if value.__class__ is float:
        text = repr(value)
        return text[:-2] if text.endswith(".0") else text
    return "t" if value is True else "f" if value is False else str(value)
