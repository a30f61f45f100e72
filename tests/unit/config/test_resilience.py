"""Resilience as written: what is taken, what is refused, and with which sentence."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.config import Config, ConfigError, parse
from proxy.config.resilience import Breaker, Flag, Maintenance, Retry, RetryBudget
from proxy.config.schema import schema

URL = "http://127.0.0.1:9/"


def config(server: dict[str, Any] | None = None, route: dict[str, Any] | None = None, **top: Any) -> Config:
    """A configuration with these keys of its server `a`, its route `r`, and at the top."""
    document: dict[str, Any] = {"servers": {"a": {"url": URL, **(server or {})}}, **top}
    if route is not None:
        document["routes"] = [{"name": "r", "path": "/r", "servers": "a", **route}]
    return parse(yaml.safe_dump(document, sort_keys=False), "c.yaml", {}, Path())


def refusal(**written: Any) -> str:
    """What is said of a configuration with one thing wrong."""
    with pytest.raises(ConfigError) as caught:
        config(**written)
    return str(caught.value).split(": ", 1)[1]


def window(**keys: Any) -> dict[str, Any]:
    """A maintenance window with a title."""
    return {"maintenance": [{"title": "disk", **keys}]}


START, END = "2026-12-01T22:00:00+01:00", "2026-12-01T23:00:00+01:00"


def test_without_a_word_there_are_breakers_and_a_budget_but_no_checks_and_no_queues() -> None:
    """What costs nothing is on; what asks servers, or makes requests wait, is asked for."""
    found = config(route={})
    server = found.servers["a"]
    assert server.breaker == Breaker()
    assert (server.health_check, server.queue) == (None, None)
    assert found.routes[0].retry == Retry()
    assert (found.routes[0].retry.tools, found.routes[0].retry.hedge) == ("never", None)
    assert found.retry_budget == RetryBudget(percent=20, minimum=3)
    assert (found.maintenance, found.flags) == ((), {})


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"breaker": {"failures": 0}}, "servers.a.breaker.failures: must be 1 or more"),
        ({"breaker": {"failures": 1001}}, "servers.a.breaker.failures: must be 1000 or less"),
        ({"breaker": {"failure_rate": 1.5}}, "servers.a.breaker.failure_rate: must be 1 or less"),
        ({"breaker": {"failure_rate": float("nan")}}, "servers.a.breaker.failure_rate: expected a number"),
        ({"breaker": {"min_requests": 0}}, "servers.a.breaker.min_requests: must be 1 or more"),
        ({"breaker": {"window": "0"}}, "servers.a.breaker.window: must be longer than 0"),
        ({"breaker": {"open_for": "61s"}}, "servers.a.breaker: 'max_open_for' is not shorter than 'open_for'"),
        ({"breaker": {"max_open_for": "1s"}}, "servers.a.breaker: 'max_open_for' is not shorter than 'open_for'"),
        ({"breaker": {"enforce": "perhaps"}}, "servers.a.breaker.enforce: expected true or false"),
        ({"breaker": {"open": "5s"}}, "servers.a.breaker.open: unknown key; did you mean 'open_for'?"),
        ({"health_check": {"kind": "ping"}},
         "servers.a.health_check.kind: expected 'http', 'mcp', 'websocket' or 'tcp'"),
        ({"health_check": {"method": "POST"}}, "servers.a.health_check.method: expected 'GET', 'HEAD' or 'OPTIONS'"),
        ({"health_check": {"path": "health"}},
         "servers.a.health_check.path: a path starts with '/', holds no encoded bytes or dot segments, and may end in "
         "one '*'"),
        ({"health_check": {"interval": "0s"}}, "servers.a.health_check.interval: must be longer than 0"),
        ({"health_check": {"healthy_after": 0}}, "servers.a.health_check.healthy_after: must be 1 or more"),
        ({"health_check": {"unhealthy_after": 101}}, "servers.a.health_check.unhealthy_after: must be 100 or less"),
        ({"health_check": {"degraded_factor": 0.5}}, "servers.a.health_check.degraded_factor: must be 1 or more"),
        ({"queue": {"max_concurrent": 0}}, "servers.a.queue.max_concurrent: must be 1 or more"),
        ({"queue": {"max_pending": -1}}, "servers.a.queue.max_pending: must be 0 or more"),
        ({"queue": {"max_streams": 0}}, "servers.a.queue.max_streams: must be 1 or more"),
        ({"queue": {"max_wait": "0"}}, "servers.a.queue.max_wait: must be longer than 0"),
    ],
)  # fmt: skip
def test_each_mistake_about_a_server_has_its_sentence(written: dict[str, Any], sentence: str) -> None:
    """With the key it stands under."""
    assert refusal(server=written) == sentence


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"retry": {"attempts": 0}}, "routes[0].retry.attempts: must be 1 or more"),
        ({"retry": {"attempts": 11}}, "routes[0].retry.attempts: must be 10 or less"),
        ({"retry": {"tools": "always"}}, "routes[0].retry.tools: expected 'hinted' or 'never'"),
        ({"retry": {"hedge": {}}}, "routes[0].retry.hedge.after: this key is required"),
        ({"retry": {"hedge": {"after": "0ms"}}}, "routes[0].retry.hedge.after: must be longer than 0"),
        ({"priority_class": "urgent"}, "routes[0].priority_class: expected 'high', 'normal' or 'low'"),
    ],
)
def test_each_mistake_about_a_route_has_its_sentence(written: dict[str, Any], sentence: str) -> None:
    """With the key it stands under."""
    assert refusal(route=written) == sentence


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"retry_budget": {"percent": 101}}, "retry_budget.percent: must be 100 or less"),
        ({"retry_budget": {"minimum": -1}}, "retry_budget.minimum: must be 0 or more"),
        ({"priorities": {"tiers": {"admin": "first"}}},
         "priorities.tiers.admin: expected 'high', 'normal' or 'low'"),
        ({"priorities": {"tiers": {"root": "high"}}},
         "priorities.tiers.root: expected 'admin', 'user' or 'anonymous'"),
        ({"overload": {"loop_lag": "0"}}, "overload.loop_lag: must be longer than 0"),
        ({"overload": {"lag_for": "0"}}, "overload.lag_for: must be longer than 0"),
        ({"overload": {"memory": 1}}, "overload.memory: must be 67108864 or more"),
        ({"flags": {"f": {"percent": -1}}}, "flags.f.percent: must be 0 or more"),
        ({"flags": {"f": {"variants": {"a": -1}}}}, "flags.f.variants.a: must be 0 or more"),
        ({"flags": {"f": {"variants": {"a": 0, "b": 0}}}}, "flags.f: one of 'variants' needs a weight above 0"),
        ({"flags": {"f": {"rules": [{"enabled": False}]}}}, "flags.f.rules[0]: needs a 'tenant', a 'user' or a 'key'"),
        ({"flags": {"f": {"variants": {"a": 1}, "rules": [{"user": "u", "variant": "b"}]}}},
         "flags.f: a rule names a variant that is not among 'variants'"),
    ],
)  # fmt: skip
def test_each_mistake_at_the_top_has_its_sentence(written: dict[str, Any], sentence: str) -> None:
    """With the key it stands under."""
    assert refusal(**written) == sentence


# --- maintenance ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "needs either 'start' and 'end', or 'every'"),
        ({"start": START, "every": "02:00-02:30"}, "needs either 'start' and 'end', or 'every'"),
        ({"start": START}, "needs both 'start' and 'end'"),
        ({"end": END}, "needs both 'start' and 'end'"),
        ({"start": "2026-12-01T22:00:00", "end": END}, "'start' and 'end' need a time zone, such as +01:00 or Z"),
        ({"start": START, "end": "2026-12-01T23:00:00"}, "'start' and 'end' need a time zone, such as +01:00 or Z"),
        ({"start": END, "end": START}, "'end' is after 'start', by a year at most"),
        ({"start": START, "end": START}, "'end' is after 'start', by a year at most"),
        ({"start": START, "end": "2027-12-03T22:00:00+01:00"}, "'end' is after 'start', by a year at most"),
        ({"start": "9999-06-01T00:00:00Z", "end": "9999-06-02T00:00:00Z"}, "'start' is in the year 9997 at the latest"),
        (
            {"start": "9999-12-31T23:00:00-10:00", "end": "9999-12-31T23:30:00-10:00"},
            "'start' is in the year 9997 at the latest",
        ),
    ],
)
def test_a_window_says_when_in_one_way(keys: dict[str, Any], sentence: str) -> None:
    """Once with both ends and their zone, or again and again."""
    assert refusal(**window(**keys)) == f"maintenance[0]: {sentence}"


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"title": ""}, "maintenance[0].title: must not be empty"),
        ({"title": "x" * 201}, "maintenance[0].title: must not be longer than 200 characters"),
        ({"title": "a\nb"}, "maintenance[0].title: "),
        ({"title": "Wartung f\u00fcr alle"}, "maintenance[0].title: "),
        ({"every": "Sun"}, "maintenance[0].every: a recurring window looks like "),
        ({"every": "Son 02:00-04:00"}, "maintenance[0].every: weekdays are Mon, Tue, Wed, Thu, Fri, Sat and Sun"),
        ({"drain": "-1s"}, "maintenance[0].drain: "),
        ({"server": "B"}, "maintenance[0].server: a name has "),
    ],
)
def test_what_clients_are_told_is_one_printable_line(keys: dict[str, Any], place: str) -> None:
    """It goes into an answer as it is; and the other keys have their grammar, too."""
    assert refusal(**window(**({"every": "02:00-02:30"} | keys))).startswith(place)


def test_a_window_of_a_server_that_is_not_configured_is_refused() -> None:
    """A misspelt name would maintain nobody."""
    assert "maintenance[0].server" in refusal(**window(every="02:00-02:30", server="b"))


@given(st.integers(-3, 368 * 86400), st.sampled_from(["Z", "+01:00", "-11:30"]))
def test_a_window_is_longer_than_nothing_and_no_longer_than_a_year(seconds: int, zone: str) -> None:
    """Whatever the zone of its end is."""
    start = datetime.fromisoformat("2026-12-01T22:00:00+00:00")
    end = (start + timedelta(seconds=seconds)).astimezone(datetime.fromisoformat(f"{START[:19]}{zone}").tzinfo)
    try:
        Maintenance(title="disk", start=start, end=end)
        taken = True
    except ValueError:
        taken = False
    assert taken == (0 < seconds <= 366 * 86400)


def test_both_kinds_of_windows_load() -> None:
    """With half a minute to drain, unless told otherwise."""
    written = [
        {"title": "disk", "server": "a", "start": START, "end": END},
        {"title": "backup", "every": "02:00-02:30", "drain": "0"},
    ]
    once, daily = config(maintenance=written).maintenance
    assert (once.server, once.drain, once.every) == ("a", 30.0, None)
    assert once.start == datetime.fromisoformat(START)
    assert (daily.server, daily.drain, daily.start) == (None, 0.0, None)


# --- what holds for all ---------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_breaker_never_opens_for_longer_than_its_longest(open_for: int, max_open_for: int) -> None:
    """The two bounds fit, or are refused."""
    try:
        Breaker.model_validate({"open_for": f"{open_for}s", "max_open_for": f"{max_open_for * 1000}ms"})
        taken = True
    except ValueError:
        taken = False
    assert taken == (open_for <= max_open_for)


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)), st.lists(st.sampled_from(["", "a", "b"]), max_size=3)
)
def test_variants_can_be_drawn_and_given(weights: dict[str, int], given_to: list[str]) -> None:
    """At least one has a weight, if there are any; a rule gives one that is there, or leaves it to chance."""
    rules = [{"user": "u", "variant": variant} for variant in given_to]
    try:
        Flag.model_validate({"variants": weights, "rules": rules})
        taken = True
    except ValueError:
        taken = False
    drawable = not weights or any(weights.values())
    assert taken == (drawable and all(not variant or variant in weights for variant in given_to))


@pytest.mark.parametrize(
    ("written", "fits"),
    [
        ({"breaker": {"failures": 3, "open_for": "2s"}}, True),
        ({"health_check": {}, "queue": {"max_concurrent": 5}}, True),
        ({"health_check": None, "queue": None}, True),
        ({"breaker": {"failures": 0}}, False),
        ({"breaker": {"open_for": "soon"}}, False),
        ({"queue": {"max_wait": 0.5, "max_pending": -1}}, False),
        ({"health_check": {"kind": "ping"}}, False),
    ],
)
def test_an_editor_marks_what_cannot_be(written: dict[str, Any], fits: bool) -> None:
    """By the JSON Schema."""
    document = {"servers": {"a": {"url": URL, **written}}}
    assert Draft202012Validator(schema()).is_valid(document) == fits
