"""`tenants create | list | suspend | activate`."""

from __future__ import annotations

import pytest

from tests.unit.commands.conftest import Operator


def test_a_tenant_is_made_and_listed(operator: Operator) -> None:
    """Its slug alone goes to standard output; lists are for people or for programs."""
    code, out, err = operator.run("tenants", "create", "acme", "--name", "Acme Inc.", "--max-keys", "5")
    assert (code, out) == (0, "acme\n")
    assert "keys create --tenant acme" in err
    made = operator.result("tenants", "create", "beta", "--plan", "team", "--max-servers", "2")
    assert (made["slug"], made["name"], made["plan"], made["max_servers"]) == ("beta", "beta", "team", 2)
    assert [row["slug"] for row in operator.result("tenants", "list")] == ["acme", "beta", "system"]
    lines = operator.run("tenants", "list")[1].splitlines()
    assert lines[0].split() == ["TENANT", "NAME", "STATUS", "PLAN", "MAX", "SERVERS", "MAX", "KEYS", "MADE"]
    assert lines[1].split()[:6] == ["acme", "Acme", "Inc.", "active", "free", "-"]


def test_a_tenant_is_suspended_and_brought_back(operator: Operator) -> None:
    """Twice the same is no error."""
    operator.run("tenants", "create", "acme")
    for action, word in (("suspend", "suspended"), ("activate", "active")):
        assert operator.run("tenants", action, "acme") == (0, "", f"{word}\n")
        assert operator.run("tenants", action, "acme") == (0, "", f"{word} already\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", "acme"), "already"),
        (("create", "system"), "already"),
        (("create", "-x"), "required"),
        (("create", "Not A Slug"), "lower-case"),
        (("create", "x", "--max-keys", "-1"), "max-keys"),
        (("create", "x", "--name", "\x1b[2J"), "printable"),
        (("suspend", "system"), "system tenant"),
        (("suspend", "nobody"), "there are: acme, system"),
        (("activate", "nobody"), "there are: acme, system"),
    ],
)
def test_what_cannot_be_done_is_said(operator: Operator, arguments: tuple[str, ...], sentence: str) -> None:
    """In a sentence, with exit code 2."""
    operator.run("tenants", "create", "acme")
    assert sentence in operator.refused("tenants", *arguments)
