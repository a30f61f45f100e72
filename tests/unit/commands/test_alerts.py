"""`alerts list | test`."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.commands import alerts, alerts_arguments
from proxy.commands.console import Misuse
from tests.unit.background.notices import SECRET, Endpoint, endpoint
from tests.unit.commands.conftest import Operator

RULE = """INSERT INTO performance_alerts (tenant_id, name, metric, threshold, is_enabled)
    SELECT id, 'slow', 'p95_ms', 500, slug = 'acme' FROM tenants WHERE slug IN ('acme', 'globex')"""
EVENT = """INSERT INTO alert_events (id, tenant_id, name, instance, metric, comparison, threshold, value, severity,
        started_at, seen_at, resolved_at, ended)
    SELECT gen_random_uuid(), id, 'slow', 'replica-' || n, 'p95_ms', '>', 500, 700, 'high', now() - n * interval '1 h',
        now(), CASE n WHEN 2 THEN now() END, CASE n WHEN 2 THEN 'clear' END
    FROM tenants, generate_series(1, 2) AS n WHERE slug = 'acme'"""


class Here:
    """Runs `alerts ...` on a configuration."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self.capsys = config, capsys

    def configure(self, **alerts: Any) -> None:
        written = json.loads(self.config.read_text())
        self.config.write_text(json.dumps({**written, "alerts": alerts}))

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and standard output."""
        parser = argparse.ArgumentParser()
        alerts_arguments.add(parser.add_subparsers(dest="action"))
        code = alerts.run(parser.parse_args([*arguments, "-c", str(self.config)]))
        return code, self.capsys.readouterr().out

    def result(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json")[1])


@pytest.fixture
def acme(operator: Operator, capsys: pytest.CaptureFixture[str]) -> Here:
    """With a tenant's rule, which fires in one replica, and one that is off."""
    operator.run("tenants", "create", "acme")
    operator.run("tenants", "create", "globex")
    operator.rows(RULE)
    operator.rows(EVENT)
    return Here(operator.config, capsys)


@pytest.fixture
def alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    """Without a database."""
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"servers": {"a": {"url": "http://x/"}}}))
    return Here(config, capsys)


def test_rules_of_the_file_and_of_rows_are_listed(acme: Here) -> None:
    """Those of one tenant, if asked; what is off in the file is not there, a row that is off says so."""
    acme.configure(rules={"p99": {"enabled": False}, "mine": {"metric": "p50_ms", "threshold": 5, "holds_for": "90s"}})
    rules = acme.result("list")
    assert [rule["name"] for rule in rules if rule["from"] == "file"][-1] == "mine"
    assert "p99" not in [rule["name"] for rule in rules]
    assert [(rule["tenant"], rule["state"]) for rule in rules if rule["from"] == "row"] == [
        ("acme", "ok"), ("globex", "off")
    ]  # fmt: skip
    assert [(rule["tenant"], rule["threshold"]) for rule in acme.result("list", "--tenant", "acme")] == [("acme", 500)]
    lines = acme.run("list")[1].splitlines()
    assert " ".join(lines[0].split()) == "FROM TENANT NAME SERVER CONDITION FOR SEVERITY STATE LAST VALUE"
    assert any(line.split()[:7] == ["file", "system", "mine", "-", "p50_ms", ">", "5"] for line in lines)


def test_rules_are_listed_as_rows_of_settings_have_changed_them(acme: Here, operator: Operator) -> None:
    """What is in force, not what the file says."""
    for key, value in (("p99.threshold", "7"), ("loop_lag.enabled", "false"), ("nobody.threshold", "1")):
        operator.rows(
            "INSERT INTO system_configs (tenant_id, key, value) SELECT id, $1, $2::text::jsonb FROM tenants"
            " WHERE slug = 'system'", f"alerts.rules.{key}", value,
        )  # fmt: skip
    rules = {rule["name"]: rule for rule in acme.result("list", "--tenant", "system")}
    assert (rules["p99"]["threshold"], rules["p99"]["clear_threshold"]) == (7, 6.3)
    assert "loop_lag" not in rules and "error_rate" in rules
    assert [rule["name"] for rule in acme.result("list", "--tenant", "acme")] == ["slow"]


def test_what_fires_and_what_fired_is_listed_by_instance(acme: Here) -> None:
    """The newest first."""
    assert [row["instance"] for row in acme.result("list", "--firing")] == ["replica-1"]
    assert [row["ended"] for row in acme.result("list", "--past")] == [None, "clear"]
    assert len(acme.result("list", "--past", "--limit", "1")) == 1
    assert acme.result("list", "--past", "--tenant", "globex") == []
    assert acme.run("list", "--firing")[1].splitlines()[1].split()[:4] == ["acme", "slow", "-", "replica-1"]


def test_without_a_database_there_are_the_rules_of_the_file(alone: Here) -> None:
    """And nothing else."""
    assert len(alone.result("list")) == len(alone.result("list", "--tenant", "system")) == 8
    for arguments in (("list", "--tenant", "acme"), ("list", "--firing")):
        with pytest.raises(Misuse):
            alone.run(*arguments)


@contextmanager
def receiving() -> Iterator[Endpoint]:
    """A receiver in a thread of its own, as the command has a loop of its own."""
    started, stop, found = threading.Event(), asyncio.Event(), list[Endpoint]()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with endpoint() as here:
            found.append(here)
            loops.append(asyncio.get_running_loop())
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


def test_a_test_is_sent_to_every_webhook(alone: Here) -> None:
    """One that does not take it is named, with the reason, and is the exit code."""
    local = {"secret": SECRET, "allow_http": True, "allow_private_networks": "127.0.0.0/8"}
    with receiving() as here:
        alone.configure(
            webhooks={
                "good": {**local, "url": here.url},
                "gone": {**local, "url": "http://127.0.0.1:1/hidden"},
                "tls": {**local, "url": "https://127.0.0.1:1/", "ca": "/nowhere.pem"},
            }
        )
        code, out = alone.run("test", "--json")
        assert code == 1 and "hidden" not in out
        assert [(row["webhook"], row["delivered"], row["reason"]) for row in json.loads(out)] == [
            ("good", True, None), ("gone", False, "no connection (connect)"),
            ("tls", False, "its authorities cannot be read (FileNotFoundError)"),
        ]  # fmt: skip
        code, out = alone.run("test", "--webhook", "good")
        assert (code, out.splitlines()[1].split()) == (0, ["good", "taken"])
    assert [body["alert"] for body in here.bodies] == ["test", "test"]


def test_there_must_be_a_webhook(alone: Here) -> None:
    """Of that name."""
    with pytest.raises(Misuse, match="no webhooks"):
        alone.run("test")
    alone.configure(webhooks={"ops": {"url": "https://ops.example/", "secret": SECRET}})
    with pytest.raises(Misuse, match="there are: ops"):
        alone.run("test", "--webhook", "other")
