"""A proxy that cannot start says why in one line, and leaves with code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent


def a_file(name: str, text: str = "") -> Callable[[Path], None]:
    """Something of the state directory is a file with this in it."""

    def make(state: Path) -> None:
        path = state / name
        path.touch(0o600)
        path.write_text(text)

    return make


@pytest.mark.parametrize(
    ("spoil", "postgres", "said"),
    [
        (a_file("spool"), {"dsn": "postgresql://x:y@127.0.0.1:1/z"}, "spool: File exists"),
        (a_file("audit.key", "short"), {"dsn": "postgresql://x:y@127.0.0.1:1/z"}, "audit.key does not hold a secret"),
        (
            a_file("audit.key", "no hexadecimal digits " * 3),
            {"dsn": "postgresql://x:y@127.0.0.1:1/z"},
            "64 hexadecimal",
        ),
        (a_file("postgres"), {"embedded": True}, "embedded PostgreSQL cannot use"),
    ],
    ids=["spool", "key", "digits", "embedded"],
)
def test_what_is_wrong_is_said_in_a_line(
    spoil: Callable[[Path], None], postgres: dict[str, object], said: str, tmp_path: Path
) -> None:
    """Whichever part of it was made by then; nothing else is printed."""
    (tmp_path / "state").mkdir()
    spoil(tmp_path / "state")
    config = {
        "listen": {"port": 0}, "admin": {"port": 0}, "postgres": postgres, "state_dir": str(tmp_path / "state"),
        "servers": {"a": {"url": "http://127.0.0.1:9/mcp"}},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "serve", "-c", str(tmp_path / "config.yaml")],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
