"""Trails as the proxy would write them, for tests of what verifies them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from proxy.audit import columns
from proxy.audit.chain import Chains, Head
from proxy.audit.copied import Copied
from proxy.audit.findings import Finding
from proxy.audit.signing import Signer
from proxy.audit.verify import Report, Trail

ACME: Final = "11111111-1111-4111-8111-111111111111"
ZETA: Final = "22222222-2222-4222-8222-222222222222"
SIGNER: Final = Signer(b"7a" * 32)
KEYS: Final = {SIGNER.key_id: SIGNER.public}
#: 2026-11-22T12:00:00Z, microseconds.
NOON_US: Final = 1_795_348_800_000_000
FOREVER_US: Final = 1 << 62


def identity(number: int) -> UUID:
    """Of a record: one of version 7, made at its time."""
    return UUID(int=(NOON_US // 1000 + number) << 80 | 7 << 76 | 2 << 62 | number)


def record(number: int, tenant: str = ACME, **more: Any) -> dict[str, Any]:
    """What the spool holds of a call: intents have even numbers."""
    seconds, us = divmod(number * 1_000, 1_000_000)
    made = {
        "kind": "outcome" if number % 2 else "intent", "id": str(identity(number)),
        "timestamp": f"2026-11-22T12:{seconds // 60:02d}:{seconds % 60:02d}.{us:06d}Z", "tenant_id": tenant,
        "method": "POST", "rpc_method": "tools/call", "target": "search", "target_kind": "tool", "server": "github",
        "route": "github", "era": "modern", "revision": "2025-11-25", "messages": 1, "client": "192.0.2.17",
        "user_agent": "client/1.0", "principal": "key:alice", "key_id": "alice", "source": "api_key", "risk": "low",
        "bytes_in": 231, "instance": "one",
    }  # fmt: skip
    if number % 2:
        made |= {"status": 200, "outcome": "ok", "duration_ms": 12.25, "auth_ms": 0.012, "queue_ms": 0.0, "tries": 1,
                 "bytes_out": 1834, "streamed": False}  # fmt: skip
    return made | more


def trail_of(records: Sequence[dict[str, Any]], segment: str = "one/1") -> tuple[list[bytes], list[Head]]:
    """Lines of COPY of all columns and the chain, without their ends; and the final head of each tenant."""
    chains = Chains(segment)
    draft = chains.draft()
    lines = []
    for each in records:
        tenant = columns.tenant_of(each)
        values = columns.values(each, segment, draft.at(tenant).rows + 1)
        line = columns.line(values)
        ts = values[columns.PLACE["ts"]]
        assert isinstance(ts, int)
        lines.append(line + b"\t" + draft.add(tenant, line, ts).hex().encode())
    chains.accept(draft)
    return lines, sorted(chains.heads(final=True), key=lambda head: head.tenant)


def checked(
    lines: Sequence[bytes], heads: Sequence[Head], most_waiting: int = 10_000, settled_us: int = FOREVER_US
) -> Report:
    """What is found in rows that come in this order."""
    trail = Trail(most_waiting)
    for head in heads:
        trail.strand((head.tenant, head.segment), [head])
    rows = Copied(trail, (), (0, FOREVER_US))
    rows.feed(b"".join(line + b"\n" for line in lines))
    report = Report()
    trail.report(report, settled_us)
    for tenant, count in rows.unchained.items():
        report.add(Finding("unchained", tenant, "", 0, count), count)
    return report


def found(report: Report) -> list[tuple[str, int, int]]:
    """Findings as kind, first and last row."""
    return [(each.kind, each.first, each.last or each.first) for each in report.findings]


def edited(line: bytes, **more: str) -> bytes:
    """A line of COPY with other values in some columns; of the chain, too, as `chain`."""
    parts = line.split(b"\t")
    for name, value in more.items():
        parts[columns.PLACE[name] if name != "chain" else -1] = value.encode()
    return b"\t".join(parts)
