"""`bans add | list | remove`, on a real Redis and with the rows that tell of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.commands.conftest import Operator, waited
from tests.unit.dataplane.valkey import client_of, server
from tests.unit.store.engine import folder

SERVERS = {"a": {"url": "http://x/"}}


async def _empty() -> None:
    async with client_of(server()) as client:
        await client.flushall()


@pytest.fixture
def blocking(operator: Operator) -> Operator:
    """With a Redis that has nothing in it, and a trusted proxy."""
    waited(_empty)
    config = json.loads(operator.config.read_text())
    config["redis"] = {"url": server().url}
    config["listen"] = {"trusted_proxies": ["10.0.0.0/8"]}
    config["limits"] = {"blocking": {"allow": ["198.51.100.0/24"]}}
    operator.config.write_text(json.dumps(config))
    return operator


def events(operator: Operator) -> list[tuple[Any, ...]]:
    """What is told of it."""
    query = "SELECT event_type, severity, client_ip::text, action_taken, details FROM security_events ORDER BY id"
    return [tuple(row.values()) for row in operator.rows(query)]


def test_an_address_is_blocked_listed_and_let_in_again(blocking: Operator) -> None:
    """For an hour, unless told otherwise; both are told in `security_events`."""
    assert blocking.run("bans", "list") == (0, "ADDRESS  UNTIL  KIND  TIMES  REASON\n", "")
    code, out, err = blocking.run("bans", "add", "192.0.2.1", "--for", "30d", "--reason", "because")
    assert (code, out) == (0, "") and err.startswith("blocked until ")
    assert blocking.run("bans", "add", "2001:db8:1:2::7")[0] == 0
    first, second = blocking.result("bans", "list")
    assert (first["address"], first["kind"], first["times"], first["reason"]) == (
        "2001:db8:1:2::/64", "operator", None, None
    )  # fmt: skip
    assert (second["address"], second["reason"]) == ("192.0.2.1", "because")
    lines = blocking.run("bans", "list")[1].splitlines()
    assert lines[2].split()[0] == "192.0.2.1" and lines[2].split()[-3:] == ["operator", "-", "because"]
    assert blocking.run("bans", "remove", "192.0.2.1") == (0, "", "not blocked any more\n")
    assert blocking.run("bans", "remove", "192.0.2.1") == (0, "", "not blocked\n")
    assert [each["address"] for each in blocking.result("bans", "list")] == ["2001:db8:1:2::/64"]
    assert blocking.run("bans", "remove", "2001:db8:1:2::/64")[0] == 0
    assert events(blocking) == [
        ("operator", "low", "192.0.2.1/32", "blocked", '{"reason": "because", "seconds": 2592000}'),
        ("operator", "low", "2001:db8:1:2::/64", "blocked", '{"reason": "", "seconds": 3600}'),
        ("operator", "low", "192.0.2.1/32", "logged", '{"lifted": true}'),
        ("operator", "low", "2001:db8:1:2::/64", "logged", '{"lifted": true}'),
    ]


def test_the_newest_word_of_an_operator_counts(blocking: Operator) -> None:
    """Also when it is a shorter time."""
    for length in ("1d", "1h"):
        blocking.run("bans", "add", "192.0.2.1", "--for", length)
    (ban,) = blocking.result("bans", "list")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", ban["until"])
    assert len(events(blocking)) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "127.0.0.1"), "never blocked"),
        (("add", "::1"), "never blocked"),
        (("add", "10.1.2.3"), "trusted_proxies"),
        (("add", "198.51.100.7"), "limits.blocking.allow"),
        (("add", "192.0.2.1", "--for", "0"), "longer than nothing"),
        (("add", "192.0.2.0/24"), "an address"),
        (("add", "example.com"), "an address"),
        (("remove", ""), "an address"),
    ],
)
def test_what_cannot_be_done_is_said(blocking: Operator, arguments: tuple[str, ...], sentence: str) -> None:
    """In a sentence, with exit code 2, and nothing is blocked or told."""
    assert sentence in blocking.refused("bans", *arguments)
    assert blocking.result("bans", "list") == []
    assert events(blocking) == []


@pytest.mark.parametrize("action", [("list",), ("add", "192.0.2.1"), ("remove", "192.0.2.1")])
def test_without_redis_there_is_nowhere_to_put_a_ban(operator: Operator, action: tuple[str, ...]) -> None:
    """A row alone would reach no proxy."""
    assert "no 'redis'" in operator.refused("bans", *action)
    assert events(operator) == []


def test_a_redis_that_is_away_is_a_sentence_without_its_password(blocking: Operator) -> None:
    """Nothing is recorded of what was not done."""
    config = json.loads(blocking.config.read_text())
    config["redis"] = {"url": "redis://:planted@127.0.0.1:1/0"}
    blocking.config.write_text(json.dumps(config))
    said = blocking.refused("bans", "add", "192.0.2.1")
    assert "Redis cannot be reached" in said and "planted" not in said
    assert events(blocking) == []


@pytest.mark.parametrize("postgres", [None, {"dsn": "postgresql://u:planted@127.0.0.1:1/x"}])
def test_a_ban_holds_although_it_cannot_be_recorded(blocking: Operator, postgres: dict[str, Any] | None) -> None:
    """Without a database there is no row to write; one that is away is a remark."""
    config = json.loads(blocking.config.read_text())
    blocking.config.write_text(json.dumps({**config, "postgres": postgres} if postgres else _without(config)))
    code, _, err = blocking.run("bans", "add", "192.0.2.1")
    assert (code, "not recorded" in err, "planted" in err) == (0, postgres is not None, False)
    assert [each["address"] for each in blocking.result("bans", "list")] == ["192.0.2.1"]


def _without(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "postgres"} | {"auth": {"anonymous": True}}


def test_an_embedded_redis_is_started_for_the_command_and_keeps_the_ban(blocking: Operator) -> None:
    """A proxy that starts later finds it."""
    state = folder()
    config = {"servers": SERVERS, "redis": {"embedded": True}, "state_dir": str(state)}
    blocking.config.write_text(json.dumps(config))
    assert blocking.run("bans", "add", "192.0.2.1")[0] == 0
    assert [each["address"] for each in blocking.result("bans", "list")] == ["192.0.2.1"]
    assert Path(state / "redis").is_dir()
