"""The decision tree: shapes that could go wrong whatever the routes are."""

from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.models import When
from proxy.dataplane.conditions import Surroundings, compile_when
from proxy.dataplane.route_tree import Entry, Node, grow

AROUND = Surroundings(lambda: datetime(2026, 11, 22, tzinfo=UTC), lambda: 0.5)
NONE = 1 << 20


def tree(*whens: dict[str, Any]) -> Node:
    return grow([Entry(rank, compile_when(When(**when), AROUND)) for rank, when in enumerate(whens)])


def find(node: Node, limit: int = NONE, **facts: Any) -> int:
    known = {"path": "/a", "host": "h", "fields": {}, "message": None, "revision": "", "client_ip": "10.0.0.1"}
    return node.find(SimpleNamespace(**{"draws": None} | known | facts), limit)


def tool(name: str) -> SimpleNamespace:
    return SimpleNamespace(method="tools/call", target_kind="tool", target=name)


def nodes(node: Any) -> int:
    """How many nodes the tree has; a shared one counts once."""
    seen: dict[int, Any] = {}
    todo = [node]
    while todo:
        one = todo.pop()
        if id(one) in seen or not hasattr(one, "find"):
            continue
        seen[id(one)] = one
        if hasattr(one, "_rest"):
            table = one._nodes
            todo += [one._rest, *(table.values() if isinstance(table, dict) else table._whole.values())]
    return len(seen)


def test_the_tree_of_nothing_finds_nothing() -> None:
    """The rest of a branch may be empty."""
    assert find(grow([])) == NONE


def test_a_limit_keeps_later_routes_out() -> None:
    """The tree stops at what another one has found already."""
    grown = tree({"host": "x"}, {"host": "h"}, {})
    assert find(grown) == 1
    assert find(grown, limit=1) == 1
    assert find(grown, limit=0) == 0


def test_a_route_without_conditions_hides_what_follows() -> None:
    """What cannot be reached is not kept."""
    grown = tree({"host": "x"}, {}, *({"tool": f"t{number}"} for number in range(100)))
    assert nodes(grown) == 1
    assert find(grown, message=tool("t5")) == 1


def test_the_earlier_route_wins_on_either_side_of_a_branch() -> None:
    """Under a fact, or among those that do not ask for it."""
    grown = tree({"tool": "a*"}, {"host": "h"}, {"tool": "ab"}, {"tool": "b"}, {"client_ip": "10.0.0.0/8"})
    assert find(grown, message=tool("ab")) == 0
    assert find(grown, message=tool("b")) == 1
    assert find(grown, message=tool("b"), host="x") == 3
    assert find(grown, message=tool("c"), host="x") == 4
    assert find(grown, message=tool("c"), host="x", client_ip="") == NONE


def test_thousands_of_header_names_do_not_exhaust_the_stack() -> None:
    """Each name is a branch of its own; below some depth the routes are asked one by one."""
    grown = tree(*({"header": {f"X-{number // 2}": f"{number % 2}"}} for number in range(3000)))
    assert find(grown, fields={"x-0": "1"}) == 1
    assert find(grown, fields={"x-1499": "1"}) == 2999
    assert find(grown, fields={}) == NONE


def test_long_lists_on_several_axes_do_not_multiply() -> None:
    """100 routes with 40 hosts, 40 methods and 40 tools each could make 6,400,000 copies."""
    grown = tree(
        *(
            {
                "host": [f"h{(number * 7 + step) % 97}" for step in range(40)],
                "method": [f"m{(number * 5 + step) % 89}" for step in range(40)],
                "tool": [f"t{(number * 3 + step) % 83}" for step in range(40)],
            }
            for number in range(100)
        )
    )
    assert nodes(grown) < 5000
    message = SimpleNamespace(method="m12", target_kind="tool", target="t9")
    assert find(grown, host="h14", message=message) == next(
        number
        for number in range(100)
        if (14 - number * 7) % 97 < 40 and (12 - number * 5) % 89 < 40 and (9 - number * 3) % 83 < 40
    )


def test_routes_with_the_same_list_share_a_node() -> None:
    """A list of thousands of networks or tools is not a list of thousands of leaves."""
    lists = [[f"t{number}_{group}" for number in range(1000)] for group in range(4)]
    grown = tree(*({"tool": lists[number % 4], "protocol": f"20{number:02}-01-01"} for number in range(20)))
    assert nodes(grown) == 1 + 4 + 1
    assert find(grown, message=tool("t7_3"), revision="2015-01-01") == 15
    assert find(grown, message=tool("t7_3"), revision="2014-01-01") == NONE


def test_a_glob_that_needs_more_than_its_ends_is_asked_again() -> None:
    """Filed under its head, it still has to fit."""
    grown = tree(*({"tool": f"t{number}_*_x"} for number in range(10)))
    assert find(grown, message=tool("t4_a_x")) == 4
    assert find(grown, message=tool("t4_a_y")) == NONE


CHOICES: dict[str, list[Any]] = {
    "host": ["g", "h", ["g", "h"]],
    "method": ["tools/call", "ping", ["ping", "tools/call"]],
    "tool": ["a", "b", "a*", "*b", "a*b", "*", "*a*", ["a", "b*"], ["*a", "*b"], ["ab", "a*", "b"]],
    "header": [{"X-A": "1"}, {"X-A": "2"}, {"X-B": "1"}, {"X-A": "1", "X-B": ["1", "2"]}],
    "client_ip": ["10.0.0.1", "10.0.0.0/30", "10.0.0.0/8", ["10.0.0.1", "10.0.0.2"]],
    "protocol": ["2025-11-25", ">=2026-07-28"],
}


def some_when(random: Random) -> dict[str, Any]:
    return {key: random.choice(CHOICES[key]) for key in random.sample(sorted(CHOICES), random.randint(1, 3))}


def some_request(random: Random) -> SimpleNamespace:
    return SimpleNamespace(
        path="/a",
        host=random.choice("gh"),
        fields=random.choice([{}, {"x-a": "1"}, {"x-a": "2", "x-b": "1"}, {"x-a": "1", "x-b": "1"}]),
        message=random.choice([None, *map(tool, ("a", "b", "ab", "aab", "c", "ca"))]),
        revision=random.choice(["2025-11-25", "2026-07-28"]),
        client_ip=random.choice(["10.0.0.1", "10.0.0.3", "10.9.9.9", "192.0.2.1"]),
    )


@settings(max_examples=150)
@given(st.randoms(use_true_random=False), st.integers(3, 40))
def test_a_tree_finds_what_a_walk_finds(random: Random, size: int) -> None:
    """Trees of several levels, in which routes hide each other and limits cut in."""
    entries = [Entry(rank, compile_when(When(**some_when(random)), AROUND)) for rank in range(size)]
    grown = grow(entries)
    for _ in range(20):
        asked, limit = some_request(random), random.randint(0, size)
        walk = (entry.rank for entry in entries if all(condition.holds(asked) for condition in entry.conditions))
        assert grown.find(asked, limit) == min(next(walk, limit), limit)
