"""The class of a request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.config.resilience import Priorities
from proxy.dataplane.priority import HIGH, LOW, NORMAL, Ranking
from tests.unit.dataplane.asked import ask, snapshot, somebody

SERVERS = {"up": "http://127.0.0.1:9/mcp"}
ROUTES = [
    {"name": "hurried", "path": "/fast", "servers": ["up"], "priority_class": "high"},
    {"name": "plain", "path": "/plain", "servers": ["up"]},
]


@pytest.mark.parametrize(
    ("key", "tier", "path", "number"),
    [
        ("k1", "user", "/plain", LOW),
        ("k1", "admin", "/fast", LOW),
        ("k2", "anonymous", "/fast", HIGH),
        ("k2", "anonymous", "/plain", LOW),
        ("k2", "admin", "/plain", HIGH),
        ("k2", "user", "/up/mcp", NORMAL),
        ("k2", "partner", "/plain", NORMAL),
        ("", "", "/up/mcp", NORMAL),
    ],
)
def test_the_key_counts_before_the_route_and_the_route_before_the_tier(
    key: str, tier: str, path: str, number: int
) -> None:
    """Whoever is named by none of them is normal."""
    ranking = Ranking(Priorities(keys={"k1": "low"}))
    asked = ask(snapshot(SERVERS, routes=ROUTES), path, principal=replace(somebody("x"), tier=tier, key_id=key))
    assert ranking.priority_of(asked) == number


def test_a_request_without_a_route_has_the_class_of_its_tier() -> None:
    """Discovery documents have none."""
    asked = ask(snapshot(SERVERS), "/nowhere", principal=replace(somebody("x"), tier="low-cost"))
    assert asked.route is None
    assert Ranking(Priorities()).priority_of(asked) == NORMAL


def test_tiers_are_those_of_the_configuration() -> None:
    """A tier that is left out of what is written is normal."""
    asked = ask(snapshot(SERVERS), "/up/mcp", principal=replace(somebody("x"), tier="admin"))
    assert Ranking(Priorities(tiers={"anonymous": "high"})).priority_of(asked) == NORMAL
