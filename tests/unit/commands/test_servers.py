"""`servers add | list | disable | enable | import`: checked as the configuration's, told without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.commands.conftest import Operator

URL = "https://mcp.example.com/mcp"
ROWS = "SELECT s.name, endpoint_url, transport_type, headers, options, is_enabled, slug FROM mcp_servers AS s " \
    "JOIN tenants AS t ON t.id = s.tenant_id ORDER BY s.name"  # fmt: skip


@pytest.fixture
def acme(operator: Operator) -> Operator:
    """With a tenant that may have four servers."""
    operator.run("tenants", "create", "acme", "--max-servers", "4")
    return operator


def test_a_server_is_added_with_everything(acme: Operator) -> None:
    """Variables stay variables; what may be secret is neither printed nor listed."""
    code, out, err = acme.run(
        "servers", "add", "github", f"{URL}?token=planted", "--tenant", "acme", "--transport", "sse",
        "--header", "Authorization: Bearer ${TENANT_ACME_TOKEN}", "--header", "X-Plain: planted",
        "--option", "timeouts.connect=2s", "--option", "timeouts.idle=0", "--option", "forwarded=false",
    )  # fmt: skip
    assert (code, out) == (0, "")
    assert err == "added: clients reach it at /github/mcp; set TENANT_ACME_TOKEN for the proxy\n"
    [row] = acme.rows(ROWS)
    headers = {"Authorization": "Bearer ${TENANT_ACME_TOKEN}", "X-Plain": "planted"}
    options = {"timeouts": {"connect": "2s", "idle": 0}, "forwarded": False}
    assert (json.loads(row["headers"]), json.loads(row["options"])) == (headers, options)
    assert (row["endpoint_url"], row["transport_type"], row["slug"]) == (f"{URL}?token=planted", "sse", "acme")
    [listed] = acme.result("servers", "list", "--tenant", "acme")
    assert (listed["url"], listed["headers"], listed["enabled"]) == (f"{URL}?...", ["Authorization", "X-Plain"], True)
    shown = json.dumps(listed) + acme.run("servers", "list")[1]
    assert "github" in shown and "planted" not in shown
    assert acme.result("servers", "list", "--shared") == []


def test_a_server_is_added_once(acme: Operator) -> None:
    """The same again is no error, another one of its name is."""
    assert acme.result("servers", "add", "github", URL, "--shared")["outcome"] == "added"
    assert acme.result("servers", "add", "github", URL, "--shared")["outcome"] == "there already"
    assert "another server" in acme.refused("servers", "add", "github", "https://other.example/", "--shared")
    assert acme.run("servers", "add", "github", URL, "--tenant", "acme")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("Not A Name", URL, "--shared"), "a name has 1 to 63"),
        (("github", "ftp://planted/", "--shared"), "a server URL"),
        (("github", "https://u:planted@h.example/", "--shared"), "put credentials into 'headers'"),
        (("github", "wss://h.example/", "--shared"), "websocket"),
        (("github", URL), "--tenant"),
        (("github", URL, "--shared", "--tenant", "acme"), "not allowed"),
        (("github", URL, "--tenant", "nobody"), "there are: acme, system"),
        (("github", URL, "--shared", "--header", "Host: planted"), "the proxy's to set"),
        (("github", URL, "--shared", "--header", "X: ä"), "printable ASCII"),
        (("github", URL, "--shared", "--header", "X: 1", "--header", "x: 2"), "twice"),
        (("github", URL, "--shared", "--header", "X: ${planted"), "a variable looks like"),
        (("github", URL, "--tenant", "acme", "--header", "X: ${SECRET}"), "begin with TENANT_ACME_"),
        (("github", URL, "--tenant", "acme", "--header", "X: file:/etc/hostname"), "cannot name files"),
        (("github", URL, "--tenant", "acme", "--option", "tls.ca=/etc/hostname"), "cannot name files"),
        (("github", URL, "--shared", "--option", "timeouts.connect=planted"), "a duration"),
        (("github", URL, "--shared", "--option", "timeout.connect=5s"), "unknown key"),
        (("github", URL, "--shared", "--option", "url=http://planted/"), "endpoint_url"),
        (("github", URL, "--shared", "--option", "a=1", "--option", "a.b=1"), "twice"),
        (("github", URL, "--shared", "--option", "a.b=1", "--option", "a=1"), "twice"),
        (("github", URL, "--shared", "--transport", "stdio"), "--transport"),
        (("github", "http://169.254.169.254/planted", "--tenant", "acme"), "registry.private_networks"),
    ],
)
def test_what_could_not_be_used_is_not_written(acme: Operator, arguments: tuple[str, ...], sentence: str) -> None:
    """The sentence is that of the configuration, and repeats no value."""
    said = acme.refused("servers", "add", *arguments)
    assert sentence in said and "planted" not in said.replace("planted'", "")
    assert acme.rows(ROWS) == []


def test_a_tenants_server_stands_on_a_public_address(acme: Operator) -> None:
    """Or in a network that the operator lists; shared ones, which are the operator's, stand anywhere."""
    private = ("http://10.1.2.3/mcp", "http://localhost:3000/mcp")
    for number, url in enumerate(private):
        assert "private_networks" in acme.refused("servers", "add", f"s{number}", url, "--tenant", "acme")
        assert acme.run("servers", "add", f"s{number}", url, "--shared")[0] == 0
    document = json.dumps({"mcpServers": {"desk": {"url": private[1]}}})
    assert "private_networks" in acme.run("servers", "import", "-", "--tenant", "acme", stdin=document)[1]
    listed = {"registry": {"private_networks": ["10.0.0.0/8", "127.0.0.0/8"]}}
    acme.config.write_text(json.dumps(json.loads(acme.config.read_text()) | listed))
    for number, url in enumerate(private):
        assert acme.run("servers", "add", f"s{number}", url, "--tenant", "acme")[2].startswith("added: ")


def test_a_variable_belongs_to_one_tenant(acme: Operator) -> None:
    """That of the longest slug."""
    acme.run("tenants", "create", "acme-corp")
    header = ("--header", "X: ${TENANT_ACME_CORP_TOKEN}")
    assert "environment variable" in acme.refused("servers", "add", "a", URL, "--tenant", "acme", *header)
    assert acme.run("servers", "add", "a", URL, "--tenant", "acme-corp", *header)[0] == 0


def test_variables_that_the_proxy_needs_are_named_once(acme: Operator) -> None:
    """However often a server refers to them; lists have words in small letters."""
    headers = ("--header", "X: ${TENANT_ACME_A} ${TENANT_ACME_B}", "--header", "Y: ${TENANT_ACME_A}")
    said = acme.run("servers", "add", "github", URL, "--tenant", "acme", *headers)[2]
    assert said.endswith("; set TENANT_ACME_A for the proxy; set TENANT_ACME_B for the proxy\n")
    assert said.count("TENANT_ACME_A") == 1
    assert acme.run("servers", "list")[1].splitlines()[1].split()[4:] == ["enabled", "unknown", "-"]


def test_a_server_is_disabled_and_enabled(acme: Operator) -> None:
    """Twice the same is no error."""
    acme.run("servers", "add", "github", URL, "--tenant", "acme")
    for action, word in (("disable", "disabled"), ("enable", "enabled")):
        assert acme.run("servers", action, "github", "--tenant", "acme") == (0, "", f"{word}\n")
        assert acme.run("servers", action, "github", "--tenant", "acme") == (0, "", f"{word} already\n")
        assert acme.run("servers", "list")[1].splitlines()[1].split()[4] == word
    assert "no server of this name" in acme.refused("servers", "disable", "github", "--shared")


FILE: dict[str, Any] = {
    "mcpServers": {
        "GitHub": {"url": URL, "headers": {"Authorization": "Bearer ${env:TOKEN}"}},
        "files": {"command": "npx", "args": ["server-filesystem", "/planted"]},
        "old": {"url": "https://old.example/sse", "disabled": True},
        "bad": {"url": URL, "headers": {"Host": "planted"}},
        "again": {"url": "ftp://planted/"},
    }
}


def test_the_settings_of_a_client_are_imported(acme: Operator, tmp_path: Path) -> None:
    """One line for each entry: what it is called now, what became of it, why, and what is to be done."""
    (tmp_path / "mcp.json").write_text(json.dumps(FILE))
    arguments = ("servers", "import", str(tmp_path / "mcp.json"), "--tenant", "acme")
    code, dry, err = acme.run(*arguments, "--dry-run")
    assert (code, err) == (0, "a dry run: nothing was changed\n")
    assert acme.rows(ROWS) == []
    code, out, err = acme.run(*arguments)
    assert (code, err) == (0, "")
    assert out == dry
    lines = out.splitlines()
    assert lines[0] == "GitHub -> github: added: set TENANT_ACME_TOKEN for the proxy"
    assert lines[1].startswith("files: skipped: it runs a command")
    assert lines[2] == "old: added: transport sse, by its URL; disabled, as it is there"
    assert lines[3].startswith("bad: skipped: headers.Host")
    assert lines[4].startswith("again: skipped: ") and "a server URL" in lines[4]
    assert "planted" not in out
    rows = acme.rows(ROWS)
    assert [(row["name"], row["transport_type"], row["is_enabled"]) for row in rows] == [
        ("github", "streamable_http", True), ("old", "sse", False)
    ]  # fmt: skip
    assert json.loads(rows[0]["headers"]) == {"Authorization": "Bearer ${TENANT_ACME_TOKEN}"}
    assert json.loads(rows[0]["options"]) == {}


def test_an_import_again_changes_nothing(acme: Operator) -> None:
    """What is there already is told, and so is what is there and different."""
    acme.run("servers", "import", "-", "--shared", stdin=json.dumps(FILE))
    FILE_AGAIN = json.loads(json.dumps(FILE))
    FILE_AGAIN["mcpServers"]["old"]["url"] = "https://new.example/sse"
    told = acme.result("servers", "import", "-", "--shared", stdin=json.dumps(FILE_AGAIN))
    assert [entry["outcome"] for entry in told] == [
        "there already", "skipped", "skipped: another server of this name is there", "skipped", "skipped"
    ]  # fmt: skip
    assert told[0] == {
        "written": "GitHub", "place": "mcpServers", "name": "github", "outcome": "there already",
        "notes": ["set TOKEN for the proxy"],
    }  # fmt: skip
    assert len(acme.rows(ROWS)) == 2


def test_more_servers_than_there_may_be_are_all_refused(acme: Operator) -> None:
    """Nothing of the file is kept."""
    five = {"mcpServers": {f"s{number}": {"url": f"{URL}/{number}"} for number in range(5)}}
    assert "4 servers" in acme.refused("servers", "import", "-", "--tenant", "acme", stdin=json.dumps(five))
    assert acme.rows(ROWS) == []


@pytest.mark.parametrize(
    ("text", "sentence"), [("", "not JSON"), ("{}", "no server in this file"), ('{"mcpServers": {}}', "no server")]
)
def test_a_file_without_servers_is_refused(acme: Operator, text: str, sentence: str) -> None:
    """As is one that cannot be read."""
    assert sentence in acme.refused("servers", "import", "-", "--tenant", "acme", stdin=text)
    assert "cannot be read" in acme.refused("servers", "import", "/no/such/file", "--tenant", "acme")
    assert "there are: acme, system" in acme.refused("servers", "import", "-", "--tenant", "x", stdin=json.dumps(FILE))


def test_names_from_a_file_cannot_move_the_cursor(acme: Operator) -> None:
    """A terminal obeys escape sequences; a program gets the name as it is."""
    document = json.dumps({"mcpServers": {"\x1b[2J\ud800x": {"command": "y"}}})
    out = acme.run("servers", "import", "-", "--shared", stdin=document)[1]
    assert out.startswith("?[2J?x: skipped")
    assert acme.result("servers", "import", "-", "--shared", stdin=document)[0]["written"] == "\x1b[2J?x"
