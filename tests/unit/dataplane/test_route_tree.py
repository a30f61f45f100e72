"""The decision tree: shapes that could go wrong whatever the routes are."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from proxy.config.models import When
from proxy.dataplane.conditions import Surroundings, compile_when
from proxy.dataplane.route_tree import Entry, Node, grow

AROUND = Surroundings(lambda: datetime(2026, 11, 22, tzinfo=UTC), lambda: 0.5)
NONE = 1 << 20


def tree(*whens: dict[str, Any]) -> Node:
    return grow([Entry(rank, compile_when(When(**when), AROUND)) for rank, when in enumerate(whens)])


def find(node: Node, limit: int = NONE, **facts: Any) -> int:
    known = {"path": "/a", "host": "h", "fields": {}, "message": None, "revision": "", "client_ip": "10.0.0.1"}
    return node.find(SimpleNamespace(**known | facts), limit)


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
    grown = tree(*({"header": {f"X-{number}": "1"}} for number in range(3000)))
    assert find(grown, fields={"x-2999": "1"}) == 2999
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
    tools = [f"t{number}" for number in range(1000)]
    grown = tree(*({"tool": [*tools, f"own{number}"], "host": f"h{number}"} for number in range(20)))
    assert nodes(grown) < 100
    assert find(grown, message=tool("t7"), host="h13") == 13
    assert find(grown, message=tool("own7"), host="h13") == NONE


def test_a_glob_that_needs_more_than_its_ends_is_asked_again() -> None:
    """Filed under its head, it still has to fit."""
    grown = tree(*({"tool": f"t{number}_*_x"} for number in range(10)))
    assert find(grown, message=tool("t4_a_x")) == 4
    assert find(grown, message=tool("t4_a_y")) == NONE
