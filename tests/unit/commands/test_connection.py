"""Which database a command works on, and what it says when there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.commands.connection import carried_out
from proxy.commands.console import Misuse
from proxy.config import load
from proxy.store.database import Unavailable
from tests.unit.commands.conftest import Operator, waited
from tests.unit.store.engine import execute, login_dsn, owner_dsn


def rewrite(operator: Operator, postgres: dict[str, Any] | None, **more: object) -> None:
    """Another configuration."""
    config: dict[str, Any] = {"servers": {"a": {"url": "http://x/"}}, **more}
    operator.config.write_text(json.dumps(config if postgres is None else {**config, "postgres": postgres}))


def test_without_a_database_there_is_nowhere_to_keep_anything(operator: Operator) -> None:
    """The sentence names the section."""
    rewrite(operator, None)
    for command in (("tenants", "list"), ("keys", "create", "--tenant", "a", "--name", "b"), ("migrate", "up")):
        assert "no 'postgres'" in operator.refused(*command)
    assert not (operator.config.parent / ".mcp-manager").exists()


def test_a_database_that_cannot_be_used_is_a_sentence_with_the_reason(operator: Operator) -> None:
    """It names the key of the configuration, and nothing of what stands there."""
    login = login_dsn(operator.database)
    for dsn, reason in (
        ("postgresql://u:planted@127.0.0.1:1/x", "127.0.0.1"),
        (login.replace("mcp_manager:", "mcp_manager:planted"), "password authentication failed"),
        (login.replace(f"/{operator.database}?", "/nowhere?"), "does not exist"),
    ):
        rewrite(operator, {"dsn": dsn})
        said = operator.refused("tenants", "list")
        assert said.startswith("PostgreSQL cannot be used: ") and said.endswith(" (postgres.dsn)\n")
        assert reason in said and "planted" not in said


def test_a_database_that_fails_for_a_moment_is_told_of_without_a_reason(operator: Operator) -> None:
    """It can be reached when we look for one."""

    async def failed() -> None:
        raise Unavailable("the connection was lost")

    rewrite(operator, {"dsn": login_dsn(operator.database)})
    for config in (load(operator.config, {}), None):
        with pytest.raises(Misuse, match=r"^the connection was lost; 'mcp-manager migrate status' may say why$"):
            carried_out(failed(), config)


def test_a_database_without_tables_says_what_to_do(operator: Operator) -> None:
    """Nothing is migrated that was not asked for."""
    waited(lambda: made("commands_bare"))
    try:
        rewrite(operator, {"dsn": owner_dsn("commands_bare")})
        assert "migrate up" in operator.refused("tenants", "list")
        assert "migrate up" in operator.refused("tenants", "create", "acme")
    finally:
        waited(lambda: dropped("commands_bare"))


async def made(name: str) -> None:
    """An empty database."""
    await execute(owner_dsn("postgres"), f"CREATE DATABASE {name}")


async def dropped(name: str) -> None:
    """It is gone."""
    await execute(owner_dsn("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


def test_a_bad_configuration_is_told_as_everywhere(operator: Operator) -> None:
    """With the file and the line."""
    operator.config.write_text("servers: {a: {url: 'http://x/'}}\nnonsense: 1\n")
    assert f"{operator.config}:2: nonsense: unknown key" in operator.refused("keys", "list")


def test_the_embedded_server_cannot_be_used_by_everyone(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its wheel, or where no directory can be made."""
    rewrite(operator, {"embedded": True}, state_dir="/proc/nowhere")
    assert "/proc/nowhere" in operator.refused("tenants", "list")
    assert "/proc/nowhere" in operator.refused("migrate", "status")
    monkeypatch.setattr("proxy.store.embedded.EmbeddedPostgres.wheel", "no_such_wheel")
    rewrite(operator, {"embedded": True}, state_dir=str(tmp_path / "state"))
    assert "pip install" in operator.refused("tenants", "list")
