"""`maintenance start | stop | list`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.commands.conftest import Operator

ROWS = "SELECT title, status, drain_s FROM maintenance_windows ORDER BY title"


@pytest.fixture
def acme(operator: Operator) -> Operator:
    """With a tenant's server `x`, an everybody's `all`, and two windows in the configuration file."""
    operator.run("tenants", "create", "acme")
    operator.run("servers", "add", "x", "https://h.example/", "--tenant", "acme")
    operator.run("servers", "add", "all", "https://h.example/", "--shared")
    config = json.loads(operator.config.read_text())
    config["maintenance"] = [
        {"title": "weekly", "server": "a", "every": "Mon-Wed 02:00-04:00 Europe/Berlin", "drain": "1m"},
        {"title": "past", "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"},
    ]
    operator.config.write_text(json.dumps(config))
    return operator


def test_a_server_is_put_under_maintenance_and_back(acme: Operator) -> None:
    """The id goes to standard output; its end to the person."""
    code, out, err = acme.run("maintenance", "start", "x", "--tenant", "acme", "--for", "30m", "--title", "New disk")
    assert (code, err.startswith("under maintenance until ")) == (0, True)
    [shown] = acme.result("maintenance", "list", "--tenant", "acme")
    assert shown["id"] == out.strip()
    assert (shown["server"], shown["state"], shown["title"], shown["drain"], shown["every"]) == (
        "x", "under way", "New disk", "30s", None
    )  # fmt: skip
    length = datetime.fromisoformat(shown["ends"]) - datetime.fromisoformat(shown["begins"])
    assert abs(length - timedelta(minutes=30)) < timedelta(milliseconds=1)
    assert acme.run("maintenance", "stop", "x", "--tenant", "acme") == (0, "", "ended\n")
    assert acme.result("maintenance", "list", "--tenant", "acme") == []
    assert "by their id" in acme.refused("maintenance", "stop", "x", "--tenant", "acme")


def test_a_window_for_later_is_called_off_by_its_id(acme: Operator) -> None:
    """Everybody's server, without a tenant; for programs the row is told."""
    at = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    made = acme.result("maintenance", "start", "all", "--for", "2h", "--drain", "5s", "--at", at.isoformat())
    assert datetime.fromisoformat(made["starts_at"]) == at
    assert datetime.fromisoformat(made["ends_at"]) == at + timedelta(hours=2)
    assert acme.rows(ROWS) == [{"title": "maintenance", "status": "scheduled", "drain_s": 5.0}]
    assert "by their id" in acme.refused("maintenance", "stop", "all")
    assert acme.run("maintenance", "stop", made["id"]) == (0, "", "ended\n")
    assert acme.rows(ROWS) == [{"title": "maintenance", "status": "cancelled", "drain_s": 5.0}]
    assert "no window of this id" in acme.refused("maintenance", "stop", made["id"])


def test_all_servers_are_maintained_together(acme: Operator) -> None:
    """Of everyone, or of one tenant."""
    for whose in ((), ("--tenant", "acme")):
        made = acme.result("maintenance", "start", "*", "--for", "1h", *whose)
        length = datetime.fromisoformat(made["ends_at"]) - datetime.fromisoformat(made["starts_at"])
        assert length == timedelta(hours=1)
        [shown] = [each for each in acme.result("maintenance", "list") if each["id"] == made["id"]]
        assert (shown["server"], shown["title"], shown["tenant"]) == (
            "*",
            "maintenance",
            whose[-1] if whose else "system",
        )
        assert acme.run("maintenance", "stop", "*", *whose) == (0, "", "ended\n")


def test_windows_of_the_configuration_file_are_listed_beside_the_rows(acme: Operator) -> None:
    """As written there; what is over is not; a row that cannot be used says so."""
    acme.run("maintenance", "start", "x", "--tenant", "acme", "--for", "30m", "--title", "odd")
    acme.rows("UPDATE maintenance_windows SET recurrence = 'sometimes', server_id = NULL")
    lines = acme.run("maintenance", "list")[1].splitlines()
    assert lines[0].split() == ["ID", "TENANT", "SERVER", "STATE", "BEGINS", "ENDS", "EVERY", "DRAIN", "TITLE"]
    weekly, odd = acme.result("maintenance", "list")
    assert (weekly["id"], weekly["tenant"], weekly["server"], weekly["drain"], weekly["title"]) == (
        None, "system", "a", "1m", "weekly"
    )  # fmt: skip
    assert weekly["every"] == "Mon,Tue,Wed 02:00-04:00 Europe/Berlin"
    assert weekly["state"] in ("to come", "under way") and weekly["begins"] < weekly["ends"]
    assert (odd["tenant"], odd["server"], odd["state"], odd["begins"]) == ("acme", "*", "unusable", None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("start", "x", "--for", "30m"), "no server of this name"),
        (("start", "x", "--for", "30m", "--tenant", "nobody"), "there are: acme, system"),
        (("start", "all"), "--for"),
        (("start", "--for", "1h"), "SERVER"),
        (("start", "all", "--for", "0"), "longer than nothing"),
        (("start", "all", "--for", "400d"), "a year at most"),
        (("start", "all", "--for", "30m", "--at", "2020-01-01T00:00Z"), "over already"),
        (("start", "all", "--for", "30m", "--at", "planted"), "a time such as"),
        (("start", "all", "--for", "30m", "--title", "\x1b[2J"), "printable"),
        (("start", "all", "--for", "30m", "--drain", "planted"), "a duration"),
        (("stop", "nothing"), "once a proxy has run with it\n"),
        (("stop", "01a2048c"), "an id is given whole"),
        (("stop", "01a2048c-a4b3-73ce"), "an id is given whole"),
        (("stop", "00000000-0000-0000-0000-000000000000"), "no window of this id"),
        (("list", "--tenant", "nobody"), "there are: acme, system"),
    ],
)
def test_what_cannot_be_done_is_said(acme: Operator, arguments: tuple[str, ...], sentence: str) -> None:
    """In a sentence, with exit code 2, and nothing is planned."""
    said = acme.refused("maintenance", *arguments)
    assert sentence in said and "planted" not in said
    assert acme.rows(ROWS) == []


@pytest.mark.parametrize("arguments", [("start", "a", "--for", "30m"), ("stop", "a"), ("list",)])
def test_without_postgresql_windows_stand_in_the_configuration_file_alone(
    operator: Operator, arguments: tuple[str, ...]
) -> None:
    """A sentence says so."""
    operator.config.write_text(json.dumps({"servers": {"a": {"url": "http://x/"}}}))
    assert "no 'postgres'" in operator.refused("maintenance", *arguments)


def test_a_window_ends_before_time_does(acme: Operator) -> None:
    """Its end could not be told."""
    given = ("--at", "9999-12-31T23:00Z", "--for", "2h")
    assert "too far away" in acme.refused("maintenance", "start", "all", *given)
