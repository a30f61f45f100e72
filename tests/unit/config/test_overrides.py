"""Settings from elsewhere mean what they would mean in the file, and nothing else changes with them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.fields import Model
from proxy.config.loader import load
from proxy.config.models import Config, restart_keys
from proxy.config.overrides import SETTINGS, Override, overridden
from proxy.config.schema import Key, keys

SERVERS = {"a": {"url": "http://a.example/mcp", "timeouts": {"connect": "300ms"}}}
KEYS: dict[str, Key] = {key.path: key for key in keys()}
#: A value for each setting that is not its default.
OTHERS: dict[str, Any] = {
    "log.level": "error", "log.access": False,
    "listen.limits.connections": 7, "listen.limits.header_line": "4KiB", "listen.limits.headers": "32KiB",
    "listen.limits.header_count": 50, "listen.limits.body": "1MiB",
    "listen.timeouts.head": "300ms", "listen.timeouts.body": "7s", "listen.timeouts.body_total": "7m",
    "listen.timeouts.keepalive": "1.5s", "listen.timeouts.stalled_reader": "7s",
    "listen.drain.delay": 0.0, "listen.drain.grace": "7s",
    "retry_budget.percent": 12.5, "retry_budget.minimum": 0,
    "overload.loop_lag": "70ms", "overload.lag_for": "7s", "overload.memory": "1GiB",
    "limits.streams.per_principal": 0, "limits.streams.per_tenant": 7,
    "limits.blocking.enabled": False, "limits.blocking.threshold": 7.5, "limits.blocking.half_life": "7s",
    "limits.blocking.first_block": "7s", "limits.blocking.longest_block": "7h",
    **{f"limits.blocking.weights.{name}": 0.25 for name in
       ("bad_key", "unknown_route", "session_guess", "header_mismatch", "parse_error", "flood")},
    "record.audit": "strict", "record.arguments": "hashed", "record.results": "sanitised",
    "record.max_content": "1KiB",
    **{f"record.risk.{name}": "critical" for name in
       ("destructive", "open_world", "unhinted", "admin", "denied", "off_hours")},
    "record.risk.combine": False, "record.risk.volume.level": "low", "record.risk.volume.window": "7s",
    "record.risk.volume.factor": 2.5, "record.risk.volume.minimum": 7, "record.risk.volume.learn": 7,
    "alerts.enabled": False, "alerts.interval": "700ms",
    "alerts.rules.p99.enabled": False, "alerts.rules.p99.threshold": 70_000.5, "alerts.rules.p99.clear": 7,
    "alerts.rules.p99.window": "7s", "alerts.rules.p99.min_requests": 7, "alerts.rules.p99.holds_for": "700ms",
    "alerts.rules.p99.keep_firing_for": 0, "alerts.rules.p99.cooldown": "7h", "alerts.rules.p99.severity": "low",
}  # fmt: skip
#: What a file may say of everything that settings stand beside.
FULL: dict[str, Any] = {
    "listen": {
        "port": 1, "public_url": "https://x.example/p", "allowed_hosts": "x.example",
        "trusted_proxies": ["10.0.0.0/8", "::1"], "tls": {"certificate": "/c.pem", "key": "/k.pem"},
        "timeouts": {"head": "1ms", "body": "0.001ms", "keepalive": "3650d"}, "limits": {"body": 5000},
        "drain": {"delay": 0, "grace": "33.333s"},
    },
    "log": {"format": "console"},
    "limits": {
        "preset": "none",
        "rules": [
            {"name": "x", "level": "tenant", "rate": "5/s", "window": {"requests": 9, "per": "90s"},
             "cost": {"methods": {"tools/call": 2}, "tools": {"a/b": 3.5}}},
            {"name": "y", "level": "client_address", "subject": "10.0.0.0/8", "rate": "5/h", "enforce": False},
        ],
        "blocking": {"allow": ["10.0.0.0/8"], "first_block": "90s", "weights": {"flood": 7}},
    },
    "retry_budget": {"percent": 1}, "overload": {"loop_lag": "0.123ms", "memory": "555MiB"},
    "record": {
        "audit": "usage", "tenants": {"x": "strict"},
        "risk": {
            "rules": [{"name": "mine", "level": "low", "methods": ["tools/*"]}], "volume": {"window": "90s"},
            "denials": {"blocked": "low"}, "hours": ["Mon-Fri 07:00-19:00 Europe/Berlin"],
        },
    },
    "alerts": {
        "rules": {"mine": {"metric": "p50_ms", "threshold": 5.5, "holds_for": "90s"}, "p99": {"holds_for": "3s"}},
        "webhooks": {"w": {"url": "https://192.0.2.1/", "secret": "s" * 20, "timeout": "2s",
                           "allow_private_networks": ["192.0.2.0/24"], "headers": {"X": "y"}}},
    },
}  # fmt: skip


def configuration(**given: Any) -> Config:
    return Config.model_validate({"servers": SERVERS, **given})


def filed(key: str, value: object, **given: Any) -> Config:
    """With the value in the file, beside what else is there."""
    place = whole = {name: _copied(group) for name, group in given.items()}
    *groups, last = key.split(".")
    for name in groups:
        place = place.setdefault(name, {})
    place[last] = value
    return configuration(**whole)


def _copied(group: Any) -> Any:
    return {name: _copied(value) for name, value in group.items()} if isinstance(group, dict) else group


def refusal(config: Config, key: str, value: object, tenant: str = "") -> str:
    """Why a value is left out; it changes nothing."""
    outcome = overridden(config, [Override(key, value, tenant)])
    assert outcome.config is config
    assert outcome.accepted == ()
    [problem] = outcome.problems
    return problem.partition(": left out: ")[2]


def test_every_setting_is_a_key_that_a_reload_applies() -> None:
    """Of the models; none is a group, a secret, a file, or needs a restart. Each has a value in this test."""
    declared = {key.replace("*", "NAME") for key in SETTINGS}
    assert declared <= {path for path, key in KEYS.items() if not key.group}
    assert {setting.by_tenant for setting in SETTINGS.values()} - {""} <= set(KEYS)
    assert {key.replace(".p99.", ".*.") for key in OTHERS} == set(SETTINGS)
    before = configuration(limits={})
    after = overridden(before, [Override(key, value) for key, value in OTHERS.items()])
    assert (after.problems, len(after.accepted)) == ((), len(OTHERS))
    assert restart_keys(before, after.config) == []
    assert [key for key in SETTINGS if {"SecretStr", "_from_base"} & set(re.findall(r"\w+", kind_of(key)))] == []
    assert "SecretStr" in kind_of("auth.session_secret") and "_from_base" in kind_of("alerts.webhooks.*.ca")


def kind_of(key: str) -> str:
    """The type of a key in the models, with all that it is made of."""
    kind: Any = Config
    text = ""
    for name in key.split("."):
        if name != "*":
            field = kind.model_fields[name]
            text, kind = f"{field.annotation} {field.metadata}", _group_in(field.annotation)
    return text


def _group_in(annotation: Any) -> Any:
    """The group of keys that a type stands for, if any."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next(filter(None, map(_group_in, get_args(annotation))), None)


@pytest.mark.parametrize("given", [{"limits": {}}, FULL], ids=["little", "much"])
@pytest.mark.parametrize("key", sorted(OTHERS))
def test_a_value_means_what_it_means_in_the_file(key: str, given: dict[str, Any]) -> None:
    """The whole configuration is as if it stood there; all else is the very same as before."""
    before = configuration(**given)
    after = overridden(before, [Override(key, OTHERS[key])])
    assert after.problems == ()
    assert after.config == filed(key, OTHERS[key], **given)
    assert all(
        getattr(after.config, name) is getattr(before, name)
        for name in Config.model_fields
        if name != key.partition(".")[0]
    )


def test_the_files_of_a_configuration_stay_watched(tmp_path: Any) -> None:
    """The watch asks the configuration in force."""
    (tmp_path / "secret").write_text("topsecret")
    (tmp_path / "c.yaml").write_text("servers: {a: {url: 'http://x/', headers: {X: 'file:secret'}}}")
    before = load(tmp_path / "c.yaml", {})
    after = overridden(before, [Override("log.level", "error")]).config
    assert after is not before
    assert after.files == before.files == (str(tmp_path / "secret"),)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("log.level", "loud", "expected 'debug', 'info', 'warning' or 'error'"),
        ("log.access", "perhaps", "expected true or false"),
        ("listen.limits.body", "1B", "must be 1KiB or more"),
        ("listen.limits.body", -1, "a size is a whole number of bytes, or with a unit: 64KiB, 4MiB, 1GiB"),
        ("listen.limits.header_count", 8.5, "expected a whole number"),
        ("listen.timeouts.head", 5, "a duration is a number and a unit, such as 200ms, 5s, 15m, 1h or 7d (or 0)"),
        ("listen.timeouts.head", 0, "must be longer than 0"),
        ("listen.timeouts.head", None, "has no value; give it one or remove the key"),
        ("limits.blocking.first_block", "2d", "'first_block' is longer than 'longest_block'"),
        ("listen.host", "0.0.0.0", "no setting of this name can be changed at run time"),
        ("auth.anonymous", True, "no setting of this name can be changed at run time"),
        ("log.levels", "info", "no setting of this name can be changed at run time; did you mean 'log.level'?"),
        ("log", {"level": "info"}, "no setting of this name can be changed at run time"),
        ("", 1, "no setting of this name can be changed at run time"),
        ("record.audit", "none", "'none' can be said by the configuration file alone"),
        ("record.audit", "loud", "expected 'none', 'usage', 'standard' or 'strict'"),
        ("record.spool.max_size", "1GiB", "no setting of this name can be changed at run time"),
        ("record.tenants.acme", "strict", "no setting of this name can be changed at run time"),
        ("alerts.webhooks.w.url", "https://x.example", "no setting of this name can be changed at run time"),
        ("alerts.rules.p99.metric", "p50_ms", "no setting of this name can be changed at run time"),
        ("alerts.rules.new.threshold", 5, "rule 'new' needs 'metric' and 'threshold'"),
        ("alerts.rules.p99.threshold", "NaN", "expected a number"),
    ],
)
def test_a_value_that_the_file_could_not_have_is_left_out(key: str, value: object, why: str) -> None:
    """With the sentence of the file, which never shows the value."""
    assert refusal(configuration(limits={}), key, value).startswith(why)


def test_limits_that_are_off_are_not_turned_on_by_a_setting_in_them() -> None:
    """The preset's rules would be in force all of a sudden."""
    assert refusal(configuration(), "limits.streams.per_tenant", 5) == "the configuration file has no 'limits'"


def test_what_is_everybodys_is_not_set_by_a_tenant() -> None:
    """Whoever it is."""
    why = refusal(configuration(), "log.level", "error", "acme")
    assert why == "this setting is everybody's; only a row of the system tenant sets it"


def test_what_only_the_file_may_say_it_can_say() -> None:
    """The guard is about a value that there is."""
    guarded = {key: setting.not_by_row for key, setting in SETTINGS.items() if setting.not_by_row}
    assert set(guarded) == {"record.audit"}
    assert all(filed(key, value) for key, value in guarded.items())


def test_a_tenant_has_a_grade_of_its_own() -> None:
    """Beside those of the file, over them where both name it; one that cannot be costs no other."""
    before = configuration(record={"tenants": {"acme": "usage", "x": "usage"}})
    values = {"acme": "strict", "globex": "standard", "hooli": "loud", "initech": "none"}
    outcome = overridden(before, [Override("record.audit", value, slug) for slug, value in values.items()])
    assert outcome.config.record.tenants == {"acme": "strict", "x": "usage", "globex": "standard"}
    assert outcome.config.record.audit == before.record.audit
    assert [(each.tenant, each.value) for each in outcome.accepted] == [("acme", "strict"), ("globex", "standard")]
    assert outcome.problems == (
        "tenant initech, setting record.audit: left out: 'none' can be said by the configuration file alone",
        "tenant hooli, setting record.audit: left out: expected 'none', 'usage', 'standard' or 'strict'",
    )


def test_ten_thousand_rows_are_looked_through_in_a_moment() -> None:
    """Of as many tenants, or of names that nobody uses."""
    tenants = [Override("record.audit", "strict", f"t{number}") for number in range(10_000)]
    names = [Override(f"alerts.rules.x{number:04}.threshold", number) for number in range(10_000)]
    names.append(Override("log.level", "error"))
    began = time.process_time()
    outcome = overridden(configuration(), [*tenants, *names])
    assert len(outcome.config.record.tenants) == 10_000
    assert time.process_time() - began < 5
    assert outcome.problems[0] == "setting alerts.rules.x0499.threshold: left out: more than 500 rows are for everyone"
    assert outcome.config.log.level == "error"


def test_values_that_only_fit_together_are_taken_together() -> None:
    """In whatever order their keys are; the one that nothing helps is left out alone."""
    blocks = [Override("limits.blocking.first_block", "3d"), Override("limits.blocking.longest_block", "4d")]
    wrong = Override("limits.blocking.threshold", 0)
    outcome = overridden(configuration(limits={}), [*blocks, wrong])
    blocking = outcome.config.limits.blocking if outcome.config.limits is not None else None
    assert blocking is not None
    assert (blocking.first_block, blocking.longest_block, blocking.threshold) == (3 * 86400.0, 4 * 86400.0, 100.0)
    assert outcome.problems == ("setting limits.blocking.threshold: left out: must be 1 or more",)


def test_hostile_names_are_not_shown_as_they_are() -> None:
    """Quoted and cut; and of very many, most are only counted."""
    [problem] = overridden(configuration(), [Override("\x1b[2J" + "x" * 100_000, 1)]).problems
    assert problem.isprintable()
    assert len(problem) < 200
    many = overridden(configuration(), (Override(f"k{number}", 1) for number in range(5000)))
    assert len(many.problems) == 1001
    assert many.problems[-1] == "and 4000 more settings: left out"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(
            Override,
            st.sampled_from(sorted(SETTINGS)) | st.text(max_size=20),
            JSON | st.sampled_from(sorted(map(str, OTHERS.values()))),
            st.sampled_from(["", "", "", "acme", "x", "UPPER", "\0"]),
        ),
        max_size=8,
        unique_by=lambda each: (each.tenant, each.key),
    ),
    st.randoms(use_true_random=False),
)
def test_no_row_breaks_a_configuration(overrides: list[Override], random: Any) -> None:
    """Each is taken or told of; in another order the same comes of it; what came of it is left as it is."""
    before = configuration(**FULL)
    outcome = overridden(before, overrides)
    assert len(outcome.accepted) + len(outcome.problems) == len(overrides)
    assert restart_keys(before, outcome.config) == []
    random.shuffle(overrides)
    again = overridden(before, overrides)
    assert (again.config, again.problems) == (outcome.config, outcome.problems)
    assert overridden(outcome.config, outcome.accepted).config == outcome.config


def test_the_manual_names_every_setting() -> None:
    """In the first column of its table, and no other."""
    manual = (Path(__file__).parents[3] / "docs" / "runtime-configuration.md").read_text()
    rows = [line.split("|")[1] for line in manual.splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`([a-z_0-9.*]+\.[a-z_0-9.*]+)`", row)}
    assert named == set(SETTINGS)
