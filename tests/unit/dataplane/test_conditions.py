"""Each condition of a route: what satisfies it, and that what is not known never does."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.config.models import Flag, When
from proxy.dataplane import conditions
from proxy.dataplane.conditions import Surroundings, compile_when
from proxy.dataplane.flags import FlagBook
from proxy.identity.principal import Scope, Source, anonymous
from proxy.mcp.envelope import Kind, Message
from proxy.mcp.methods import Access

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

FLAGS = FlagBook.of({"on": Flag(), "off": Flag(enabled=False), "test": Flag(variants={"a": 0, "b": 1})}, {})


def message(method: str = "tools/call", kind: str = "tool", target: str = "search_web") -> Message:
    return Message(Kind.REQUEST, method, 1, next(iter(Access)), kind, target)


def request(**facts: Any) -> SimpleNamespace:
    known = {"path": "/a", "host": "mcp.example.com", "fields": {}, "message": None, "revision": "", "client_ip": ""}
    return SimpleNamespace(**{"draws": None, "flags": FLAGS, "principal": anonymous()} | known | facts)


def asked_by(**facts: Any) -> dict[str, Any]:
    """The principal of a key of acme, or what is said of it."""
    known = {"tenant_slug": "acme", "tier": "user", "key_id": "0123456789aB", "source": Source.KEY}
    return {"principal": replace(anonymous(), **known | facts)}


def satisfied(when: dict[str, Any], draw: float = 0.5, now: datetime = NOON, **facts: Any) -> bool:
    compiled = compile_when(When(**when), Surroundings(lambda: now, lambda: draw))
    assert compiled, "the condition was dropped"
    return all(condition.holds(request(**facts)) for condition in compiled)


def test_every_key_of_the_configuration_is_compiled() -> None:
    """A condition that people can write but nobody asks would let everyone in."""
    assert set(conditions._KINDS) == set(When.model_fields)


def test_no_conditions_compile_to_nothing() -> None:
    """An empty `when` costs nothing."""
    assert compile_when(When(), Surroundings(lambda: NOON, lambda: 0.0)) == ()


def test_the_draw_comes_last() -> None:
    """So that a percentage is one of the requests that match otherwise."""
    when = When(percent=5, tool="a*", host="h", client_ip="10.0.0.1", header={"X-A": "1", "X-B": "2"})
    compiled = compile_when(when, Surroundings(lambda: NOON, lambda: 0.0))
    assert [type(condition).__name__ for condition in compiled][-1] == "Share"
    assert len(compiled) == 6


@pytest.mark.parametrize(
    ("when", "facts", "expected"),
    [
        ({"host": "MCP.example.com"}, {}, True),
        ({"host": ["a.example", "mcp.example.com"]}, {}, True),
        ({"host": "example.com"}, {}, False),
        ({"method": "tools/call"}, {"message": message()}, True),
        ({"method": "Tools/call"}, {"message": message()}, False),
        ({"method": ["tools/list", "ping"]}, {"message": message("ping", "", "")}, True),
        ({"tool": "search_*"}, {"message": message()}, True),
        ({"tool": ["read", "*_web"]}, {"message": message()}, True),
        ({"tool": "Search_*"}, {"message": message()}, False),
        ({"prompt": "search_*"}, {"message": message()}, False),
        ({"prompt": "greet"}, {"message": message("prompts/get", "prompt", "greet")}, True),
        ({"resource": "file:///*"}, {"message": message("resources/read", "resource", "file:///etc/x")}, True),
        ({"resource": "file:///*"}, {"message": message("resources/read", "resource", "http://x")}, False),
        ({"header": {"X-Env": "staging"}}, {"fields": {"x-env": "staging"}}, True),
        ({"header": {"X-Env": ["a", "b"]}}, {"fields": {"x-env": "b"}}, True),
        ({"header": {"X-Env": "staging"}}, {"fields": {"x-env": "Staging"}}, False),
        ({"header": {"X-Env": "a", "X-Two": "b"}}, {"fields": {"x-env": "a"}}, False),
        ({"client_ip": "10.0.0.0/8"}, {"client_ip": "10.1.2.3"}, True),
        ({"client_ip": "10.0.0.0/8"}, {"client_ip": "::ffff:10.1.2.3"}, True),
        ({"client_ip": ["10.0.0.0/8", "2001:db8::/32"]}, {"client_ip": "2001:db8::1"}, True),
        ({"client_ip": "10.0.0.0/8"}, {"client_ip": "11.0.0.0"}, False),
        ({"client_ip": "::/0"}, {"client_ip": "10.1.2.3"}, False),
        ({"protocol": ">=2026-07-28"}, {"revision": "2026-07-28"}, True),
        ({"protocol": ">=2026-07-28"}, {"revision": "2025-11-25"}, False),
        ({"protocol": "2025-06-18"}, {"revision": "2025-06-18"}, True),
        ({"tenant": "acme"}, asked_by(), True),
        ({"tenant": ["other", "acme"]}, asked_by(), True),
        ({"tenant": "Acme"}, asked_by(), False),
        ({"tenant": "acme"}, asked_by(tenant_slug="acme-corp"), False),
        ({"key": "0123456789aB"}, asked_by(), True),
        ({"key": "0123456789ab"}, asked_by(), False),
        ({"tier": ["admin", "user"]}, asked_by(), True),
        ({"tier": "anonymous"}, asked_by(), False),
        ({"tier": "anonymous"}, {}, True),
        ({"scope": "write"}, {}, True),
        ({"scope": "admin"}, {}, False),
        ({"scope": ["admin", "read"]}, {}, True),
        ({"flag": "on"}, {}, True),
        ({"flag": "off"}, {}, False),
        ({"flag": ["off", "on"]}, {}, True),
        ({"flag": "test"}, {}, True),
        ({"flag": "test", "variant": "b"}, {}, True),
        ({"flag": "test", "variant": ["a", "b"]}, {}, True),
        ({"flag": "test", "variant": "a"}, {}, False),
        ({"flag": "on", "variant": "b"}, {}, False),
        ({"scope": "read"}, asked_by(scopes=frozenset((Scope.PROXY, Scope.WRITE))), False),
    ],
)
def test_a_condition_asks_for_just_what_it_says(when: dict[str, Any], facts: dict[str, Any], expected: bool) -> None:
    """Exact and case-sensitive, but for host and header names, which HTTP compares without case."""
    assert satisfied(when, **facts) is expected


@pytest.mark.parametrize(
    ("when", "facts"),
    [
        ({"method": "tools/call"}, {}),
        ({"tool": "*"}, {}),
        ({"tool": "*"}, {"message": message("tools/list", "", "")}),
        ({"tool": "*"}, {"message": message("tools/call", "tool", "")}),
        ({"tool": "*"}, {"message": message("tasks/get", "task", "t1")}),
        ({"prompt": "*"}, {"message": message()}),
        ({"resource": "*"}, {"message": message()}),
        ({"header": {"X-Env": "staging"}}, {}),
        ({"client_ip": ["0.0.0.0/0", "::/0"]}, {"client_ip": ""}),
        ({"client_ip": ["0.0.0.0/0", "::/0"]}, {"client_ip": "/run/socket"}),
        ({"protocol": "<2026-07-28"}, {"revision": ""}),
        ({"protocol": ">=2026-07-28"}, {"revision": "DRAFT"}),
        ({"tenant": ["system", "none", "anonymous"]}, {}),
        ({"key": "anonymous"}, {}),
        ({"scope": ["proxy", "read", "write", "admin"]}, asked_by(scopes=frozenset())),
        ({"flag": ["missing", "off"]}, {}),
        ({"flag": "missing", "variant": "b"}, {}),
        ({"tier": ["admin", "user", "anonymous"]}, asked_by(tier="of its own")),
    ],
)
def test_a_fact_that_is_not_known_satisfies_nothing(when: dict[str, Any], facts: dict[str, Any]) -> None:
    """Whatever the condition would let pass."""
    assert not satisfied(when, **facts)


@pytest.mark.parametrize(("hour", "expected"), [(21, False), (22, True), (2, True), (6, False)])
def test_a_time_window_holds_in_its_own_zone(hour: int, expected: bool) -> None:
    """22:00 to 06:00 passes midnight."""
    now = datetime(2026, 11, 22, hour, 0, tzinfo=UTC)
    assert satisfied({"between": "22:00-06:00"}, now=now) is expected
    assert satisfied({"between": "23:00-07:00 Europe/Berlin"}, now=now) is expected


@pytest.mark.parametrize(
    ("percent", "draw", "expected"),
    [(0, 0.0, False), (5, 0.049, True), (5, 0.05, False), (100, 1 - 2**-53, True)],
)
def test_a_percentage_is_a_share_of_the_draws(percent: float, draw: float, expected: bool) -> None:
    """0 never holds and 100 always."""
    assert satisfied({"percent": percent}, draw=draw) is expected


def test_a_batch_has_one_draw_for_each_percentage() -> None:
    """Chance decides for all its messages at once, and for each route anew."""
    numbers = iter([0.1, 0.9, 0.2, 0.8])
    (one,) = compile_when(When(percent=50), Surroundings(lambda: NOON, lambda: next(numbers)))
    (other,) = compile_when(When(percent=50), Surroundings(lambda: NOON, lambda: next(numbers)))
    batch = request(draws={})
    assert [(one.holds(batch), other.holds(batch)) for _ in range(3)] == [(True, False)] * 3
    assert (one.holds(request()), one.holds(request())) == (True, False)
