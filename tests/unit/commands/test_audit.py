"""`audit search` and `audit key`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.config.keyfile import AUDIT_KEY
from tests.unit.audit.trails import SIGNER, ZETA, identity
from tests.unit.commands.auditor import DAY, Auditor, auditor

__all__ = ["auditor"]


def test_rows_are_listed_for_people(auditor: Auditor) -> None:
    """The newest first, and how to see more."""
    code, out, err = auditor.run("search", *DAY, "--limit", "3")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split()[:4] == ["TIME", "TENANT", "KIND", "WHO"]
    assert [line.split()[-1] for line in lines[1:]] == [str(identity(number)) for number in (39, 38, 37)]
    assert "12.2" in lines[1]
    assert "the newest 3" in err


def test_where_nothing_was_found_it_is_said_where(auditor: Auditor) -> None:
    """The last day alone is looked at when nobody says otherwise."""
    code, out, err = auditor.run("search", *DAY, "--outcome", "none-such")
    assert (code, out.count("\n")) == (0, 1)
    assert err.startswith("nothing from 20") and "'--since' looks further back" in err
    assert "nothing from" not in auditor.run("search", *DAY)[2]


def test_rows_are_listed_for_programs(auditor: Auditor) -> None:
    """With every column, and JSON as such."""
    auditor.change("UPDATE audit_logs SET arguments = '{\"a\": [1]}' WHERE seq = 3")
    rows = auditor.result("search", *DAY, "--tenant", "zeta")
    assert len(rows) == 14
    assert rows[0] | {"tenant": "zeta", "tenant_id": ZETA, "segment": "one/1", "actor_id": "key:alice"} == rows[0]
    assert [row["arguments"] for row in rows if row["seq"] == 3] == [{"a": [1]}]


def test_a_request_is_found_by_its_id(auditor: Auditor) -> None:
    """As the client saw it in X-Request-Id."""
    rows = auditor.result("search", *DAY, "--request", str(identity(6)))
    assert [(row["kind"], row["id"]) for row in rows] == [("intent", str(identity(6)))]


def test_filters_go_together(auditor: Auditor) -> None:
    """Each makes the list shorter."""
    assert len(auditor.result("search", *DAY, "--action", "tools/*", "--outcome", "ok", "--server", "github")) == 20
    assert auditor.result("search", *DAY, "--target", "search", "--principal", "key:bob") == []


def test_what_cannot_be_meant_is_refused(auditor: Auditor) -> None:
    """A range that ends before it begins; a tenant that is not there."""
    assert "earlier" in auditor.refused("search", "--since", "2h", "--until", "3h")
    assert "acme" in auditor.refused("search", "--tenant", "nobody")


def test_the_public_key_is_printed(auditor: Auditor) -> None:
    """As PEM, and nothing of the secret one."""
    code, out, _ = auditor.run("key")
    assert (code, out) == (0, SIGNER.public.pem())
    assert auditor.result("key") == {"key_id": SIGNER.key_id, "public_key": SIGNER.public.pem()}


@pytest.mark.parametrize("content", [None, "x" * 64])
def test_without_a_key_there_is_none_to_print(auditor: Auditor, content: str | None) -> None:
    """None is made on the side; one that is no key is not shown."""
    path = auditor.config.parent / "state" / AUDIT_KEY
    path.unlink()
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    said = auditor.refused("key")
    assert "key" in said
    assert "xxx" not in said
    assert path.exists() == (content is not None)


def test_without_a_database_there_is_nothing_to_search(auditor: Auditor) -> None:
    """Told in words."""
    config = json.loads(auditor.config.read_text())
    del config["postgres"]
    auditor.config.write_text(json.dumps(config))
    assert "no 'postgres'" in auditor.refused("search")
    assert "no 'postgres'" in auditor.refused("verify")
    assert "no 'postgres'" in auditor.refused("export")


def test_a_key_of_somebody_else_is_misuse(auditor: Auditor) -> None:
    """Whoever may not look into the directory of the proxy is told so; the code of `verify` must not be 1."""

    there = Path.exists

    def exists(path: Path) -> bool:
        if path.name == AUDIT_KEY:
            raise PermissionError(13, "Permission denied", str(path))
        return there(path)

    auditor.monkeypatch.setattr(Path, "exists", exists)
    for command in ("key", "verify"):
        assert "Permission denied" in auditor.refused(command)
