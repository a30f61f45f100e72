"""Alerts as written: which rules hold without a word, what changes them, and who may be told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.config.alerts import DEFAULTS, Alerts, before, clear_of, on_the_good_side

SECRET = "a secret of sixteen"


def alerts(**written: Any) -> Alerts:
    return Alerts.model_validate(written)


def refusal(**written: Any) -> str:
    """What is said of settings with one thing wrong."""
    with pytest.raises(ValidationError) as caught:
        alerts(**written)
    return str(caught.value)


def webhook(**written: Any) -> Alerts:
    return alerts(webhooks={"ops": {"url": "https://ops.example/hook", "secret": SECRET, **written}})


def test_without_a_word_the_usual_things_are_watched() -> None:
    """Errors, slowness, breakers, the spool at two levels, both databases, the loop."""
    metrics = [rule.metric for rule in alerts().in_force.values()]
    assert metrics == [
        "error_rate", "p99_ms", "breaker_open", "spool_share", "spool_share", "postgres_away", "redis_away",
        "loop_lag_ms",
    ]  # fmt: skip
    assert [rule.threshold for name, rule in alerts().in_force.items() if "spool" in name] == [0.5, 0.8]
    assert alerts().webhooks == {}


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_of_them_can_be_turned_off_and_changed(name: str) -> None:
    """The others stay as they are, and so does what is not named."""
    assert list(alerts(rules={name: {"enabled": False}}).in_force) == [other for other in DEFAULTS if other != name]
    changed = alerts(rules={name: {"severity": "low", "holds_for": "7s"}}).in_force
    expected = DEFAULTS[name].model_copy(update={"severity": "low", "holds_for": 7.0})
    assert changed == {**DEFAULTS, name: expected}
    assert alerts(enabled=False).in_force == {}


def test_the_clear_threshold_of_a_default_goes_with_its_threshold() -> None:
    """Else a smaller threshold would be below it."""
    [rule] = [alerts(rules={"error_rate": {"threshold": 0.01}}).in_force["error_rate"]]
    assert clear_of(rule) == pytest.approx(0.009)
    assert clear_of(alerts().in_force["error_rate"]) == 0.02


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({}, "'mine' needs 'metric' and 'threshold'"),
        ({"metric": "p50_ms"}, "needs 'metric' and 'threshold'"),
        ({"metric": "nothing", "threshold": 1}, "metric"),
        ({"metric": "p50_ms", "threshold": float("nan")}, "finite"),
        ({"metric": "p50_ms", "threshold": 5, "clear": 6}, "wrong side"),
        ({"metric": "p50_ms", "comparison": "<", "threshold": 5, "clear": 4}, "wrong side"),
        ({"metric": "p50_ms", "threshold": 5, "unheard_of": 4}, "unheard_of"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, Any], sentence: str) -> None:
    """With a sentence that says which."""
    assert sentence in refusal(rules={"mine": rule})


@given(st.sampled_from([">", ">=", "<", "<="]), st.floats(-1e9, 1e9))
def test_the_slack_is_on_the_good_side(comparison: str, threshold: float) -> None:
    """Whatever the sign."""
    assert on_the_good_side(comparison, threshold, before(comparison, threshold))


@pytest.mark.parametrize("interval", ["400ms", "2h"])
def test_looks_are_neither_frantic_nor_rare(interval: str) -> None:
    """Between half a second and an hour."""
    assert "500ms to 1h" in refusal(interval=interval)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"url": "http://ops.example/"}, "'allow_http'"),
        ({"url": "ftp://ops.example/"}, "looks like"),
        ({"url": "https://me@ops.example/"}, "looks like"),
        ({"url": "https://ops.example/#x"}, "looks like"),
        ({"url": "https://127.0.0.1/"}, "not public"),
        ({"url": "https://2130706433/"}, "not public"),
        ({"url": "https://localhost/"}, "not public"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "not public"),
        ({"url": "https://169.254.169.254/"}, "not public"),
        ({"url": "https://10.0.0.1/", "allow_private_networks": "10.1.0.0/16"}, "not public"),
        ({"secret": "short"}, "16 or more"),
        ({"headers": {"Host": "x"}}, "the proxy's"),
        ({"url": "http://ops.example/", "allow_http": True, "ca": "x.pem"}, "https://"),
    ],
)
def test_a_webhook_that_must_not_be_is_refused(written: dict[str, Any], sentence: str) -> None:
    """Its URL and secret are not in what is said."""
    said = refusal(webhooks={"ops": {"url": "https://ops.example/hook", "secret": SECRET, **written}})
    assert sentence in said
    assert SECRET not in said and "ops.example" not in said


def test_a_private_network_can_be_permitted() -> None:
    """It is the operator's to say."""
    found = webhook(url="http://10.1.2.3/x", allow_http=True, allow_private_networks="10.1.0.0/16")
    assert found.webhooks["ops"].url.get_secret_value() == "http://10.1.2.3/x"


def test_neither_url_nor_secret_shows() -> None:
    """URLs of webhooks are often secrets themselves."""
    shown = f"{webhook()!r} {webhook().model_dump_json()}"
    assert "ops.example" not in shown and SECRET not in shown
