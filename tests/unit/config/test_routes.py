"""Routes that are right."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.models import Config, RouteServer


def config(**keys: Any) -> Config:
    """A configuration with one server and these keys."""
    return Config.model_validate({"servers": {"a": {"url": "https://a.example/mcp"}}, **keys})


def test_servers_of_a_route_may_be_written_in_four_ways() -> None:
    """A name, a list of names, names with weights, or mixed."""
    for written in ("a", ["a"], [{"name": "a"}], [{"name": "a", "weight": 1}]):
        route = config(routes=[{"name": "r", "path": "/r", "servers": written}]).routes[0]
        assert route.servers == (RouteServer(name="a", weight=1),)


def test_passthrough_needs_exactly_one_server() -> None:
    """Unsealed ids do not say where a session lives."""
    one = {"name": "r", "path": "/r", "servers": ["a"], "sessions": "passthrough"}
    assert config(routes=[one]).routes[0].sessions == "passthrough"
    with pytest.raises(ValueError, match="exactly one server"):
        config(routes=[{**one, "servers": ["a", "b"]}])


@pytest.mark.parametrize("when", [{"host": "x"}, {"header": {"X": "y"}}, {"client_ip": "10.0.0.0/8"}, {"percent": 5}])
def test_without_inspection_conditions_on_the_head_still_work(when: dict[str, Any]) -> None:
    """They need no body."""
    assert config(routes=[{"name": "r", "path": "/r", "servers": "a", "inspect": "none", "when": when}])


def test_who_asks_may_be_a_condition_without_inspection() -> None:
    """It is known from the head."""
    when = {"tenant": "acme", "scope": ["read", "write"], "key": "0123456789aB", "tier": "user"}
    route = config(routes=[{"name": "r", "path": "/r", "servers": "a", "inspect": "none", "when": when}]).routes[0]
    assert (route.when.tenant, route.when.scope) == (("acme",), ("read", "write"))


def test_lists_are_filtered_only_where_bodies_are_read() -> None:
    """Which answers are lists is in the requests."""
    route = {"name": "r", "path": "/r", "servers": "a", "filter_lists": True}
    assert config(routes=[route]).routes[0].filter_lists
    with pytest.raises(ValueError, match="needs 'inspect: full'"):
        config(routes=[{**route, "inspect": "none"}])
