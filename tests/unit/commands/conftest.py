"""An operator with a configuration and a real database, who runs commands in this process."""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from proxy import cli
from tests.unit.store.engine import aside, execute, login_dsn, migrated_template, owner_dsn

_NUMBERS: Final = itertools.count(1)


@dataclass
class Operator:
    """Runs commands on one database."""

    config: Path
    database: str
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command."""
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            code = cli.main([*arguments, "-c", str(self.config)])
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            code = stop.code
        written = self.capsys.readouterr()
        return code, written.out, written.err

    def result(self, *arguments: str, stdin: str = "") -> Any:
        """What a command that went well printed for programs."""
        code, out, err = self.run(*arguments, "--json", stdin=stdin)
        assert code == 0, err
        return json.loads(out)

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """What a command that cannot be done said; it did not print anything else."""
        code, out, err = self.run(*arguments, stdin=stdin)
        assert (code, out) == (2, ""), (out, err)
        assert "Traceback" not in err
        return err

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What a superuser reads."""
        found: list[dict[str, Any]] = []
        waited(lambda: _into(found, owner_dsn(self.database), query, *values))
        return found


async def _into(found: list[dict[str, Any]], dsn: str, query: str, *values: object) -> None:
    found.extend(dict(row) for row in await execute(dsn, query, *values))


def waited(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end."""
    aside(make)


async def _copy(name: str) -> None:
    await execute(owner_dsn("postgres"), f"CREATE DATABASE {name} TEMPLATE {await migrated_template()}")


async def _drop(name: str) -> None:
    await execute(owner_dsn("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """With a new database that has every table and no tenant but the system's."""
    name = f"commands_{next(_NUMBERS)}"
    waited(lambda: _copy(name))
    config = tmp_path / "config.yaml"
    config.write_text(
        json.dumps(
            {
                "servers": {"a": {"url": "http://x/"}},
                "postgres": {"dsn": login_dsn(name), "owner_dsn": owner_dsn(name)},
                "auth": {"peppers": {1: "a pepper of the tests"}},
            }
        )
    )
    monkeypatch.delenv("DATABASE_URL", raising=False)
    yield Operator(config, name, capsys, monkeypatch)
    waited(lambda: _drop(name))
