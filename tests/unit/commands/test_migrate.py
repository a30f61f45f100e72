"""`migrate` of the configured database; that of $DATABASE_URL is in the tests of the command line."""

from __future__ import annotations

import pytest

from tests.unit.commands.conftest import Operator
from tests.unit.store.engine import owner_dsn


def test_the_configured_database_is_migrated_by_its_owner(operator: Operator) -> None:
    """The proxy's own login could not."""
    lines = operator.run("migrate", "status")[1].splitlines()
    assert len(lines) > 10 and all(line.startswith("applied  20") for line in lines)
    assert operator.run("migrate", "down")[1] == f"took back {lines[-1].split()[1]}\n"
    assert operator.run("migrate", "up") == (0, f"applied {lines[-1].split()[1]}\n", "")


def test_the_environment_comes_first(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration is read then."""
    monkeypatch.setenv("DATABASE_URL", owner_dsn(operator.database))
    operator.config.unlink()
    assert operator.run("migrate", "up") == (0, "up to date\n", "")


def test_without_either_it_is_misuse(operator: Operator) -> None:
    """One line."""
    operator.config.unlink()
    assert operator.refused("migrate", "up").count("\n") == 1
