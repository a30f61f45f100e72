"""Limits as written: what is taken, what is refused, and with which sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.config import Config, ConfigError, parse
from proxy.config.limits import Blocking, LimitRule, Rate, RateLimits
from proxy.config.schema import schema
from proxy.identity.patterns import is_pattern
from proxy.limits import scores


def config(limits: Any) -> Config:
    """A configuration with these limits."""
    document = {"servers": {"a": {"url": "http://127.0.0.1:9/"}}, "limits": limits}
    return parse(yaml.safe_dump(document, sort_keys=False), "c.yaml", {}, Path())


def limits_of(written: Any) -> RateLimits:
    """The limits, which are there."""
    found = config(written).limits
    assert found is not None
    return found


def rule(**keys: Any) -> LimitRule:
    """A rule of a group with no others."""
    return limits_of({"preset": "none", "rules": [{"name": "r", "level": "key", "rate": "10/s", **keys}]}).rules[0]


def refusal(**keys: Any) -> str:
    """What is said of a rule with something wrong."""
    with pytest.raises(ConfigError) as caught:
        rule(**keys)
    return str(caught.value).split(": ", 1)[1]


def test_without_limits_there_are_none() -> None:
    """Nothing is limited that nobody asked for."""
    assert parse("servers: {a: {url: 'http://127.0.0.1:9/'}}", "c.yaml", {}, Path()).limits is None


@pytest.mark.parametrize("written", ["default", {}, {"preset": "default"}])
def test_the_preset_is_a_word_or_a_group(written: Any) -> None:
    """5000 a minute for all; per minute 1000 for admins, 100 for users, 20 for the anonymous."""
    found = [
        (r.name, r.level, r.subject, round(r.rate.per_s * 60, 9), r.capacity) for r in limits_of(written).all_rules()
    ]
    assert found == [
        ("global", "global", None, 5000, 5000),
        ("tier-admin", "tier", "admin", 1000, 1000),
        ("tier-user", "tier", "user", 100, 100),
        ("tier-anonymous", "tier", "anonymous", 20, 20),
    ]


def test_a_rule_replaces_that_of_the_preset_with_its_name() -> None:
    """The others stay, and further ones come behind them."""
    rules = [
        {"name": "global", "level": "global", "rate": "9/s"},
        {"name": "extra", "level": "server", "rate": "1/s"},
    ]
    found = limits_of({"rules": rules}).all_rules()
    assert [r.name for r in found] == ["tier-admin", "tier-user", "tier-anonymous", "global", "extra"]
    assert found[3].rate == Rate(9.0, 1.0)
    assert limits_of({"preset": "none", "rules": rules[1:]}).all_rules() == found[4:]
    assert limits_of("none").all_rules() == ()


@pytest.mark.parametrize(
    ("written", "per_s", "capacity"),
    [
        ("5/s", 5, 5),
        ("100/min", 100 / 60, 100),
        ("1000/h", 1000 / 3600, 1000),
        ("0.5/s", 0.5, 1),
        ("86400/d", 1, 86400),
    ],
)
def test_a_rate_is_a_number_and_a_unit(written: str, per_s: float, capacity: float) -> None:
    """The burst is as many as the rate says, where none is given."""
    found = rule(rate=written)
    assert found.rate.per_s == pytest.approx(per_s)
    assert found.capacity == capacity
    assert rule(rate=written, burst=7).capacity == 7


@pytest.mark.parametrize(
    "rate",
    ["0", 0, -1, "-1/s", "1e999", 1e999, "1e3/s", "10/0s", "10/2s", "10 / s", "10/", "nan/s", "9" * 10 + "/s", None],
)
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    """At load, before anything listens."""
    assert refusal(rate=rate).startswith("limits.rules[0].rate: ")


@pytest.mark.parametrize("rate", ["0/s", "0.000/min", "1000001/s", "999999999/s"])
def test_a_rate_has_bounds(rate: str) -> None:
    """Nothing at all is no limit; what no machine can do is none either."""
    assert refusal(rate=rate) == "limits.rules[0].rate: a rate is more than 0, and at most 1,000,000 per second"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"burst": 0}, "limits.rules[0].burst: must be 1 or more"),
        ({"burst": -5}, "limits.rules[0].burst: must be 1 or more"),
        ({"burst": 1.5}, "limits.rules[0].burst: expected a whole number"),
        ({"level": "all"}, "limits.rules[0].level: expected 'global', 'tenant', 'tier', 'key', 'server', 'tool' or "
                           "'client_address'"),
        ({"name": "No Name"}, "limits.rules[0].name: a name has 1 to 63 lower-case letters, digits, '-', '_' or '.', "
                              "with a letter or digit at both ends"),
        ({"window": {"requests": 0, "per": "1s"}}, "limits.rules[0].window.requests: must be 1 or more"),
        ({"window": {"requests": 10, "per": "0"}}, "limits.rules[0].window.per: must be longer than 0"),
        ({"window": {"requests": 10, "per": "400d"}}, "limits.rules[0].window: a window is at most a year long"),
        ({"cost": {"default": -1}}, "limits.rules[0].cost.default: must be 0 or more"),
        ({"cost": {"default": float("inf")}}, "limits.rules[0].cost.default: expected a number"),
        ({"cost": {"default": 0}}, "limits.rules[0]: nothing has a cost, so nothing would be limited"),
        ({"cost": {"tools": {"a/b": 11}}}, "limits.rules[0]: the highest cost is more than the 'burst': such a request "
                                           "could never pass"),
        ({"cost": {"default": 6}, "window": {"requests": 5, "per": "1s"}},
         "limits.rules[0]: the highest cost is more than the window's 'requests': such a request could never pass"),
        ({"rate": "0.001/d", "burst": 10}, "limits.rules[0]: at this 'rate' the bucket takes more than a year to fill"),
        ({"level": "global", "subject": "x"}, "limits.rules[0]: a global rule has no 'subject': it concerns everyone"),
        ({"level": "client_address", "subject": "10.0.0.0/33"},
         "limits.rules[0]: the 'subject' of this level is an address or network: 10.1.2.3, 10.0.0.0/8, 2001:db8::/32"),
        ({"level": "tool", "subject": "search"},
         "limits.rules[0]: the 'subject' of this level is written server/tool, perhaps with a '*' at its end"),
        ({"enforce": "perhaps"}, "limits.rules[0].enforce: expected true or false"),
        ({"on_store_error": "panic"}, "limits.rules[0].on_store_error: expected 'local', 'deny' or 'allow'"),
        ({"brust": 5}, "limits.rules[0].brust: unknown key; did you mean 'burst'?"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_sentence(keys: dict[str, Any], sentence: str) -> None:
    """With the key it stands under."""
    assert refusal(**keys) == sentence


@pytest.mark.parametrize("written", ["defualt", 5, ["default"]])
def test_limits_are_a_known_word_or_a_group(written: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError, match="limits: "):
        config(written)


def test_names_are_unique() -> None:
    """Rules are replaced and reported by name."""
    one = {"name": "r", "level": "key", "rate": "1/s"}
    with pytest.raises(ConfigError, match="limits: two rules have one name"):
        config({"rules": [one, {**one}]})


@given(st.one_of(st.text("ab*%./\\ \n", max_size=6), st.text(max_size=6), st.just("x" * 512), st.just("x" * 513)))
def test_subjects_have_the_grammar_of_names_in_keys(text: str) -> None:
    """What a key could name, a rule can."""
    try:
        LimitRule(name="r", level="server", rate=Rate(1, 1), subject=text)
        taken = True
    except ValueError:
        taken = False
    assert taken == is_pattern(text)


def test_there_is_a_weight_for_each_kind_of_violation() -> None:
    """Under its own name; blocks begin short and have an end."""
    blocking = Blocking()
    assert tuple(blocking.weights.model_dump()) == scores.KINDS
    assert 0 < blocking.first_block < blocking.longest_block
    with pytest.raises(ConfigError, match=r"limits\.blocking: 'first_block' is longer than 'longest_block'"):
        config({"blocking": {"first_block": "2d"}})


@pytest.mark.parametrize(
    "written",
    [
        {"streams": {"per_principal": -1}},
        {"blocking": {"threshold": 0}},
        {"blocking": {"threshold": float("inf")}},
        {"blocking": {"half_life": "0"}},
        {"blocking": {"allow": ["10.0.0.0/33"]}},
        {"blocking": {"weights": {"flood": -1}}},
    ],
)
def test_what_would_not_work_is_refused(written: dict[str, Any]) -> None:
    """Of streams and blocking."""
    with pytest.raises(ConfigError):
        config(written)


def test_the_manual_shows_limits_that_load() -> None:
    """Both of its examples."""
    manual = (Path(__file__).parents[3] / "docs/limits.md").read_text()
    shortest, longest = (yaml.safe_load(text)["limits"] for text in re.findall(r"```yaml\n(.*?)```", manual, re.DOTALL))
    assert limits_of(shortest) == RateLimits()
    assert [one.name for one in limits_of(longest).rules] == ["tier-user", "search", "pay"]


@pytest.mark.parametrize(
    ("written", "fits"),
    [
        ("default", True),
        (None, True),
        ({"rules": [{"name": "r", "level": "key", "rate": "5/s"}]}, True),
        ("defualt", False),
        (5, False),
        ({"rules": [{"name": "r", "level": "key", "rate": "5 per second"}]}, False),
        ({"rules": [{"name": "r", "level": "key"}]}, False),
    ],
)
def test_an_editor_marks_what_is_no_limit(written: Any, fits: bool) -> None:
    """By the JSON Schema."""
    document = {"servers": {"a": {"url": "http://127.0.0.1:9/"}}, "limits": written}
    assert Draft202012Validator(schema()).is_valid(document) == fits
