"""The options of the commands, and that asking for help costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GROUPS = (
    "keys",
    "tenants",
    "servers",
    "bans",
    "breakers",
    "maintenance",
    "migrate",
    "audit",
    "spool",
    "retention",
    "alerts",
    "config",
)


@pytest.mark.parametrize("group", GROUPS)
def test_help_names_every_action_and_loads_no_library(group: str) -> None:
    """Neither pydantic nor asyncpg nor yaml."""
    program = (
        "import sys\nfrom proxy import cli\ntry:\n    cli.main([sys.argv[1], '--help'])\nexcept SystemExit as stop:\n"
        "    assert not stop.code\nprint(sorted({'pydantic', 'asyncpg', 'yaml', 'orjson'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, group], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    actions = {
        "keys": ["create", "list", "revoke", "rotate", "import-legacy"],
        "tenants": ["create", "list", "suspend", "activate"],
        "servers": ["add", "list", "disable", "enable", "import"],
        "bans": ["add", "list", "remove"],
        "breakers": ["list", "open", "close", "release"],
        "maintenance": ["start", "stop", "list"],
        "migrate": ["up", "down", "status"],
        "audit": ["search", "export", "verify", "key"],
        "spool": ["status", "replay", "quarantine"],
        "retention": ["list", "set", "unset", "run"],
        "alerts": ["list", "test"],
        "config": ["show", "set", "unset"],
    }
    assert all(f"\n    {action}" in done.stdout for action in actions[group])


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_needs_an_action(group: str) -> None:
    """A usage line and code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", group], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage:")
