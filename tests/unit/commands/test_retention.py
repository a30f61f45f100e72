"""`retention list | set | unset | run | runs`."""

from __future__ import annotations

import json

import pytest

from tests.unit.commands.conftest import Operator

PARTITION = "SELECT create_partitions(now() - interval '100 days', '1 hour')"
ROW = """INSERT INTO request_logs (id, ts, tenant_id, http_method, status_code, outcome, duration_ms)
    VALUES (gen_random_uuid(), now() - interval '100 days', '00000000-0000-0000-0000-000000000000', 'POST', 200, 'ok',
        1)"""
COUNT = "SELECT count(*) AS rows FROM request_logs"


def policy(operator: Operator, table: str, tenant: str = "system") -> dict[str, object]:
    """What is listed for a table."""
    return next(row for row in operator.result("retention", "list") if (row["table"], row["tenant"]) == (table, tenant))


def test_policies_are_set_listed_and_taken_back(operator: Operator) -> None:
    """A tenant's own beside everyone's; without a row the configuration, or the default, is listed."""
    assert (policy(operator, "audit_logs")["keep"], policy(operator, "audit_logs")["source"]) == ("forever", "default")
    operator.run("tenants", "create", "acme")
    row = operator.result("retention", "set", "audit_logs", "--keep", "400d", "--tenant", "acme", "--batch", "7")
    assert (row["retention_days"], row["batch_size"], row["archive"]) == (400, 7, False)
    assert operator.run("retention", "set", "audit_logs", "--keep", "forever", "--no-archive")[0] == 0
    assert policy(operator, "audit_logs", "acme")["keep"] == "400d"
    assert (policy(operator, "audit_logs")["keep"], policy(operator, "audit_logs")["source"]) == ("forever", "row")
    assert operator.run("retention", "list")[1].splitlines()[0].split()[:5] == [
        "TABLE", "TENANT", "KEEP", "ARCHIVE", "SOURCE"
    ]  # fmt: skip
    assert operator.run("retention", "unset", "audit_logs", "--tenant", "acme") == (0, "", "unset\n")
    assert "no policy" in operator.refused("retention", "unset", "audit_logs", "--tenant", "acme")


def test_an_archive_ends_only_when_that_is_said(operator: Operator) -> None:
    """A row that says nothing of it archives as before: as the configuration has it, or everyone's row, or itself."""
    tables = {"retention": {"archive_dir": "a", "tables": {"audit_logs": {"keep": "365d", "archive": True}}}}
    operator.config.write_text(json.dumps(json.loads(operator.config.read_text()) | tables))
    for slug in ("acme", "zeta"):
        operator.run("tenants", "create", slug)
    for *arguments, told in (
        ("400d", "everyone is kept for 400d, then archived and deleted"),
        ("30d", "--tenant", "acme", "acme is kept for 30d, then archived and deleted"),
        ("400d", "--no-archive", "everyone is kept for 400d, then deleted"),
        ("31d", "--tenant", "acme", "acme is kept for 31d, then archived and deleted"),
        ("30d", "--tenant", "zeta", "zeta is kept for 30d, then deleted"),
        ("forever", "everyone is kept forever"),
    ):
        said = operator.run("retention", "set", "audit_logs", "--keep", *arguments)
        assert said == (0, "", f"set: audit_logs of {told}\n")
    headings = operator.run("retention", "list")[1].splitlines()[0]
    assert "LAST RUN AT" in headings and "LAST DELETED" in headings


def test_an_archive_without_a_directory_is_remarked(operator: Operator) -> None:
    """Nothing would be deleted."""
    code, out, err = operator.run("retention", "set", "request_logs", "--keep", "30d", "--archive")
    assert (code, out) == (0, "")
    assert "before 'retention.archive_dir' is set" in err


def test_a_dry_run_says_what_a_run_then_does(operator: Operator) -> None:
    """And a run that leaves something ends with 1."""
    for statement in (PARTITION, ROW):
        operator.rows(statement)
    doomed = operator.result("retention", "run", "--dry-run")
    [found] = [each for each in doomed if each["table"] == "request_logs"]
    assert (found["what"], found["rows"], found["archive"]) == ("drop partition", 1, False)
    code, out, err = operator.run("retention", "run", "--dry-run")
    assert (code, "drop partition" in out) == (0, True)
    assert err == "1 rows would go; nothing was deleted\n"
    assert operator.rows(COUNT) == [{"rows": 1}]
    operator.run("retention", "set", "request_logs", "--keep", "30d", "--archive")
    for given in (("--dry-run",), ()):
        code, out, err = operator.run("retention", "run", *given)
        assert (code, "left: request_logs: " in err) == (1, True)
    assert "request_logs" not in operator.run("retention", "run", "--dry-run")[1]
    operator.run("retention", "set", "request_logs", "--keep", "30d", "--no-archive")
    done = operator.result("retention", "run")
    assert done["request_logs"]["deleted_rows"] == 1
    assert operator.rows(COUNT) == [{"rows": 0}]
    last, first = operator.result("retention", "runs")
    assert (last["deleted_rows"], first["deleted_rows"]) == (1, 0)
    assert "request_logs" in first["details"]
    assert last["instance"].startswith("command line")
    assert len(operator.run("retention", "runs", "--last", "1")[1].splitlines()) == 2


def test_a_run_does_not_join_one_that_is_under_way(operator: Operator) -> None:
    """It is said."""
    operator.rows("INSERT INTO retention_runs (id) VALUES (gen_random_uuid())")
    assert "another run is under way" in operator.refused("retention", "run")


def test_without_a_database_there_is_nothing_to_keep(operator: Operator) -> None:
    """It is said."""
    config = json.loads(operator.config.read_text())
    del config["postgres"]
    operator.config.write_text(json.dumps(config))
    for command in (("list",), ("run",), ("set", "audit_logs", "--keep", "1d")):
        assert "no 'postgres'" in operator.refused("retention", *command)


@pytest.mark.parametrize("keep", ["36h", "0", "x", "-1d"])
def test_rows_are_kept_for_whole_days(operator: Operator, keep: str) -> None:
    """Anything else is refused, like a table that is none."""
    assert operator.run("retention", "set", "audit_logs", "--keep", keep)[0] == 2
    assert operator.run("retention", "set", "tenants", "--keep", "1d")[0] == 2
