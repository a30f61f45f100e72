"""Secrets are found at places that commands, protocols, SQL and calls give them; what else stands there stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.commands import STEMS, looks_chosen, lowered, redact_places


def without(text: str) -> str:
    """As the caller does it."""
    low = text.lower()
    return redact_places(text, {stem for stem in STEMS if stem in low})


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("docker login -u bob -p hunter2 x.example", "docker login -u bob -p [redacted:password] x.example"),
        ("zip -P tiger -r a.zip a", "zip -P [redacted:password] -r a.zip a"),
        ("ldapsearch -x -w tiger -b dc=x", "ldapsearch -x -w [redacted:password] -b dc=x"),
        ("http -a bob:tiger x.example", "http -a bob:[redacted:password] x.example"),
        ("smbclient //a/b -U 'CORP\\bob%tiger'", "smbclient //a/b -U 'CORP\\bob%[redacted:password]'"),
        ("tool -u bob -p t1ger", "tool -u bob -p [redacted:password]"),
        ("xfreerdp /v:h /u:a /p:t1ger", "xfreerdp /v:h /u:a /p:[redacted:password]"),
        ("echo tiger | sudo -S ls", "echo [redacted:password] | sudo -S ls"),
        ("echo 'root:tiger' | chpasswd", "echo [redacted:password] | chpasswd"),
        ("net user bob tiger /add", "net user bob [redacted:password] /add"),
        ("sqlplus hr/tiger@ORCL", "sqlplus hr/[redacted:password]@ORCL"),
        ("jdbc:oracle:thin:scott/tiger@//h/XE", "jdbc:oracle:thin:scott/[redacted:password]@//h/XE"),
        (
            "ALTER USER a IDENTIFIED BY tiger ACCOUNT UNLOCK",
            "ALTER USER a IDENTIFIED BY [redacted:password] ACCOUNT UNLOCK",
        ),
        ("CREATE LOGIN a WITH PASSWORD = N'tiger'", "CREATE LOGIN a WITH PASSWORD = [redacted:password]"),
        ("HTTPBasicAuth('bob', 'tiger')", "HTTPBasicAuth('bob', '[redacted:password]')"),
        ('new NetworkCredential("bob", "tiger")', 'new NetworkCredential("bob", "[redacted:password]")'),
        ('getConnection(url, "bob", "t1ger")', 'getConnection(url, "bob", "[redacted:password]")'),
        ("bob:tiger@tcp(db:3306)/shop", "bob:[redacted:password]@tcp(db:3306)/shop"),
        ("USER bob\nPASS t1ger\n", "USER bob\nPASS [redacted:password]\n"),
        ("a1 LOGIN bob t1ger", "a1 LOGIN bob [redacted:password]"),
        ("ENV ADMIN_PASSWORD sw0rdfish", "ENV ADMIN_PASSWORD [redacted:password]"),
        ("db.internal:5432:orders:rw:t1ger", "db.internal:5432:orders:rw:[redacted:password]"),
        ("ACL SETUSER bob on >tiger ~*", "ACL SETUSER bob on >[redacted:password] ~*"),
        ("rabbitmqctl add_user bob tiger", "rabbitmqctl add_user bob [redacted:password]"),
        ("consul kv put db/password t1ger", "consul kv put db/password [redacted:password]"),
        ("WIFI:T:WPA;S:home;P:tiger;;", "WIFI:T:WPA;S:home;P:[redacted:password];;"),
        ("Unseal Key 1: q1w2e3", "Unseal Key 1: [redacted:password]"),
        ("snmp-server community tiger RO", "snmp-server community [redacted:password] RO"),
    ],
)
def test_a_place_gives_its_secret_away(text: str, kept: str) -> None:
    """Nothing else of the line goes."""
    assert without(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "docker run -u 1000 -p 8080:80 nginx",
        "psql -U app -p 5432",
        "sudo -u bob mkdir -p src",
        "mysql -u root -p shop",
        "echo $PW | docker login -u bob --password-stdin",
        "echo hello | grep h",
        "identified by four digits",
        "PASS tests/login.test.ts",
        "PASS login.test.ts",
        "login('user', password)",
        "--username and --password options",
        "set password to something",
        "the community RO string",
        "a:1:2:3:4",
        "net user bob /delete",
        "connect(host, user, password)",
    ],
)
def test_what_else_stands_there_stays(text: str) -> None:
    """Ports, paths, words of a sentence, files of tests."""
    assert without(text) == text


@pytest.mark.parametrize("text", ["hunter2", "Blue-Horse-42", "p@ss", "s3same!1", "Älg-4711"])
def test_a_password_is_written_like_one(text: str) -> None:
    """Letters with digits or signs."""
    assert looks_chosen(text)


@pytest.mark.parametrize(
    "text",
    ["is", "required", "sha256", "OAuth2", "a/b/c1", "now!", "bob@x.example", "${PW}", "v1.2.3", "x.py", "1password"],
)
def test_words_paths_and_names_of_techniques_are_not(text: str) -> None:
    """People write about passwords."""
    assert not looks_chosen(text)


@given(st.text())
def test_lower_case_leaves_each_character_in_its_place(text: str) -> None:
    """Also those that become two."""
    assert len(lowered(text)) == len(text)


def test_a_character_that_would_become_two_is_left() -> None:
    """All others become small."""
    assert lowered("İPASS") == "İpass"
    assert lowered("ÄPASS") == "äpass"
