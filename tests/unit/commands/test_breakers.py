"""`breakers list | open | close | release`."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from tests.unit.commands.conftest import Operator

ORDERS = "SELECT s.name, o.state, o.reason, o.updated_at FROM breaker_orders AS o JOIN mcp_servers AS s" \
    " ON s.id = o.server_id ORDER BY s.name"  # fmt: skip
EVENTS = "SELECT event_type, details FROM system_events WHERE event_type LIKE 'breaker%' ORDER BY ts"
SEEN = """INSERT INTO circuit_breakers (tenant_id, server_id, instance, state, failure_count, open_count, opened_at,
    next_attempt_at, last_failure)
    SELECT tenant_id, id, 'replica-' || n, CASE n WHEN 1 THEN 'open' ELSE 'closed' END, 7, n,
        '2026-11-22 12:00Z', '2026-11-22 12:01Z', 'connect' FROM mcp_servers, generate_series(1, 2) AS n
    WHERE name = 'x'"""


@pytest.fixture
def acme(operator: Operator) -> Operator:
    """With a tenant's server `x` and an everybody's `all`."""
    operator.run("tenants", "create", "acme")
    operator.run("servers", "add", "x", "https://h.example/", "--tenant", "acme")
    operator.run("servers", "add", "all", "https://h.example/", "--shared")
    return operator


def test_an_order_is_given_replaced_and_ended(acme: Operator) -> None:
    """Each time it is told in an event; at most one order is in force."""
    told = acme.run("breakers", "open", "all", "--reason", "wrong answers")
    assert told == (0, "", "open until 'breakers close' or 'breakers release'\n")
    [first] = acme.rows(ORDERS)
    assert (first["name"], first["state"], first["reason"]) == ("all", "open", "wrong answers")
    assert acme.run("breakers", "close", "all") == (0, "", "closed\n")
    [second] = acme.rows(ORDERS)
    assert (second["state"], second["reason"]) == ("closed", None)
    assert acme.run("breakers", "release", "all") == (0, "", "left to itself\n")
    assert acme.rows(ORDERS) == []
    assert acme.run("breakers", "release", "all") == (0, "", "left to itself already\n")
    events = [(row["event_type"], json.loads(row["details"])) for row in acme.rows(EVENTS)]
    assert events == [
        ("breaker_ordered_open", {"name": "all", "reason": "wrong answers"}),
        ("breaker_ordered_closed", {"name": "all", "reason": None}),
        ("breaker_released", {"name": "all"}),
    ]


def test_the_same_order_again_is_another_one(acme: Operator) -> None:
    """So that `close` closes what has opened since."""
    acme.run("breakers", "close", "x", "--tenant", "acme")
    [first] = acme.rows(ORDERS)
    acme.run("breakers", "close", "x", "--tenant", "acme")
    [second] = acme.rows(ORDERS)
    assert second["updated_at"] > first["updated_at"]


def test_breakers_are_listed_by_server_and_instance(acme: Operator) -> None:
    """With the order in force; a server that only has an order is among them, one that has neither is not."""
    acme.rows(SEEN)
    acme.run("breakers", "open", "all", "--reason", "wrong answers")
    opened, closed, ordered = acme.result("breakers", "list")
    assert (opened["tenant"], opened["server"], opened["instance"], opened["state"]) == (
        "acme", "x", "replica-1", "open"
    )  # fmt: skip
    assert (opened["failures"], opened["trips"], opened["last_failure"], opened["ordered"]) == (7, 1, "connect", None)
    assert datetime.fromisoformat(opened["since"]) == datetime.fromisoformat("2026-11-22T12:00Z")
    assert datetime.fromisoformat(opened["next_attempt"]) == datetime.fromisoformat("2026-11-22T12:01Z")
    assert (closed["instance"], closed["state"], closed["since"]) == ("replica-2", "closed", None)
    assert (ordered["tenant"], ordered["server"], ordered["state"], ordered["ordered"], ordered["reason"]) == (
        "system", "all", None, "open", "wrong answers"
    )  # fmt: skip
    lines = acme.run("breakers", "list")[1].splitlines()
    assert lines[0].split("  ")[0] == "TENANT" and len(lines) == 4
    assert lines[3].endswith("open: wrong answers")
    assert [row["server"] for row in acme.result("breakers", "list", "--tenant", "system")] == ["all"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("open", "x"), "no server of this name"),
        (("open", "x", "--tenant", "nobody"), "there are: acme, system"),
        (("close", "nothing"), "no server of this name"),
        (("release", "nothing"), "no server of this name"),
        (("open", "all", "--reason", "\x1b[2J"), "printable"),
        (("list", "--tenant", "nobody"), "there are: acme, system"),
    ],
)
def test_what_cannot_be_done_is_said(acme: Operator, arguments: tuple[str, ...], sentence: str) -> None:
    """In a sentence, with exit code 2, and nothing is ordered."""
    assert sentence in acme.refused("breakers", *arguments)
    assert acme.rows(ORDERS) == []
