"""Settings in rows: in force on every replica within a second, and after a restart without PostgreSQL."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness import CALL, PATIENCE_S, ROOT, ProxyProcess, free_port, json_answer, post, running_proxy
from tests.integration.blocking import Server, connected
from tests.integration.identified import waited
from tests.unit.store.engine import execute, login_dsn, migrated_template, owner_dsn

BODY = "listen.limits.body"
LARGE = CALL.replace(b'"echo"', b'"' + b"x" * 2000 + b'"')
#: From a change that is committed until every replica goes by it, seconds.
KNOWN_S = 1.0
_NUMBERS = itertools.count(1)


class Replicas(NamedTuple):
    """Two proxies with one database."""

    proxies: tuple[ProxyProcess, ProxyProcess]
    configs: tuple[dict[str, Any], dict[str, Any]]
    database: str

    def sql(self, statement: str, *values: object) -> list[Any]:
        rows: list[Any] = waited(lambda: execute(owner_dsn(self.database), statement, *values))
        return rows

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `config` on the first one's file."""
        return subprocess.run(
            [sys.executable, "-m", "proxy", "config", *arguments, "-c", str(self.proxies[0].path)],
            cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def known(self, condition: Callable[[ProxyProcess], bool]) -> float:
        """Seconds until it holds for both."""
        began = time.monotonic()
        while not all(map(condition, self.proxies)):
            assert time.monotonic() - began < PATIENCE_S
            time.sleep(0.01)
        return time.monotonic() - began


def status(proxy: ProxyProcess, body: bytes = LARGE) -> int:
    """Of a call with this body."""
    with connected(proxy) as client:
        client.send(post("/up/mcp", body))
        return client.answer()[0]


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    database = f"replicas_{next(_NUMBERS)}"
    template = waited(migrated_template)
    waited(lambda: execute(owner_dsn("postgres"), f"CREATE DATABASE {database} TEMPLATE {template}"))
    with ExitStack() as stack:
        upstream = stack.enter_context(Server())

        async def speak(wire: Any) -> None:
            while await wire.request():
                await wire.send(json_answer())

        upstream.script = speak
        configs = tuple(
            {
                "servers": {"up": {"url": f"{upstream.url}/mcp"}},
                "postgres": {"dsn": login_dsn(database)},
                "auth": {"anonymous": True},
                "state_dir": str(tmp_path / f"state{number}"),
            }
            for number in (1, 2)
        )
        first, second = (stack.enter_context(running_proxy(config)) for config in configs)
        yield Replicas((first, second), (configs[0], configs[1]), database)
    waited(lambda: execute(owner_dsn("postgres"), f"DROP DATABASE {database} WITH (FORCE)"))


@pytest.mark.alone
def test_a_setting_is_in_force_on_every_replica_within_a_second(replicas: Replicas) -> None:
    """Set by the command or whoever else writes the row; unset, the file decides again."""
    assert [status(proxy) for proxy in replicas.proxies] == [200, 200]
    done = replicas.command("set", BODY, "1KiB", "--reason", "a test")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    took = [replicas.known(lambda proxy: status(proxy) == 413)]
    replicas.sql("UPDATE system_configs SET value = '\"4KiB\"'")
    took.append(replicas.known(lambda proxy: status(proxy) == 200))
    replicas.sql("UPDATE system_configs SET value = '\"1KiB\"'")
    took.append(replicas.known(lambda proxy: status(proxy) == 413))
    assert replicas.command("unset", BODY).returncode == 0
    took.append(replicas.known(lambda proxy: status(proxy) == 200))
    print("seconds until both replicas went by it:", *(f"{each:.3f}" for each in took))
    assert max(took) <= KNOWN_S
    trail = replicas.sql("SELECT action, arguments::text FROM audit_logs WHERE actor_type = 'system' ORDER BY ts")
    assert [(row["action"], json.loads(row["arguments"])) for row in trail] == [
        ("config.set", {"old": None, "new": "1KiB", "reason": "a test"}), ("config.unset", {"old": "1KiB"})
    ]  # fmt: skip


def test_a_row_that_cannot_be_used_is_logged_once_and_costs_nothing_else(replicas: Replicas) -> None:
    """Nor does it keep a proxy from starting."""
    replicas.sql(
        "INSERT INTO system_configs (tenant_id, key, value) SELECT id, unnest($1::text[]), '\"1KiB\"'"
        " FROM tenants WHERE slug = 'system'",
        [BODY, "listen.timeouts.head", "no.such.thing"],
    )
    replicas.known(lambda proxy: status(proxy) == 413)
    lines = replicas.proxies[0].logged(lambda line: line.get("event") == "rows of the registry left out", 1)
    assert [len(line["problems"]) for line in lines] == [2]
    assert replicas.proxies[0].metric("mcp_proxy_setting_rows", state="in_force") == 1
    assert replicas.proxies[0].metric("mcp_proxy_setting_rows", state="left_out") == 2
    with running_proxy({**replicas.configs[0], "state_dir": f"{replicas.configs[0]['state_dir']}-new"}) as third:
        assert status(third) == 413


def test_settings_outlast_postgresql_and_a_reload(replicas: Replicas) -> None:
    """A proxy that starts without it goes by its copy; one whose file changes keeps what rows say."""
    replicas.sql(
        "INSERT INTO system_configs (tenant_id, key, value) SELECT id, 'log.access', 'false' FROM tenants"
        " WHERE slug = 'system'"
    )
    replicas.sql("INSERT INTO system_configs (tenant_id, key, value) SELECT tenant_id, $1, '\"1KiB\"'"
                 " FROM system_configs", BODY)  # fmt: skip
    replicas.known(lambda proxy: status(proxy) == 413)
    first, second = replicas.proxies
    changed = {**replicas.configs[0], "listen": {"limits": {"body": "3KiB"}}, "log": {"level": "debug"}}
    assert first.reload(changed)["event"] == "configuration in force"
    assert status(first) == 413
    second.stop()  # a copy that is still to be written is written then
    gone = {**replicas.configs[1], "postgres": {"dsn": f"postgresql://x:x@127.0.0.1:{free_port()}/x"}}
    with running_proxy(gone) as again:
        assert status(again) == 413
        assert status(again, CALL) == 200
        assert not [line for line in again.lines if line.get("event") == "request"]
