"""The commands for tenants, keys and servers as an operator has them: processes, a shell, the embedded database."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from proxy.config.loader import load
from proxy.identity.keys import parse
from proxy.store.first_start import first_start
from proxy.store.lifecycle import Stores, embedded_postgres
from proxy.store.peppers import pepper_ring
from tests.harness import ROOT
from tests.unit.store.engine import execute, folder

_COPY: Final = "SELECT format('SELECT t::text FROM %I.%I AS t', schemaname, tablename) AS query FROM pg_tables"


class Operator:
    """Somebody with a shell and a configuration file."""

    def __init__(self) -> None:
        self.folder = folder()
        self.state = self.folder / "state"
        self.config = self.folder / "config.yaml"
        self.config.write_text(
            "servers: {a: {url: 'http://127.0.0.1:1/mcp'}}\npostgres: {embedded: true}\nstate_dir: state\n"
        )
        #: Everything that commands wrote to standard error.
        self.errors = ""

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """A command that ended."""
        done = subprocess.run(
            [sys.executable, "-m", "proxy", *arguments], cwd=ROOT, env=self.environment, input=stdin,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        self.errors += done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def well(self, *arguments: str, stdin: str = "") -> str:
        """Standard output of a command that went well."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """Without a database of its own."""
        return {**os.environ, "MCP_MANAGER_CONFIG": str(self.config), "DATABASE_URL": ""}

    def servers(self) -> list[psutil.Process]:
        """PostgreSQL processes that work for this state directory."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if f"{self.state}/postgres/cluster" in " ".join(process.info["cmdline"] or ()):
                found.append(process)
        return found

    def stores(self) -> Stores:
        """The databases as the proxy runs them."""
        return Stores(load(self.config, {}).postgres, None, self.state, time.monotonic, lambda: 0.5)


@pytest.fixture
def operator() -> Iterator[Operator]:
    """With an empty state directory."""
    made = Operator()
    yield made
    assert not made.servers(), "a command left its server behind"


def test_without_a_proxy_the_database_runs_for_the_time_of_a_command(operator: Operator) -> None:
    """A key that is made before anything else, as a shell takes it; afterwards no server runs."""
    shell = "KEY=$($MCP keys create --tenant system --name first) && printf '<%s>' \"$KEY\""
    done = subprocess.run(
        ["/bin/sh", "-c", shell], cwd=ROOT, env={**operator.environment, "MCP": f"{sys.executable} -m proxy"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert parse(done.stdout.strip("<>")) is not None
    assert not operator.servers()
    assert operator.well("migrate", "up") == "up to date\n"
    [key] = json.loads(operator.well("keys", "list", "--json"))
    assert key["id"] in done.stdout and key["state"] == "in force"


def test_commands_that_come_together_take_turns(operator: Operator) -> None:
    """None ends the server of another."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "proxy", "tenants", "create", f"t{number}"], cwd=ROOT, env=operator.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    ended = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert [code for _, _, code in ended] == [0, 0, 0, 0], ended
    assert len(json.loads(operator.well("tenants", "list", "--json"))) == 1 + 4


async def test_with_a_proxy_its_database_is_used(operator: Operator) -> None:
    """The first start made a tenant and a key; what a command changes is told to the proxy, whose server goes on."""
    stores = operator.stores()
    await stores.start()
    try:
        assert stores.database is not None and stores.notices is not None
        path = await first_start(stores.database, pepper_ring(load(operator.config, {})), operator.state)
        assert path is not None
        before = {process.pid for process in operator.servers()}
        await stores.notices.step(0)
        first = parse(path.read_text().strip())
        assert first is not None
        assert (await asyncio.to_thread(operator.run, "keys", "revoke", first[0])).returncode == 0
        heard = await stores.notices.step(5)
        assert ("enhanced_api_keys", first[0]) in {(notice.table, notice.id) for notice in heard.notices}
        assert {process.pid for process in operator.servers()} >= before
        async with stores.database.snapshot() as session:
            assert await session.fetch_value("/* test.count */ SELECT count(*) FROM tenants") == 2
    finally:
        await stores.stop()


def planted(operator: Operator) -> dict[str, str]:
    """Every kind of secret that the commands take or make, each used."""
    operator.well("tenants", "create", "acme")
    made = operator.well("keys", "create", "--tenant", "acme", "--name", "made").strip()
    parsed = parse(made)
    assert parsed is not None
    rotated = json.loads(operator.well("keys", "rotate", parsed[0], "--json"))["key"]
    operator.well("keys", "import-legacy", "--tenant", "acme", "-", stdin="old planted-legacy-key-0001\n")
    operator.run("keys", "import-legacy", "--tenant", "acme", "-", stdin='{"planted-legacy-key-0002"')
    operator.run("keys", "revoke", f"{rotated[:-1]}x")
    operator.well("keys", "revoke", made)
    header = "Authorization: Bearer ${TENANT_ACME_TOKEN}"
    operator.well("servers", "add", "a", "https://h.example/?k=planted-in-url", "--tenant", "acme", "--header", header)
    return {"made": made, "rotated": rotated, "legacy": "planted-legacy-key-0001", "broken": "planted-legacy-key-0002"}


async def test_no_secret_is_kept_or_told(operator: Operator) -> None:
    """Not in a row, not in a file of the server (its log and write-ahead log included), not on standard error, not in
    a list; while what is no secret is found everywhere by the same search."""
    secrets = await asyncio.to_thread(planted, operator)
    lists = [await asyncio.to_thread(operator.well, group, "list", *more)
             for group in ("keys", "servers", "tenants") for more in ((), ("--json",))]  # fmt: skip
    server = embedded_postgres(operator.state)
    await server.start()
    try:
        queries = await execute(server.owner_dsn, _COPY)
        rows = [str(await execute(server.owner_dsn, row["query"])) for row in queries]
    finally:
        await server.stop()
    files = [path.read_bytes() for path in operator.state.rglob("*") if path.is_file()]
    searched = {
        "rows": "\n".join(rows).encode(),
        "files": b"\n".join(files),
        "errors": operator.errors.encode(),
        "lists": "\n".join(lists).encode(),
    }
    for place, text in searched.items():
        for name, secret in secrets.items():
            parts = [secret, secret[18:61]] if name in ("made", "rotated") else [secret]
            assert not [part for part in parts if part.encode() in text], (place, name)
        assert b"planted-in-url" not in text or place in ("rows", "files")
        assert secrets["made"][5:17].encode() in text or place == "errors"
    assert secrets["made"][5:17] in operator.errors
    assert re.search(rb"planted-in-url", searched["rows"])


FILES: Final[dict[str, dict[str, Any]]] = {
    "claude_desktop_config.json": {
        "mcpServers": {"desk": {"command": "npx", "args": ["-y", "mcp-remote", "https://desk.example/mcp"]}}
    },
    ".claude.json": {
        "mcpServers": {"code": {"type": "http", "url": "https://code.example/mcp"}},
        "projects": {"/home/me/x": {"mcpServers": {"of-project": {"type": "sse", "url": "https://p.example/sse"}}}},
    },
    "cursor.json": {"mcpServers": {"cursor": {"url": "https://c.example/", "headers": {"X-Key": "${env:KEY}"}}}},
    "vscode.json": {
        "inputs": [{"id": "token", "type": "promptString", "password": True}],
        "servers": {
            "code-too": {"type": "http", "url": "https://v.example/", "headers": {"Authorization": "${input:token}"}}
        },
    },
}


def test_the_settings_of_four_clients_are_imported(operator: Operator, tmp_path: Path) -> None:
    """And then listed as shared servers."""
    for name, document in FILES.items():
        (tmp_path / name).write_text(json.dumps(document))
        assert ": added" in operator.well("servers", "import", str(tmp_path / name), "--shared")
    listed = json.loads(operator.well("servers", "list", "--shared", "--json"))
    assert [(row["name"], row["transport"], row["headers"]) for row in listed] == [
        ("code", "streamable_http", []),
        ("code-too", "streamable_http", ["Authorization"]),
        ("cursor", "streamable_http", ["X-Key"]),
        ("desk", "streamable_http", []),
        ("of-project", "sse", []),
    ]
