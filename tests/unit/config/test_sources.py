"""Every value of a configuration is shown with its source, and no secret with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import load
from proxy.config.alerts import DEFAULTS
from proxy.config.overrides import Outcome, Override, overridden
from proxy.config.schema import keys
from proxy.config.sources import SET, Origin, origins

TEXT = """\
servers:
  a: {url: "http://h/x?token=topsecret", headers: {X: "Bearer ${TOKEN}", Y: file:secret, Z: topsecret}}
  b:
    url: ${URL:-http://b/}
    timeouts:
      connect: 300ms
log: {level: "${LEVEL}"}
limits: default
sessions: {keys: [file:secret, "topsecret-topsecret", "${TOKEN}${TOKEN}"]}
auth: {anonymous: true, peppers: {1: file:secret}}
listen:
  allowed_hosts: x.example
  trusted_proxies: [10.0.0.0/8]
routes:
- {name: r, path: /r, servers: [a, {name: b, weight: 3}], when: {header: {x-y: q}}}
alerts:
  rules:
    p99: {threshold: 3000}
"""
ENV = {"TOKEN": "topsecret-from-env", "LEVEL": "warning"}


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    (tmp_path / "secret").write_text("topsecret-in-a-file\n")
    (tmp_path / "c.yaml").write_text(TEXT)
    config = load(tmp_path / "c.yaml", ENV)
    return overridden(config, [Override("listen.timeouts.head", "5s"), Override("log.access", False)])


def shown(outcome: Outcome) -> dict[str, Origin]:
    return {each.key: each for each in origins(outcome, TEXT, "c.yaml", ENV)}


def test_a_value_is_shown_as_it_is_written_with_its_line(outcome: Outcome) -> None:
    """That of the key, in every shape; a default as it would be written, without a line."""
    found = {key: (each.text, each.source) for key, each in shown(outcome).items()}
    assert found["servers.b.timeouts.connect"] == ("300ms", "c.yaml:6")
    assert found["servers.b.timeouts.first_byte"] == ("15m", "default")
    assert found["servers.b.url"] == ("http://b/", "c.yaml:4")
    assert found["listen.allowed_hosts"] == ("x.example", "c.yaml:12")
    assert found["listen.trusted_proxies"] == ('["10.0.0.0/8"]', "c.yaml:13")
    assert found["listen.limits.body"] == ("4MiB", "default")
    assert found["routes[0].servers[0].name"] == ("a", "c.yaml:15")
    assert found["routes[0].servers[1].weight"] == ("3", "c.yaml:15")
    assert found["routes[0].when.header.x-y"] == ("q", "c.yaml:15")
    assert found["limits.streams.per_tenant"] == ("1000", "c.yaml:8")
    assert found["postgres"] == ("null", "default")
    assert found["auth.roles.viewer"] == ('["proxy","read"]', "default")
    assert found["sessions.ttl"] == ("7d", "default")


def test_a_rule_of_alerts_shows_what_it_has_from_the_one_it_changes(outcome: Outcome) -> None:
    """As it is in force: what the file does not say of it is the rule's that is there anyway."""
    found = {key: (each.text, each.source) for key, each in shown(outcome).items()}
    assert found["alerts.rules.p99.threshold"] == ("3000", "c.yaml:18")
    assert found["alerts.rules.p99.metric"] == ("p99_ms", "default")
    assert found["alerts.rules.p99.holds_for"] == (f"{DEFAULTS['p99'].holds_for / 60:.0f}m", "default")


def test_of_what_may_be_secret_only_its_place_is_shown(outcome: Outcome) -> None:
    """A variable is hidden wherever it stands, a query is cut off."""
    found = {key: (each.value, each.source) for key, each in shown(outcome).items()}
    assert found["servers.a.headers.X"] == (SET, "environment TOKEN, c.yaml:2")
    assert found["servers.a.headers.Y"] == (SET, "file secret, c.yaml:2")
    assert found["servers.a.headers.Z"] == (SET, "c.yaml:2")
    assert found["servers.a.url"] == ("http://h/x?...", "c.yaml:2")
    assert found["log.level"] == (SET, "environment LEVEL, c.yaml:7")
    assert found["sessions.keys"] == (SET, "environment TOKEN, c.yaml:9")
    assert found["auth.peppers.1"] == (SET, "file secret, c.yaml:10")
    assert "topsecret" not in "".join(each.text + each.source for each in shown(outcome).values())


def test_what_an_override_sets_says_so(outcome: Outcome) -> None:
    """And what the file has at that place."""
    found = shown(outcome)
    head, access = found["listen.timeouts.head"], found["log.access"]
    assert (head.text, head.source, head.override) == ("5s", "default", Override("listen.timeouts.head", "5s"))
    assert (access.text, access.source, access.override) == ("false", "default", Override("log.access", False))
    assert sum(each.override is not None for each in found.values()) == 2


def test_every_key_of_the_models_is_there(outcome: Outcome) -> None:
    """Once; a group that is absent stands for its keys."""
    found = [each.key for each in origins(outcome, TEXT, "c.yaml", ENV)]
    assert len(found) == len(set(found))
    begun = {*found, *(key[:end] for key in found for end in range(len(key)) if key[end] == ".")}
    plain = [key.path for key in keys() if not key.group and "[]" not in key.path and "NAME" not in key.path]
    missing = [key for key in plain if key not in begun and not key.startswith(tuple(f"{name}." for name in found))]
    assert missing == []
