"""`keys create | list | revoke | rotate | import-legacy`: the secret is shown once and kept nowhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.identity.keys import PepperRing, digest_of, parse
from tests.unit.commands.conftest import Operator

RING = PepperRing({1: b"a pepper of the tests"})
HASH = "SELECT secret_hmac, pepper_version FROM enhanced_api_keys WHERE id = $1"


@pytest.fixture
def acme(operator: Operator) -> Operator:
    """With a tenant that may have two keys."""
    operator.run("tenants", "create", "acme", "--max-keys", "2")
    return operator


def create(acme: Operator, *arguments: str) -> tuple[str, str]:
    """Text and id of a new key."""
    code, out, _ = acme.run("keys", "create", "--tenant", "acme", *arguments)
    assert code == 0
    text = out.removesuffix("\n")
    parsed = parse(text)
    assert parsed is not None
    return text, parsed[0]


def test_the_key_alone_goes_to_standard_output(acme: Operator) -> None:
    """One line, so that a shell can take it; what is kept of it is a hash, with which it is good."""
    code, out, err = acme.run("keys", "create", "--tenant", "acme", "--name", "ci")
    parsed = parse(out.removesuffix("\n"))
    assert code == 0 and parsed is not None
    assert parsed[0] in err and parsed[1] not in err
    [row] = acme.rows(HASH, parsed[0])
    assert RING.matches(parsed[1], row["secret_hmac"], row["pepper_version"])
    assert not PepperRing({1: b"another pepper of tests"}).matches(parsed[1], row["secret_hmac"], 1)


def test_the_key_is_in_the_json_and_in_no_list(acme: Operator) -> None:
    """It cannot be shown again."""
    made = acme.result("keys", "create", "--tenant", "acme", "--name", "ci")
    secret = parse(made["key"])
    assert secret is not None
    assert (made["id"], made["tenant"], made["scopes"]) == (secret[0], "acme", ["proxy", "read", "write"])
    assert (made["user_id"], made["rotated_from"]) == (None, None)
    listed = acme.run("keys", "list", "--json")[1] + acme.run("keys", "list")[1]
    assert secret[0] in listed and secret[1] not in listed


def test_every_limit_can_be_given(acme: Operator) -> None:
    """Several values of one limit are several options."""
    acme.rows("INSERT INTO \"user\" (id, name, email) VALUES ('u1', 'U', 'u@x') RETURNING id")
    options = (
        "--user u1 --scope read --scope proxy --scope read --tier admin --allow-ip 10.0.0.0/8 --allow-ip ::1 "
        "--allow-origin https://a.example --allow-server git* --allow-tool read_* --allow-tool x "
        "--requests-per-minute 60 --burst 5 --not-before 2026-01-01 --expires 30d"
    )
    create(acme, "--name", "ci", *options.split())
    [row] = acme.result("keys", "list", "--tenant", "acme")
    assert (row["user_id"], row["scopes"], row["tier"]) == ("u1", ["read", "proxy"], "admin")
    assert (row["allowed_ips"], row["allowed_origins"]) == (["10.0.0.0/8", "::1/128"], ["https://a.example"])
    assert (row["allowed_servers"], row["allowed_tools"]) == (["git*"], ["read_*", "x"])
    assert (row["requests_per_minute"], row["burst"]) == (60, 5)
    assert row["not_before"] == "2026-01-01T00:00:00+00:00"
    left = datetime.fromisoformat(row["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)


def test_a_key_that_reaches_nothing_is_remarked_on(acme: Operator) -> None:
    """It is made all the same: the admin API asks for no scope proxy."""
    assert (
        "without the scope proxy"
        in acme.run("keys", "create", "--tenant", "acme", "--name", "x", "--scope", "admin")[2]
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--tenant nobody --name x", "there are: acme, system"),
        ("--tenant acme --name first", "of this name"),
        ("--tenant acme --name x --user nobody", "no user"),
        ("--tenant acme --name x --scope all", "--scope"),
        ("--tenant acme --name x --allow-ip 10.0.0.1/8", "address or network"),
        ("--tenant acme --name x --allow-tool *x", "beginning of one"),
        ("--tenant acme --name x --allow-origin a.example", "an origin"),
        ("--tenant acme --name x --expires tomorrow", "a duration"),
        ("--tenant acme --name x --expires 30d --not-before 31d", "earlier"),
        ("--tenant acme --name x --burst 0", "1 or more"),
        ("--tenant acme", "--name"),
        ("--name x", "--tenant"),
    ],
)
def test_what_cannot_be_made_is_said(acme: Operator, arguments: str, sentence: str) -> None:
    """And nothing is made."""
    create(acme, "--name", "first")
    assert sentence in acme.refused("keys", "create", *arguments.split())
    assert len(acme.result("keys", "list")) == 1


def test_a_tenant_has_no_more_keys_than_it_may(acme: Operator) -> None:
    """Revoked ones do not count."""
    _, first = create(acme, "--name", "1")
    create(acme, "--name", "2")
    assert "2 keys" in acme.refused("keys", "create", "--tenant", "acme", "--name", "3")
    acme.run("keys", "revoke", first)
    create(acme, "--name", "3")


def test_a_key_is_revoked_by_its_id_or_by_itself(acme: Operator) -> None:
    """What leaked is at hand as it leaked; it is not repeated."""
    (first, first_id), (_, second_id) = create(acme, "--name", "1"), create(acme, "--name", "2")
    assert acme.run("keys", "revoke", first, "--reason", "leaked") == (0, "", "revoked\n")
    assert acme.run("keys", "revoke", first_id) == (0, "", "revoked already\n")
    assert acme.run("keys", "revoke", second_id)[0] == 0
    rows = acme.result("keys", "list")
    assert [(row["state"], row["revoked_reason"]) for row in rows] == [("revoked", "leaked"), ("revoked", None)]
    assert "no key of this id" in acme.refused("keys", "revoke", "000000000000")
    said = acme.refused("keys", "revoke", first[:-1])
    assert first[10:40] not in said and "12 characters" in said


def test_a_rotated_key_leaves_the_old_one_for_a_while(acme: Operator) -> None:
    """The new secret is shown once; both are listed, the old one with its end."""
    _, old = create(acme, "--name", "ci", "--scope", "proxy", "--scope", "read")
    code, out, err = acme.run("keys", "rotate", old, "--overlap", "2h")
    parsed = parse(out.removesuffix("\n"))
    assert code == 0 and parsed is not None
    assert old in err and "good until" in err
    before, after = acme.result("keys", "list")
    assert (after["id"], after["rotated_from"], after["scopes"]) == (parsed[0], old, ["proxy", "read"])
    left = datetime.fromisoformat(before["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=1, minutes=59) < left <= timedelta(hours=2)
    assert "successor" in acme.refused("keys", "rotate", old)
    made = acme.result("keys", "rotate", parsed[0])
    assert parse(made["key"]) is not None and made["rotated_from"] == parsed[0]


def test_legacy_keys_are_imported_by_their_hash(acme: Operator, tmp_path: Path) -> None:
    """No output and no row holds a key; the same file again changes nothing."""
    acme.run("tenants", "create", "big")
    given = tmp_path / "old-keys"
    given.write_text("# of the old system\nci planted-legacy-key-0001\n\nplanted-legacy-key-0002\nplanted,3\n")
    code, out, err = acme.run("keys", "import-legacy", "--tenant", "big", str(given), "--scope", "proxy")
    assert code == 0
    assert out.splitlines()[:2] == ["line 2: imported", "line 4: imported"]
    assert out.splitlines()[2].startswith("line 5: skipped: a key has")
    rows = acme.rows("SELECT name, key_hash, scopes FROM api_keys ORDER BY name")
    assert [(row["name"], row["scopes"]) for row in rows] == [("ci", ["proxy"]), ("imported key 4", ["proxy"])]
    assert rows[0]["key_hash"] == digest_of("planted-legacy-key-0001")
    again = acme.result("keys", "import-legacy", "--tenant", "big", "-", stdin=given.read_text())
    assert [line["outcome"] for line in again] == ["there already", "there already", "skipped"]
    assert "planted" not in out + err + json.dumps(again) + acme.run("keys", "list")[1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "no key"), ("{}", "a list"), ("[", "not JSON"), ("a b-long-enough-key-1\nc d\ne f\n", "2 keys")],
)
def test_a_list_that_cannot_be_imported_is_refused_as_a_whole(acme: Operator, text: str, sentence: str) -> None:
    """Nothing of it is kept."""
    assert sentence in acme.refused("keys", "import-legacy", "--tenant", "acme", "-", stdin=text)
    assert acme.rows("SELECT id FROM api_keys") == []


def test_without_a_configured_pepper_one_is_made_and_told_of(acme: Operator) -> None:
    """Once; a proxy with another state directory would not know the keys."""
    config = json.loads(acme.config.read_text())
    del config["auth"]
    acme.config.write_text(json.dumps(config))
    state = acme.config.parent / ".mcp-manager"
    assert str(state / "pepper.key") in acme.run("keys", "create", "--tenant", "acme", "--name", "1")[2]
    assert "pepper" not in acme.run("keys", "create", "--tenant", "acme", "--name", "2")[2]
    (state / "pepper.key").chmod(0o644)
    assert "chmod 600" in acme.refused("keys", "create", "--tenant", "acme", "--name", "3")


@pytest.mark.parametrize("expires", ["0s", "2020-01-01"])
def test_a_key_that_was_never_good_is_not_made(operator: Operator, expires: str) -> None:
    """Somebody would have to find out why it is refused."""
    operator.run("tenants", "create", "acme")
    assert "in the future" in operator.refused(
        "keys", "create", "--tenant", "acme", "--name", "x", "--expires", expires
    )
    assert operator.result("keys", "list", "--tenant", "acme") == []
