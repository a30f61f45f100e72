"""A partition of the audit trail in the archive: it is proved complete and unchanged with the public key alone."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from proxy.background.archive import Archive
from proxy.store import retention_trail
from proxy.store.retention import Retired, turn
from tests.unit.commands.auditor import Auditor, auditor
from tests.unit.commands.conftest import operator, waited
from tests.unit.store.engine import opened

__all__ = ["auditor", "operator"]

#: The table itself, which the admin plane can read, stands for a partition.
FORMER = Retired(retention_trail.TABLE, "audit_logs", "audit_logs_20261122", 1, 0)


@pytest.fixture
def archived(auditor: Auditor, tmp_path: Path) -> Path:
    """A file of the archive."""
    archive = Archive(tmp_path / "archive")

    async def put() -> None:
        async with opened(auditor.database, connections=1, statement_s=5) as database, turn(database) as session:
            heads = await retention_trail.heads(session, FORMER)
            lines = retention_trail.lines(session, FORMER)
            made = await archive.put(FORMER.table, FORMER.partition, "1", lines, heads)
            assert (made.rows, made.heads) == (40, 2)

    waited(put)
    return tmp_path / "archive/audit_logs/audit_logs_20261122.jsonl.gz"


def test_it_is_what_an_export_would_be(auditor: Auditor, archived: Path) -> None:
    """Line by line, but for their order."""
    lines = gzip.decompress(archived.read_bytes()).decode().splitlines()
    assert lines[:2] == auditor.export().read_text().splitlines()[:2]
    assert sorted(lines) == sorted(auditor.export().read_text().splitlines())


def test_it_is_verified_without_a_database(auditor: Auditor, archived: Path, tmp_path: Path) -> None:
    """And what was done to it is found."""
    public = str(auditor.config.parent / "public.pem")
    report = auditor.verified("--file", str(archived), "--key", public)
    assert (report["rows"], report["complete"], report["findings"]) == (40, True, [])
    lines = gzip.decompress(archived.read_bytes()).splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(b"".join(lines[:10] + lines[11:]))
    assert not auditor.verified("--file", str(torn), "--key", public)["complete"]
