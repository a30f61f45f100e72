"""An operator who looks at the trail: with a database that holds one, and the key that its heads are signed with."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.commands import audit_arguments
from proxy.commands.console import Misuse
from proxy.config.keyfile import AUDIT_KEY
from tests.unit.audit.trails import SIGNER
from tests.unit.commands.conftest import Operator, waited
from tests.unit.store.engine import owner_dsn
from tests.unit.store.recorded import add_tenants, add_trail

#: The time of the trail.
DAY = ("--since", "2026-11-22T06:00Z", "--until", "2026-11-22T18:00Z")


class Auditor(Operator):
    """Runs commands of the group `audit`."""

    def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command, which is named without `audit`."""
        parser = argparse.ArgumentParser()
        audit_arguments.add(parser.add_subparsers(dest="action", required=True))
        try:
            given = parser.parse_args([*arguments, "-c", str(self.config)])
            code = given.command(given)
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            code = stop.code
        except Misuse as error:
            code, words = 2, f"{error}\n"
            written = self.capsys.readouterr()
            return code, written.out, written.err + words
        written = self.capsys.readouterr()
        return code, written.out, written.err

    def write_key(self) -> Path:
        """The secret key where the proxy keeps it; a file with the public one."""
        state = self.config.parent / "state"
        state.mkdir(exist_ok=True)
        secret = state / AUDIT_KEY
        secret.write_text("7a" * 32)
        secret.chmod(0o600)
        config = json.loads(self.config.read_text())
        self.config.write_text(json.dumps(config | {"state_dir": str(state)}))
        public = self.config.parent / "public.pem"
        public.write_text(SIGNER.public.pem())
        return public

    def change(self, statement: str, *values: object) -> None:
        """Do what nobody should, as a superuser."""
        self.rows(statement, *values)

    def export(self, *arguments: str) -> Path:
        """A new export of whole segments."""
        path = self.config.parent / "export.jsonl"
        code, out, err = self.run("export", *DAY, "--whole", "--output", str(path), *arguments)
        assert (code, out) == (0, ""), err
        return path

    def verified(self, *arguments: str) -> dict[str, Any]:
        """What 'verify' printed for programs; its code says the same."""
        code, out, err = self.run("verify", *arguments, "--json")
        report: dict[str, Any] = json.loads(out)
        assert code == (0 if report["complete"] else 1), err
        return report


@pytest.fixture
def auditor(operator: Operator) -> Iterator[Auditor]:
    """With a trail of forty rows of two tenants."""
    made = Auditor(operator.config, operator.database, operator.capsys, operator.monkeypatch)
    waited(lambda: add_tenants(owner_dsn(made.database)))

    async def fill() -> None:
        await add_trail(owner_dsn(made.database))

    waited(fill)
    made.write_key()
    yield made
