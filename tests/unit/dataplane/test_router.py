"""The router: the first matching route, at a cost that the number of routes does not change."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.models import Route, Server, When
from proxy.dataplane.router import CompiledRoute, Router
from proxy.dataplane.upstream import Upstream
from proxy.identity.principal import Scope, anonymous
from tests.bytecodes import bytecodes

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TRANSPORTS = {"plain": "streamable_http", "other": "streamable_http", "old": "sse", "socket": "websocket"}
SERVERS = {
    name: Upstream(name, Server(url="http://127.0.0.1:9/mcp", transport=transport), None, None)
    for name, transport in TRANSPORTS.items()
}


def request(path: str = "/a", **facts: Any) -> SimpleNamespace:
    known = {"host": "h", "fields": {}, "message": None, "revision": "2025-11-25", "client_ip": "10.0.0.1"}
    return SimpleNamespace(path=path, **{"draws": None, "principal": anonymous()} | known | facts)


def asked_by(tenant: str = "", key: str = "", tier: str = "user", scopes: Iterable[Scope] = ()) -> dict[str, Any]:
    """The fact that this principal asks."""
    facts = {"tenant_slug": tenant, "key_id": key, "tier": tier, "scopes": frozenset(scopes)}
    return {"principal": replace(anonymous(), **facts)}


def message(method: str, kind: str, target: str) -> SimpleNamespace:
    return SimpleNamespace(method=method, target_kind=kind, target=target)


def call(tool: str) -> SimpleNamespace:
    return message("tools/call", "tool", tool)


def route(name: str, path: str = "/a", **keys: Any) -> Route:
    return Route(name=name, path=path, servers=keys.pop("servers", ["plain"]), **keys)


def compiled(*routes: Route, draw: Callable[[], float] = lambda: 0.5) -> Router:
    return Router.compile(routes, SERVERS, lambda: NOON, draw)


def name_of(found: CompiledRoute | None) -> str | None:
    return found.name if found is not None else None


# --- the reference: the same rules, one route after the other -------------------------------------------------------


def fits(globs: Sequence[str], text: str) -> bool:
    return any(re.fullmatch(".*".join(map(re.escape, glob.split("*"))), text, re.DOTALL) for glob in globs)


def holds(when: When, asked: SimpleNamespace, draw: float) -> bool:
    said = asked.message or message("", "", "")
    named = [("tool", when.tool), ("prompt", when.prompt), ("resource", when.resource)]
    who = asked.principal
    return (
        (not when.host or asked.host in when.host)
        and (not when.method or said.method in when.method)
        and all(not globs or (said.target_kind == kind and fits(globs, said.target)) for kind, globs in named)
        and (when.protocol is None or (bool(asked.revision) and when.protocol.holds(asked.revision)))
        and all(asked.fields.get(name.lower()) in values for name, values in when.header.items())
        and (not when.client_ip or any(ip_address(asked.client_ip) in network for network in when.client_ip))
        and (not when.tenant or who.tenant_slug in when.tenant)
        and (not when.key or who.key_id in when.key)
        and (not when.tier or who.tier in when.tier)
        and (not when.scope or any(scope.value in when.scope for scope in who.scopes))
        and (when.between is None or when.between.holds(NOON))
        and (when.percent is None or draw * 100 < when.percent)
    )


def first_match(routes: Sequence[Route], asked: SimpleNamespace, draw: float) -> str | None:
    for each in sorted(routes, key=lambda each: -each.priority):
        if fits([each.path], asked.path) and holds(each.when, asked, draw):
            return each.name
    built_in = {f"/{name}/mcp": name for name in SERVERS} | {"/old/sse": "old"}
    return built_in.get(asked.path)


# --- few values, so that routes and requests meet -------------------------------------------------------------------

NAMES = st.text("ab_", min_size=1, max_size=3)
GLOBS = st.text("ab_*", min_size=1, max_size=4)
PATHS = ["/a", "/a/b", "/a/b/c", "/ab", "/b", "/plain/mcp", "/old/sse"]
NETWORKS = ["10.0.0.0/8", "10.0.0.0/30", "10.0.0.1", "10.0.0.2/31", "2001:db8::/32", "2001:db8::1", "0.0.0.0/0"]
OPTIONAL = {
    "host": st.lists(st.sampled_from(["g", "h", "i"]), max_size=2),
    "method": st.lists(st.sampled_from(["tools/call", "prompts/get", "ping"]), max_size=2),
    "tool": st.lists(GLOBS, max_size=3),
    "prompt": st.lists(GLOBS, max_size=2),
    "resource": st.lists(GLOBS, max_size=2),
    "protocol": st.sampled_from([None, ">=2026-07-28", "<2026-07-28", "2025-11-25"]),
    "header": st.dictionaries(
        st.sampled_from(["X-A", "x-b"]), st.lists(st.sampled_from("12"), min_size=1, max_size=2), max_size=2
    ),
    "client_ip": st.lists(st.sampled_from(NETWORKS), max_size=3),
    "tenant": st.lists(st.sampled_from(["acme", "other"]), max_size=2),
    "key": st.lists(st.sampled_from(["one", "two", "three"]), max_size=2),
    "tier": st.lists(st.sampled_from(["admin", "user", "anonymous"]), max_size=2, unique=True),
    "scope": st.lists(st.sampled_from(["read", "write", "proxy", "admin"]), max_size=3, unique=True),
    "between": st.sampled_from([None, "11:00-13:00", "13:00-11:00"]),
    "percent": st.sampled_from([None, 0, 30, 100]),
}


@st.composite
def whens(draw: Any) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(sorted(OPTIONAL)), max_size=3, unique=True))
    return {key: draw(OPTIONAL[key]) for key in keys}


@st.composite
def tables(draw: Any) -> list[Route]:
    paths = st.sampled_from(["/a", "/a", "/a", *PATHS, "/*", "/a/*", "/a*", "/a/b/*"])
    rows = draw(st.lists(st.tuples(paths, st.integers(-1, 1), whens()), max_size=14))
    return [route(f"r{number}", path, priority=first, when=when) for number, (path, first, when) in enumerate(rows)]


PRINCIPALS = st.builds(
    lambda *facts: asked_by(*facts)["principal"],
    st.sampled_from(["", "acme", "other"]),
    st.sampled_from(["", "one", "two"]),
    st.sampled_from(["admin", "user", "of its own"]),
    st.sets(st.sampled_from(Scope)),
)
REQUESTS = st.builds(
    request,
    st.sampled_from(["/a", "/a", *PATHS, "/c"]),
    principal=st.one_of(st.just(anonymous()), PRINCIPALS),
    host=st.sampled_from("ghi"),
    message=st.one_of(
        st.none(),
        st.builds(call, NAMES),
        st.builds(message, st.just("prompts/get"), st.just("prompt"), NAMES),
        st.builds(message, st.just("resources/read"), st.just("resource"), NAMES),
        st.just(message("ping", "", "")),
    ),
    revision=st.sampled_from(["", "2025-11-25", "2026-07-28"]),
    fields=st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.sampled_from("123"), max_size=2),
    client_ip=st.sampled_from(["10.0.0.1", "10.0.0.3", "192.0.2.1", "2001:db8::1", "2001:db9::1"]),
)


@settings(max_examples=400)
@given(tables(), st.lists(REQUESTS, min_size=1, max_size=8), st.sampled_from([0.0, 0.29, 0.31, 0.999]))
def test_the_answer_is_that_of_a_walk_over_all_routes(
    routes: list[Route], asked: list[SimpleNamespace], drawn: float
) -> None:
    """Whatever the routes, and no route draws more than once for one request."""
    draws: list[float] = []
    router = compiled(*routes, draw=lambda: draws.append(drawn) or drawn)
    for each in asked:
        draws.clear()
        assert name_of(router.match(each)) == first_match(routes, each, drawn)
        assert len(draws) <= sum(one.when.percent is not None for one in routes)


@settings(max_examples=150)
@given(tables(), st.sets(st.integers(0, 13)), st.sampled_from([*PATHS, "/c"]))
def test_a_path_is_inspected_unless_no_reachable_route_inspects(
    routes: list[Route], blind: set[int], path: str
) -> None:
    """Routes behind one that takes every request do not count."""
    routes = [
        each.model_copy(update={"inspect": "none" if number in blind else "full"}) for number, each in enumerate(routes)
    ]
    reachable = []
    for each in sorted(routes, key=lambda each: -each.priority):
        if fits([each.path], path):
            reachable.append(each.inspect == "full")
            if each.when == When():
                break
    else:
        if path in {f"/{name}/mcp" for name in SERVERS} | {"/old/sse"}:
            reachable.append(True)
    router = compiled(*routes)
    assert router.inspects(path) is (any(reachable) or not reachable)
    assert router.serves(path) is bool(reachable)


# --- what the rules mean --------------------------------------------------------------------------------------------


def test_every_server_is_served_without_any_route() -> None:
    """At /NAME/mcp, and a legacy SSE server at /NAME/sse too; inspected and sealed."""
    router = compiled()
    for name in SERVERS:
        found = router.match(request(f"/{name}/mcp"))
        assert found is not None
        assert (found.name, found.config, found.inspect, found.sealed) == (name, None, True, True)
        assert found.selection.pick("", ()) is SERVERS[name]
    assert name_of(router.match(request("/old/sse"))) == "old"
    assert router.match(request("/plain/sse")) is None


@pytest.mark.parametrize("path", ["/", "/plain", "/plain/mcp/", "/plain/MCP", "/plain/mcpx", ""])
def test_other_paths_are_not_served(path: str) -> None:
    """A path is compared as it is."""
    assert compiled().match(request(path)) is None
    assert not compiled().serves(path)


def test_priority_comes_before_order_and_both_before_the_built_in_routes() -> None:
    """Higher first, then as written; the lowest priority still precedes the built-in route."""
    router = compiled(
        route("late", "/plain/mcp", priority=-1000),
        route("first", priority=1, when={"host": "h"}),
        route("second"),
        route("third"),
        route("top", "/*", priority=2, when={"host": "top"}),
    )
    assert name_of(router.match(request())) == "first"
    assert name_of(router.match(request(host="g"))) == "second"
    assert name_of(router.match(request(host="top"))) == "top"
    assert name_of(router.match(request("/plain/mcp"))) == "late"


def test_a_wildcard_is_everything_below_and_not_the_folder_itself() -> None:
    """`/team/*` begins with `/team/`; the order written decides between wildcards, not their length."""
    router = compiled(route("all", "/team/*"), route("one", "/team/a/*"), route("near", "/tea*"))
    assert name_of(router.match(request("/team/a/b"))) == "all"
    assert name_of(router.match(request("/team"))) == "near"
    assert name_of(router.match(request("/te"))) is None


def test_a_route_that_two_of_its_globs_match_draws_once() -> None:
    """Two chances would make more of the percentage."""
    draws: list[float] = []
    others = [route(f"o{number}", when={"tool": f"x{number}"}) for number in range(10)]
    mine = route("mine", when={"tool": ["a*", "*b", "ab", "a*b"], "percent": 50})
    router = compiled(mine, *others, draw=lambda: draws.append(0.9) or 0.9)
    assert router.match(request(message=call("ab"))) is None
    assert len(draws) == 1


def test_a_compiled_route_carries_its_configuration() -> None:
    """What later phases read of it."""
    config = route(
        "r",
        servers=[{"name": "plain", "weight": 0}, "socket"],
        mirror={"server": "other", "percent": 3},
        affinity={"by": "task"},
        inspect="none",
    )
    found = compiled(config).match(request())
    assert found is not None
    assert found.config is config
    assert dict(found.servers) == {"plain": SERVERS["plain"], "socket": SERVERS["socket"]}
    assert found.mirror == (SERVERS["other"], 3)
    assert (found.inspect, found.sealed) == (False, True)
    assert found.affinity == config.affinity
    assert found.selection.get("plain") is SERVERS["plain"]
    assert repr(found) == "CompiledRoute('r' -> plain, socket)"


def test_passthrough_sessions_are_not_sealed() -> None:
    """Only a route can ask for that."""
    found = compiled(route("r", sessions="passthrough")).match(request())
    assert found is not None
    assert not found.sealed
    assert found.affinity is None


def test_a_consistent_hash_without_affinity_goes_by_the_client_address() -> None:
    """Else it would have nothing to hash."""
    found = compiled(route("r", servers=["plain", "other"], strategy="consistent_hash")).match(request())
    assert found is not None
    assert found.affinity is not None
    assert found.affinity.by == "client_address"


# --- cost -----------------------------------------------------------------------------------------------------------

MIXED = [
    (lambda number: {"tool": f"t{number}"}, lambda number: {"message": call(f"t{number}")}),
    (lambda number: {"tool": f"s_{number}_*"}, lambda number: {"message": call(f"s_{number}_x")}),
    (lambda number: {"header": {"X-E": f"v{number}"}}, lambda number: {"fields": {"x-e": f"v{number}"}}),
    (lambda number: {"host": f"h{number}"}, lambda number: {"host": f"h{number}"}),
    (lambda number: {"client_ip": f"10.{number}.1.0/24"}, lambda number: {"client_ip": f"10.{number}.1.9"}),
]


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def mixed(number: int) -> dict[str, Any]:
    """Five kinds of conditions in turns; the address needs a byte, so those repeat and the first one wins."""
    return {"when": MIXED[number % 5][0](number % 256 if number % 5 == 4 else number)}


SHAPES: dict[str, tuple[Callable[[int], dict[str, Any]], Callable[[int], dict[str, Any]]]] = {
    "exact paths": (lambda n: {"path": f"/t{n}/x"}, lambda n: {"path": f"/t{n}/x"}),
    "wildcard paths": (lambda n: {"path": f"/team-{n}/*"}, lambda n: {"path": f"/team-{n}/mcp"}),
    "tools": (lambda n: {"when": {"tool": f"t{n}"}}, lambda n: {"message": call(f"t{n}")}),
    "tool prefixes": (lambda n: {"when": {"tool": f"search_{n}_*"}}, lambda n: {"message": call(f"search_{n}_x")}),
    "tool suffixes": (lambda n: {"when": {"tool": f"*_in_{n}"}}, lambda n: {"message": call(f"search_in_{n}")}),
    "methods": (lambda n: {"when": {"method": f"m/{n}"}}, lambda n: {"message": message(f"m/{n}", "", "")}),
    "hosts": (lambda n: {"when": {"host": f"h{n}"}}, lambda n: {"host": f"h{n}"}),
    "header values": (lambda n: {"when": {"header": {"X-E": f"{n}"}}}, lambda n: {"fields": {"x-e": f"{n}"}}),
    "addresses": (lambda n: {"when": {"client_ip": address(n)}}, lambda n: {"client_ip": address(n)}),
    "networks": (
        lambda n: {"when": {"client_ip": address(n * 256) + "/24"}},
        lambda n: {"client_ip": address(n * 256 + 7)},
    ),
    "tools of a method and a host": (
        lambda n: {"when": {"method": "tools/call", "host": f"h{n % 3}", "tool": f"t{n}"}},
        lambda n: {"message": call(f"t{n}"), "host": f"h{n % 3}"},
    ),
    "tenants": (lambda n: {"when": {"tenant": f"t{n}"}}, lambda n: asked_by(f"t{n}")),
    "keys": (lambda n: {"when": {"key": f"{n:012d}"}}, lambda n: asked_by("acme", f"{n:012d}")),
    "a tenant's keys": (
        lambda n: {"when": {"tenant": f"t{n % 7}", "key": f"{n:012d}"}},
        lambda n: asked_by(f"t{n % 7}", f"{n:012d}"),
    ),
    "tenants with a scope and a tier": (
        lambda n: {"when": {"tenant": f"t{n}", "scope": "read", "tier": ["user", "admin"]}},
        lambda n: asked_by(f"t{n}", scopes=[Scope.READ]),
    ),
    "a tenant's tools": (
        lambda n: {"when": {"tenant": f"t{n % 3}", "tool": f"s_{n}_*"}},
        lambda n: {**asked_by(f"t{n % 3}"), "message": call(f"s_{n}_x")},
    ),
    "a mix": (mixed, lambda n: MIXED[n % 5][1](n % 256 if n % 5 == 4 else n)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_thousand_routes_cost_what_ten_do(shape: str) -> None:
    """For each way to tell routes apart; the first, the last, and no match at all."""
    written, asked = SHAPES[shape]
    few, many = (compiled(*(route(f"r{number}", **written(number)) for number in range(size))) for size in (10, 10_000))
    assert name_of(few.match(request(**asked(7)))) == "r7"
    assert name_of(many.match(request(**asked(9996)))) is not None
    numbers = [0, 1, 2, 3, 4, 5, 777, 4999, 9995, 9996, 9997, 9998, 9999, 77_777]
    limit = 1.05 * max(bytecodes(partial(few.match, request(**asked(number)))) for number in [*range(10), 77_777])
    assert all(bytecodes(partial(many.match, request(**asked(number)))) <= limit for number in numbers)


def test_what_cannot_be_told_apart_is_asked_one_by_one() -> None:
    """The measure sees a walk where there is one: globs without an end of their own."""
    few, many = (
        compiled(*(route(f"r{number}", when={"tool": f"*_{number}_*"}) for number in range(size))) for size in (10, 100)
    )
    asked = request(message=call("nothing"))
    assert bytecodes(partial(many.match, asked)) > 5 * bytecodes(partial(few.match, asked))
