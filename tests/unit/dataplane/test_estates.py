"""What everyone has: rows over the configuration file, each tenant for itself, and one bad row costs no other."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.models import Config
from proxy.dataplane.estates import Estate, Estates, estates_of
from proxy.identity.records import FILE_TAG, SYSTEM_TENANT
from tests.unit.dataplane.registered import registry, route, server, tenant, tenant_id

ACME, OTHER = tenant(1, "acme"), tenant(2, "other")
ENV = {"TENANT_ACME_TOKEN": "acme's token", "TOKEN": "the operator's token"}


def configured(**config: Any) -> Config:
    written = {"servers": {"files": "http://files/", "search": "http://search/"}} | config
    servers = {name: {"url": value} if isinstance(value, str) else value for name, value in written["servers"].items()}
    return Config.model_validate(written | {"servers": servers})


CONFIG = configured()


def made(*rows: Any, config: Config = CONFIG, previous: Estates | None = None) -> Estates:
    return estates_of(registry(ACME, OTHER, *rows), config, ENV, previous)


def acme(*rows: Any, config: Config = CONFIG) -> Estate:
    """What acme has; nothing is wrong with any row."""
    estates = made(*rows, config=config)
    assert estates.problems == ()
    return estates.tenants[ACME.id]


def names(estate: Estate) -> tuple[list[str], list[str]]:
    return list(estate.servers), [each.name for each in estate.routes]


# --- who has what ---------------------------------------------------------------------------------------------------


def test_without_a_registry_there_is_the_configuration_file() -> None:
    """In the order of names; nobody has anything of his own."""
    config = configured(routes=[{"name": "r", "path": "/r", "servers": ["files"]}])
    estates = estates_of({}, config, {})
    assert names(estates.shared) == (["files", "search"], ["r"])
    assert (estates.shared.tenant, estates.shared.slug) == (SYSTEM_TENANT, "system")
    assert [(owned.id, owned.config) for owned in estates.shared.servers.values()] == [
        ("", config.servers["files"]),
        ("", config.servers["search"]),
    ]
    assert (estates.tenants, estates.problems) == ({}, ())


def test_each_tenant_has_its_own_rows() -> None:
    """Two may use one name."""
    estates = made(server(1, "x"), server(2, "x", endpoint_url="http://other/"), route(1, "r", "x"))
    mine, its = estates.tenants[ACME.id], estates.tenants[OTHER.id]
    assert (mine.tenant, mine.slug, *names(mine)) == (ACME.id, "acme", ["x"], ["r"])
    assert (mine.servers["x"].id, its.servers["x"].id) == ("1-server-x", "2-server-x")
    assert (mine.servers["x"].config.url, its.servers["x"].config.url) == ("http://x.example/mcp", "http://other/")
    assert names(its) == (["x"], [])
    assert names(estates.shared) == (["files", "search"], [])


@pytest.mark.parametrize("status", ["suspended", "archived"])
def test_only_active_tenants_have_an_estate(status: str) -> None:
    """Whose tenant is not known has none either; a tenant without rows needs none."""
    estates = estates_of(registry(tenant(1, "acme", status), OTHER, server(1, "x"), server(9, "x")), CONFIG, ENV)
    assert (estates.tenants, estates.problems) == ({}, ())


def test_rows_that_are_disabled_are_left_out() -> None:
    """Without a word: it was meant. So is the tenant that has no others."""
    rows = server(1, "x", is_enabled=False), server(1, "y"), route(1, "r", "y", is_enabled=False)
    assert names(acme(*rows)) == (["y"], [])
    assert made(*rows[:1]).tenants == {}


def test_the_order_is_that_of_names_and_of_priorities() -> None:
    """Whatever the order of the rows."""
    rows = [
        *(server(1, name) for name in "abc"),
        route(1, "z", "a", priority=5),
        route(1, "m", "a"),
        route(1, "k", "a"),
        route(1, "b", "a", priority=-1),
    ]
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert names(acme(*rows)) == (["a", "b", "c"], ["z", "k", "m", "b"])


# --- over the configuration file ------------------------------------------------------------------------------------


def test_rows_of_the_system_tenant_are_everyones_and_win() -> None:
    """By name, servers and routes alike; what only the file has stays."""
    config = configured(
        routes=[
            {"name": "late", "path": "/late", "servers": ["files"], "priority": -1},
            {"name": "b", "path": "/b", "servers": ["files"]},
            {"name": "a", "path": "/a", "servers": ["files"]},
        ]
    )
    rows = [
        server(0, "search", endpoint_url="http://row/", headers={"Authorization": "${TOKEN}"}),
        server(0, "third"),
        route(0, "b", "third", path="/new"),
        route(0, "aa", "search"),
        route(0, "high", "search", priority=1),
    ]
    shared = made(*rows, config=config).shared
    assert names(shared) == (["files", "search", "third"], ["high", "b", "a", "aa", "late"])
    assert shared.servers["search"].id == "0-server-search"
    assert shared.servers["search"].config.headers["Authorization"].get_secret_value() == "the operator's token"
    assert shared.routes[1].path == "/new"


def test_a_tagged_row_lends_its_id_and_nothing_else() -> None:
    """It stands for a server of the configuration file, also when that one is gone."""
    tags = ("mine", FILE_TAG)
    row = server(0, "files", endpoint_url="http://old/", tags=tags, is_enabled=False)
    estates = made(row, server(0, "gone", tags=tags), server(1, "search", tags=tags))
    assert names(estates.shared) == (["files", "search"], [])
    owned = estates.shared.servers
    assert (owned["files"].id, owned["files"].config) == ("0-server-files", CONFIG.servers["files"])
    assert owned["search"].id == ""
    assert estates.tenants == {}


# --- what a route may name ------------------------------------------------------------------------------------------


def test_a_route_names_servers_of_its_own_and_shared_ones() -> None:
    """Also as the mirror."""
    estate = acme(server(1, "x"), route(1, "r", "x", "files", {"name": "search", "weight": 0}))
    assert [each.name for each in estate.routes[0].servers] == ["x", "files", "search"]
    mirrored = acme(server(1, "x"), route(1, "r", "files", options={"mirror": {"server": "x"}}))
    assert mirrored.routes[0].mirror is not None


def test_a_route_goes_on_without_a_server_that_is_not_there() -> None:
    """A neighbour's is as little there as one that nobody has."""
    rows = [
        server(2, "foreign"),
        server(1, "off", is_enabled=False),
        server(1, "bad", endpoint_url="http://me@x/"),
        route(1, "r", "files", "foreign", "none", {"name": "off"}, "bad", options={"mirror": {"server": "foreign"}}),
    ]
    estates = made(*rows)
    (kept,) = estates.tenants[ACME.id].routes
    assert [each.name for each in kept.servers] == ["files"]
    assert kept.mirror is None
    reason = "there is no such server, or it is disabled or cannot be used"
    assert estates.problems == (
        "tenant acme, server bad: endpoint_url: a server URL holds no user, password or fragment; put credentials into"
        " 'headers'",
        f"tenant acme, route r: target_servers[1]: {reason}",
        f"tenant acme, route r: target_servers[2]: {reason}",
        f"tenant acme, route r: target_servers[3]: {reason}",
        f"tenant acme, route r: target_servers[4]: {reason}",
        f"tenant acme, route r: options.mirror.server: {reason}",
    )


def test_a_route_none_of_whose_servers_is_there_is_left_out() -> None:
    """A tenant of which nothing remains has no estate."""
    estates = made(server(2, "x"), route(1, "r", "x"))
    assert list(estates.tenants) == [OTHER.id]
    assert estates.problems[-1] == "tenant acme, route r: left out: none of its servers is there"


@pytest.mark.parametrize("columns", [{"is_enabled": False}, {"options": {"braker": {}}}, {"tags": ()}])
def test_a_name_of_ones_own_never_means_the_shared_server(columns: dict[str, Any]) -> None:
    """What is meant for one's own server does not go elsewhere while that one is disabled."""
    estates = made(server(1, "files", **columns), route(1, "r", "search", "files"))
    found = estates.tenants[ACME.id]
    assert [each.name for each in found.routes[0].servers] == (["search", "files"] if "tags" in columns else ["search"])


SOCKET = {"transport_type": "websocket", "endpoint_url": "ws://x/"}


@pytest.mark.parametrize(
    ("route_row", "text"),
    [
        (route(1, "r", "files", "ws"), "a route and its mirror have either WebSocket servers or others, not both"),
        (route(1, "r", "ws", options={"mirror": {"server": "files"}}), "a route and its mirror have either"),
        (route(1, "r", "ws", options={"filter_lists": True}), "lists that pass through a WebSocket cannot be filtered"),
        (route(1, "r", "files", "search", options={"sessions": "passthrough"}), "needs a route with exactly one"),
    ],
)
def test_a_route_that_would_be_an_error_of_the_configuration_file_is_left_out(route_row: Any, text: str) -> None:
    """The others stay."""
    estates = made(server(1, "ws", **SOCKET), route_row, route(1, "good", "ws"))
    assert names(estates.tenants[ACME.id]) == (["ws"], ["good"])
    (problem,) = estates.problems
    assert problem.startswith("tenant acme, route r: ")
    assert text in problem


def test_routes_of_one_path_agree_about_inspection() -> None:
    """The first one decides. Other tenants and other paths have nothing to do with it."""
    blind = {"inspect": "none"}
    rows = [
        route(1, "a", "files", path="/p", options=blind, priority=1),
        route(1, "b", "files", path="/p"),
        route(1, "c", "files", path="/p", options=blind),
        route(1, "d", "files", path="/p/*"),
        route(2, "a", "files", path="/p"),
    ]
    estates = made(*rows)
    assert names(estates.tenants[ACME.id]) == ([], ["a", "c", "d"])
    assert names(estates.tenants[OTHER.id]) == ([], ["a"])
    assert len(estates.problems) == 1
    assert estates.problems[0].startswith("tenant acme, route b: left out: all routes of one path must agree")


def test_no_row_takes_a_route_of_the_configuration_file_away() -> None:
    """Not one that cannot be used, nor one that disagrees; what a row moves away from a path disagrees no longer."""
    routes = [{"name": name, "path": "/p", "servers": ["files"], "when": {"tool": name}} for name in "ab"]
    config = configured(routes=routes)
    blind = {"options": {"inspect": "none"}, "path": "/p", "priority": 9}
    estates = made(
        route(0, "a", "files", **blind), route(0, "b", "none"), route(0, "c", "files", **blind), config=config
    )
    assert estates.shared.routes == config.routes
    assert [problem.split(":")[0] for problem in estates.problems] == [
        "tenant system, route a",
        "tenant system, route c",
        "tenant system, route b",
        "tenant system, route b",
    ]
    moved = made(route(0, "a", "files", path="/q", priority=10), route(0, "b", "files", **blind), config=config)
    assert moved.problems == ()
    assert [(each.path, each.inspect) for each in moved.shared.routes] == [("/q", "full"), ("/p", "none")]


def test_a_row_that_makes_a_server_a_websocket_takes_routes_of_the_file_with_it() -> None:
    """They could not be served; the log says which."""
    config = configured(routes=[{"name": "r", "path": "/r", "servers": ["files", "search"]}])
    estates = made(server(0, "files", **SOCKET), config=config)
    assert estates.shared.routes == ()
    assert estates.problems[0].startswith("configuration file, route r: left out: a route and its mirror")


def test_a_bad_row_is_told_in_one_line() -> None:
    """Whatever its name; it shows no value, and lets nobody else's variable out."""
    estates = made(
        server(1, "x", headers={"Authorization": "Bearer ${TOKEN}"}),
        route(1, "r\n\x1b[31m" * 20, "files"),
        server(1, "y"),
    )
    assert names(estates.tenants[ACME.id]) == (["y"], [])
    assert "operator" not in repr(estates)
    assert all(problem.isprintable() and len(problem) < 400 for problem in estates.problems)
    assert estates.problems[0] == (
        "tenant acme, server x: headers.Authorization: the environment variable TOKEN is not set;"
        " names of this tenant's variables begin with TENANT_ACME_"
    )
    assert len(estates.problems) == 2


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_what_did_not_change_is_the_same_object() -> None:
    """Estates of other tenants, servers and routes of the same one."""
    rows = [server(1, "x"), server(1, "y"), route(1, "r", "x"), server(2, "x"), route(2, "r", "x", "files")]
    first = made(*rows)
    same = made(*rows, previous=first)
    assert same == first
    assert same.shared is first.shared
    assert all(same.tenants[each] is first.tenants[each] for each in (ACME.id, OTHER.id))
    rows[0] = server(1, "x", endpoint_url="http://new/")
    second = made(*rows, previous=same)
    mine, before = second.tenants[ACME.id], first.tenants[ACME.id]
    assert mine.servers["x"].config.url == "http://new/"
    assert mine.servers["y"] is before.servers["y"]
    assert mine.routes[0] is before.routes[0]
    assert second.tenants[OTHER.id] is first.tenants[OTHER.id]
    assert second.shared is first.shared


def test_a_counter_that_makes_a_new_row_makes_no_new_estate() -> None:
    """A row that says the same is the same."""
    first = made(server(1, "x"), route(1, "r", "x"))
    second = made(server(1, "x", tags=("new",)), route(1, "r", "x"), previous=first)
    assert second == first
    assert second.tenants[ACME.id] is first.tenants[ACME.id]


def test_another_slug_is_another_reach_and_another_name() -> None:
    """The row is the same, its variables are not."""
    row = server(1, "x", headers={"A": "${TENANT_ACME_TOKEN:-none}"})
    first = made(row)
    renamed = estates_of(registry(replace(ACME, slug="zeta"), row), CONFIG, ENV, first).tenants[ACME.id]
    assert renamed.slug == "zeta"
    assert first.tenants[ACME.id].servers["x"].config.headers["A"].get_secret_value() == "acme's token"
    assert renamed.servers["x"].config.headers["A"].get_secret_value() == "none"


SERVERS = st.sampled_from(["files", "x", "y"])
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "is_enabled": st.booleans(),
        "transport_type": st.sampled_from(["streamable_http", "websocket"]),
        "options": st.sampled_from([{}, {"pool": {"max_connections": 3}}, {"breaker": {}}]),
        "tags": st.sampled_from([(), (FILE_TAG,)]),
        "headers": st.sampled_from([{}, {"A": "${TENANT_ACME_TOKEN}"}]),
    },
)
ROUTE_CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "is_enabled": st.booleans(),
        "path": st.sampled_from(["/p", "/q"]),
        "priority": st.integers(-1, 1),
        "options": st.sampled_from(
            [{}, {"inspect": "none"}, {"filter_lists": True}, {"mirror": {"server": "x"}}, {"x": 1}]
        ),
    },
)
ROWS = st.one_of(
    st.builds(lambda number, name, given: server(number, name, **given), st.integers(0, 2), SERVERS, CHOICES),
    st.builds(
        lambda number, name, targets, given: route(number, name, *targets, **given),
        st.integers(0, 2),
        st.sampled_from("rs"),
        st.lists(SERVERS, min_size=1, max_size=3),
        ROUTE_CHOICES,
    ),
    st.builds(lambda status: tenant(1, "acme", status), st.sampled_from(["active", "suspended"])),
)
FILES = [
    CONFIG,
    configured(routes=[{"name": "r", "path": "/p", "servers": ["files"]}]),
    configured(servers={"x": {"url": "ws://x/", "transport": "websocket"}}),
]


@given(st.lists(st.tuples(st.lists(ROWS, max_size=8), st.sampled_from(FILES)), min_size=2, max_size=5))
def test_what_is_remembered_makes_no_difference(steps: list[tuple[list[Any], Config]]) -> None:
    """Rows come, change and go: the estates are those of one who remembers nothing, and every name in them leads
    somewhere."""
    kept: dict[str, dict[str, Any]] = registry(ACME, OTHER)
    previous = None
    for changed, config in steps:
        fresh = registry(*changed)
        kept = {table: {**rows, **fresh[table]} for table, rows in kept.items()}
        previous = estates_of(kept, config, ENV, previous)
        assert previous == estates_of(kept, config, ENV)
        for estate in (previous.shared, *previous.tenants.values()):
            known = {**previous.shared.servers, **estate.servers}
            for each in estate.routes:
                assert {target.name for target in each.servers} <= known.keys()
                assert each.mirror is None or each.mirror.server in known
            assert len({(each.path, each.inspect) for each in estate.routes}) == len({r.path for r in estate.routes})
    assert tenant_id(0) not in previous.tenants
