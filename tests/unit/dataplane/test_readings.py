"""Rows are read once, and again when they, what they may refer to, or files that they name have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxy.config.rows import Reach, reach_of_operator
from proxy.dataplane.readings import OwnedServer, Reader, Reading, reaches_of, read_route, read_server
from tests.unit.dataplane.registered import route, server, tenant_id

NOTHING = Reach({}, "TENANT_ACME_")


def test_a_row_becomes_a_server_with_its_id() -> None:
    """Or a route."""
    row = server(1, "x")
    reading = Reading(row, NOTHING, read_server)
    assert isinstance(reading.made, OwnedServer)
    assert (reading.name, reading.problem, reading.made.id, reading.made.config.url) == (
        "x", "", row.id, "http://x.example/mcp",
    )  # fmt: skip
    assert Reading(route(1, "r", "x"), NOTHING, read_route).made is not None


def test_a_row_that_is_disabled_is_not_read() -> None:
    """Nothing is wrong with it, even if there is."""
    reading = Reading(server(1, "x", endpoint_url="nonsense", is_enabled=False), NOTHING, read_server)
    assert (reading.made, reading.problem) == (None, "")


def test_a_row_that_cannot_be_used_says_why() -> None:
    """In the words of the configuration."""
    reading = Reading(server(1, "x", options={"pool": 7}), NOTHING, read_server)
    assert reading.made is None
    assert reading.problem == "options.pool: expected keys and values ('key: value')"


def read(known: dict[str, Any], *rows: Any, reach: Reach = NOTHING) -> Reader[OwnedServer]:
    reader = Reader(known, read_server)
    for row in rows:
        reader.take(row, reach)
    return reader


def test_rows_are_filed_by_tenant_in_the_order_of_names() -> None:
    """A tenant without rows has none."""
    reader = read({}, server(2, "b"), server(1, "z"), server(2, "a"))
    assert reader.tenants() == {tenant_id(1), tenant_id(2)}
    assert [reading.name for reading in reader.of(tenant_id(2))] == ["a", "b"]
    assert reader.of(tenant_id(3)) == []


def test_only_what_changed_is_read_again() -> None:
    """The same object under the same reach is the same reading; an equal row is not."""
    row, other = server(1, "x"), server(1, "y")
    first = read({}, row, other).readings
    second = read(first, row, server(1, "y")).readings
    assert second[row.id] is first[row.id]
    assert second[other.id] is not first[other.id]
    assert read(first, row, reach=Reach({})).readings[row.id] is not first[row.id]


def test_a_row_that_names_a_file_is_read_each_time(tmp_path: Path) -> None:
    """The secret in it may be another one."""
    path = tmp_path / "secret"
    path.write_text("one")
    operator = reach_of_operator({})
    row, plain = server(0, "x", headers={"A": f"file:{path}"}), server(0, "y")
    first = read({}, row, plain, reach=operator).readings
    path.write_text("two")
    second = read(first, row, plain, reach=operator).readings
    assert second[plain.id] is first[plain.id]
    made = second[row.id].made
    assert made is not None
    assert made.config.headers["A"].get_secret_value() == "two"
    a_route = route(0, "r", "x")
    routes = Reader({}, read_route)
    routes.take(a_route, operator)
    assert routes.readings[a_route.id].still_says(a_route, operator)


def test_reaches_are_the_same_objects_while_they_are_equal() -> None:
    """One more tenant takes its variables away from the one whose slug begins its own, and from no other."""
    env = {"TENANT_A_B_X": "1", "TENANT_C_X": "2"}
    first = reaches_of(env, {"1": "a", "2": "c"}, {})
    assert dict(first["1"].variables) == {"TENANT_A_B_X": "1"}
    second = reaches_of(dict(env), {"1": "a", "2": "c", "3": "a-b"}, first)
    assert second["2"] is first["2"]
    assert dict(second["1"].variables) == {}
    assert dict(second["3"].variables) == {"TENANT_A_B_X": "1"}
    assert second[tenant_id(0)] is first[tenant_id(0)]
