"""Admissions made of real rows, for the tests of the phases that ask one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from proxy.config.models import Config
from proxy.dataplane.admission import RULES, Admission, AdmissionBuilder, Freshness, Rows
from proxy.identity.directory import place_of
from proxy.identity.records import AccessRule, Record
from tests.unit.identity.rows import RING, ROWS

#: A configuration under which credentials are looked at.
IDENTIFIED: dict[str, Any] = {"postgres": {"embedded": True}, "auth": {"session_secret": "the secret of the front end"}}


def rows_of(*records: Record | AccessRule) -> Rows:
    """Rows as the registry has them."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        table, identity = (RULES, record.id) if isinstance(record, AccessRule) else place_of(record)
        columns = {name: getattr(record, name) for name in record.__slots__}
        if table == "api_keys":
            columns["key_hash"] = columns.pop("token_hash")
        rows.setdefault(table, {})[identity] = SimpleNamespace(**columns)
    return rows


def configuration(**keys: Any) -> Config:
    """One server and these keys."""
    return Config.model_validate({"servers": {"up": {"url": "http://up.test/mcp"}}, **keys})


def builder(*, current: bool = True) -> AdmissionBuilder:
    """A builder that knows the pepper of the rows."""
    return AdmissionBuilder(lambda _: RING, Freshness(current))


def admitting(*records: Record | AccessRule, current: bool = True, **keys: Any) -> Admission:
    """The admission of some rows (all of `identity/rows.py` by default); `current`: the database is in reach."""
    rows = rows_of(*(records or ROWS))
    return builder(current=current).build(configuration(**(IDENTIFIED | keys)), rows)
