"""`config show | set | unset` on a real database."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from proxy.commands import config_arguments
from proxy.commands.console import DONE, MISUSED, Misuse
from tests.unit.commands.conftest import Operator

BODY = "listen.limits.body"
ROWS = "SELECT key, value::text FROM system_configs ORDER BY key"
TRAIL = """\
SELECT action, kind, actor_type, actor_id, resource_type, resource_id, outcome, arguments::text, chain, t.slug
FROM audit_logs AS a JOIN tenants AS t ON t.id = a.tenant_id ORDER BY ts, a.id"""


class Desk:
    """An operator who runs these commands."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.rows: Callable[..., list[dict[str, Any]]] = operator.rows

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, and standard error or what the command refuses."""
        parser = argparse.ArgumentParser()
        config_arguments.add(parser.add_subparsers(required=True, dest="action"))
        given, refused, code = parser.parse_args([*arguments, "-c", str(self.operator.config)]), "", DONE
        try:
            code = given.command(given)
        except Misuse as error:
            code, refused = MISUSED, str(error)
        written = self.operator.capsys.readouterr()
        return code, written.out, written.err + refused

    def shown(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """What is shown, by key."""
        code, out, err = self.run("show", *arguments, "--json")
        assert code == DONE, err
        return {each["key"]: each for each in json.loads(out)}

    def configure(self, **keys: Any) -> None:
        """Have more in the file."""
        written = json.loads(self.operator.config.read_text())
        self.operator.config.write_text(json.dumps({**written, **keys}))


@pytest.fixture
def desk(operator: Operator) -> Desk:
    operator.run("tenants", "create", "acme")
    return Desk(operator)


def test_a_setting_is_set_shown_and_unset(desk: Desk) -> None:
    """The row is where the value comes from, with who and when, and what the file would have."""
    assert desk.run("set", BODY, "8MiB", "--reason", "big tools") == (0, "", "set, for every running proxy\n")
    shown = desk.shown(BODY, "--effective")[BODY]
    assert (shown["value"], shown["source"], shown["instead_of"], shown["reason"]) == (
        "8MiB", "row", "default", "big tools"
    )  # fmt: skip
    assert "@" in shown["by"]
    assert datetime.fromisoformat(shown["at"]).tzinfo is not None
    assert desk.shown(BODY)[BODY]["source"] == "default"
    lines = desk.run("show", "listen.limits", "--effective", "--changed")[1].splitlines()
    assert lines[0].split() == ["KEY", "VALUE", "SOURCE"]
    assert len(lines) == 2
    assert lines[1].startswith(f"{BODY}  8MiB   row, by {shown['by']}, ")
    assert desk.run("unset", BODY) == (0, "", "unset: the configuration file decides again\n")
    assert desk.rows(ROWS) == []
    assert desk.shown(BODY, "--effective")[BODY]["source"] == "default"
    code, _, err = desk.run("unset", BODY)
    assert (code, err.startswith("no row sets this")) == (MISUSED, True)


def test_every_change_is_in_the_audit_trail(desk: Desk) -> None:
    """Old and new value, in a chain of its own with a signed head."""
    desk.run("set", BODY, "8MiB")
    desk.run("set", BODY, "9MiB", "--reason", "bigger")
    desk.run("unset", BODY)
    rows = desk.rows(TRAIL)
    assert [(row["action"], json.loads(row["arguments"])) for row in rows] == [
        ("config.set", {"old": None, "new": "8MiB"}),
        ("config.set", {"old": "8MiB", "new": "9MiB", "reason": "bigger"}),
        ("config.unset", {"old": "9MiB"}),
    ]
    for row in rows:
        assert (row["kind"], row["actor_type"], row["outcome"], row["slug"]) == ("outcome", "system", "ok", "system")
        assert (row["resource_type"], row["resource_id"], len(row["chain"])) == ("setting", BODY, 32)
        assert "@" in row["actor_id"]
    heads = desk.rows("SELECT row_count, is_final, length(signature) AS signed FROM audit_heads")
    assert [tuple(head.values()) for head in heads] == [(1, True, 64)] * 3


def test_a_tenant_gets_a_grade_of_its_own(desk: Desk) -> None:
    """Shown under its short name, where the file would have it; also while it is suspended it can be set."""
    desk.configure(record={"tenants": {"acme": "usage", "x": "usage"}})
    said = desk.run("set", "record.audit", "strict", "--tenant", "acme")
    assert said == (DONE, "", "set, for every running proxy and the tenant acme\n")
    shown = desk.shown("record.tenants", "--effective")
    assert {key: (each["value"], each["source"], each["instead_of"]) for key, each in shown.items()} == {
        "record.tenants.acme": ("strict", "row", "config.yaml:1"), "record.tenants.x": ("usage", "config.yaml:1", None)
    }  # fmt: skip
    assert [row["slug"] for row in desk.rows(TRAIL)] == ["acme"]
    desk.rows("UPDATE tenants SET status = 'suspended' WHERE slug = 'acme'")
    assert desk.run("set", "record.audit", "standard", "--tenant", "acme")[0] == DONE
    assert desk.shown("record.tenants", "--effective")["record.tenants.acme"]["source"] == "config.yaml:1"
    assert desk.run("unset", "record.audit", "--tenant", "acme")[0] == DONE


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("log.level", "loud"), "setting log.level: expected 'debug', 'info', 'warning' or 'error'"),
        ((BODY, "1"), "setting listen.limits.body: must be 1KiB or more"),
        (("listen.port", "1"), "setting listen.port: no setting of this name can be changed at run time"),
        (("auth.peppers.1", "topsecret"), "setting auth.peppers.1: no setting of this name can be changed"),
        (("limits.streams.per_tenant", "5"), "setting limits.streams.per_tenant: the configuration file has no 'limit"),
        (("log.level", "error", "--tenant", "acme"), "tenant acme, setting log.level: this setting is everybody's"),
        (("log.level", "error", "--tenant", "nobody"), "no tenant of this name"),
        (("record.audit", "none"), "setting record.audit: 'none' can be said by the configuration file alone"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(desk: Desk, arguments: tuple[str, ...], sentence: str) -> None:
    """With the sentence of the file, without the value; neither row nor record."""
    code, out, err = desk.run("set", *arguments)
    assert (code, out) == (MISUSED, "")
    assert err.startswith(sentence)
    assert "topsecret" not in err
    assert desk.rows(ROWS) + desk.rows(TRAIL) == []


def test_values_are_written_as_in_the_file(desk: Desk) -> None:
    """Numbers and truths are what they look like; all else is text, quoted or not."""
    for key, value in (("log.access", "false"), ("log.level", '"error"'), ("retry_budget.percent", "12.5")):
        assert desk.run("set", key, value)[0] == DONE
    assert [row["value"] for row in desk.rows(ROWS)] == ["false", '"error"', "12.5"]


def test_rows_that_cannot_be_used_are_told_of_and_not_in_force(desk: Desk) -> None:
    """Whoever put them there; a suspended tenant's are passed over."""
    desk.configure(limits={})
    desk.run("set", "limits.blocking.longest_block", "3d")
    assert desk.run("set", "limits.blocking.first_block", "2d")[0] == DONE
    code, _, err = desk.run("unset", "limits.blocking.longest_block")
    assert (code, err.splitlines()[1:]) == (
        DONE,
        ["beware: setting limits.blocking.first_block: left out: 'first_block' is longer than 'longest_block'"],
    )
    desk.rows("INSERT INTO system_configs (tenant_id, key, value) SELECT id, 'theme', '{}' FROM tenants")
    desk.rows("UPDATE tenants SET status = 'suspended' WHERE slug = 'acme'")
    code, out, err = desk.run("show", "limits.blocking", "--effective")
    assert (code, "row, by" in out) == (DONE, False)
    assert [line.split(":")[1] for line in err.splitlines()] == [
        " setting theme", " setting limits.blocking.first_block"
    ]  # fmt: skip


def test_no_secret_is_shown(desk: Desk) -> None:
    """Of a variable, a file or a key for secrets, only that it is set, and where."""
    desk.operator.monkeypatch.setenv("TOKEN", "topsecret-1")
    (desk.operator.config.parent / "secret").write_text("topsecret-2")
    headers = {"A": "Bearer ${TOKEN}", "B": "file:secret", "C": "topsecret-3"}
    desk.configure(servers={"a": {"url": "http://x/?key=topsecret-4", "headers": headers}})
    code, out, err = desk.run("show", "--effective", "--json")
    assert (code, "topsecret" in out + err) == (DONE, False)
    shown = {name: (each["value"], each["source"]) for name, each in desk.shown("servers.a").items()}
    assert shown["servers.a.headers.A"] == ("(set)", "environment TOKEN, config.yaml:1")
    assert shown["servers.a.headers.B"] == ("(set)", "file secret, config.yaml:1")
    assert shown["servers.a.headers.C"] == ("(set)", "config.yaml:1")
    assert shown["servers.a.url"] == ("http://x/?...", "config.yaml:1")


def test_without_a_database_the_file_is_all_there_is(desk: Desk) -> None:
    """It can be shown; there is nowhere to set anything."""
    desk.operator.config.write_text("servers: {a: {url: 'http://x/'}}\nlog: {level: error}\n")
    assert desk.shown("log", "--effective", "--changed") == {
        "log.level": {
            "key": "log.level", "value": "error", "source": "config.yaml:2", "by": None, "at": None, "reason": None,
            "instead_of": None,
        },
    }  # fmt: skip
    for change in (("set", BODY, "8MiB"), ("unset", BODY)):
        assert "has no 'postgres'" in desk.run(*change)[2]
    assert not (desk.operator.config.parent / ".mcp-manager").exists()
    assert "nothing of this name" in desk.run("show", "listn")[2]


def test_a_setting_that_nobody_knows_never_comes_to_the_database(desk: Desk) -> None:
    """PostgreSQL has words of its own for a key that is none."""
    code, _, err = desk.run("set", "", "1")
    assert (code, "no setting of this name" in err) == (MISUSED, True)


@pytest.mark.parametrize("given", [("log.level", "\udcff"), ("\udcff", "1")])
def test_what_is_no_text_is_no_setting(desk: Desk, given: tuple[str, str]) -> None:
    """Bytes of the command line that are not UTF-8."""
    with pytest.raises(SystemExit):
        desk.run("set", *given)
    assert "UTF-8" in desk.operator.capsys.readouterr().err
