"""Identity end to end: every kind of credential, every limit, rule and condition, through a proxy with PostgreSQL."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.config.keyfile import load_or_create
from proxy.identity.keys import mint
from proxy.store.registry_file import RegistryFile
from tests.harness import CALL, PATIENCE_S, ProxyProcess, Wire, post, running_proxy
from tests.integration.blocking import Client, connected
from tests.integration.identified import (
    INITIALIZE,
    LIST,
    LISTED,
    RING,
    TOOLS,
    Identified,
    Key,
    api_key,
    ask,
    bearer,
    call,
    command,
    cookie,
    identified,
    later,
    signed,
    stream_of,
    streaming,
)
from tests.integration.talk import Answered, get
from tests.integration.test_websocket import HANDSHAKE, SWITCH


@pytest.fixture(scope="module")
def world() -> Iterator[Identified]:
    """One proxy for all tests; each makes the rows it needs."""
    with identified() as world:
        yield world
        assert world.proxy.stderr() == ""


MARKS: Final = itertools.count()


def line_of(world: Identified, request: bytes) -> dict[str, Any]:
    """The line of the access log for a request: lines come late, but in order."""
    mark = f"/mark-{next(MARKS)}"
    world.ask(get(mark))
    world.proxy.wait_for(lambda line: line.get("path") == mark)
    seen = len(world.proxy.lines)
    world.ask(request)
    return world.proxy.wait_for(lambda line: line.get("event") == "request", start=seen)


def tools(answer: Answered) -> list[str]:
    """Names in a list."""
    return [tool["name"] for tool in json.loads(answer.body)["result"]["tools"]]


# --- who asks --------------------------------------------------------------------------------------------------------


def test_every_kind_of_credential_is_somebody(world: Identified) -> None:
    """The log says who, of which tenant, by which row, and shows no secret."""
    user = world.user("acme")
    key = world.key("acme", user_id=user)
    legacy, token = world.legacy("acme", "legacy-of-all"), world.token("acme", "token-of-all")
    session = world.session(user, "session-of-all")
    world.settle()
    expected = {
        api_key(key.text): (f"key:{key.id}", key.id),
        bearer(key.text): (f"key:{key.id}", key.id),
        bearer("legacy-of-all"): (f"legacy:{legacy}", legacy),
        api_key("legacy-of-all"): (f"legacy:{legacy}", legacy),
        bearer("token-of-all"): (f"token:{token}", token),
        api_key("token-of-all"): (f"token:{token}", token),
        bearer("session-of-all"): (f"user:{user}", session),
        bearer(signed("session-of-all")): (f"user:{user}", session),
        cookie("session-of-all"): (f"user:{user}", session),
        cookie("session-of-all").replace("better-auth", "__Secure-better-auth"): (f"user:{user}", session),
    }
    for field, (principal, row) in expected.items():
        line = line_of(world, post("/acme/mcp", CALL, field))
        assert (line["status"], line["tenant"], line["principal"], line["key_id"]) == (200, "acme", principal, row)
        assert (line["server"], line["impersonator"]) == ("acme/acme", None)
        assert field.split()[-1] not in json.dumps(line)


def test_an_administrator_who_acts_as_a_user_is_named(world: Identified) -> None:
    """The scopes are the user's; the sign-in ends with the administrator's account, too."""
    admin, viewer = world.user("globex", role="admin"), world.user("acme", role="viewer")
    world.session(viewer, "acting", impersonated_by=admin)
    world.settle()
    line = line_of(world, post("/acme/mcp", LIST, bearer("acting")))
    assert (line["status"], line["principal"], line["impersonator"]) == (200, f"user:{viewer}", admin)
    assert line["tenant"] == "acme"
    refused = line_of(world, post("/acme/mcp", CALL, bearer("acting")))
    assert (refused["status"], refused["impersonator"]) == (403, admin)
    assert world.call("globex", bearer("acting"), body=LIST).status == 404
    world.sql('UPDATE "user" SET banned = true WHERE id = $1', admin)
    world.settle()
    assert world.call("acme", bearer("acting"), body=LIST).status == 401


ROLES: Final = [
    ("admin", (200, 200)), ("user", (200, 200)), ("viewer", (200, 403)), ("viewer,user", (200, 200)),
    ("viewer, nobody", (200, 403)), ("nobody", (403, 403)), (None, (200, 200)), ("", (200, 200)),
]  # fmt: skip


def test_a_role_has_its_scopes(world: Identified) -> None:
    """Several add up; one that is not configured has none; users from before there were roles are users."""
    for number, (role, _) in enumerate(ROLES):
        world.session(world.user("acme", role=role), f"in-a-role-{number}")
    world.settle()
    for number, (role, statuses) in enumerate(ROLES):
        field = bearer(f"in-a-role-{number}")
        got = tuple(world.call("acme", field, body=body).status for body in (LIST, CALL))
        assert (role, got) == (role, statuses)


def test_each_tenant_has_its_own_server_of_a_name(world: Identified) -> None:
    """And both have the shared ones."""
    keys = {slug: world.key(slug) for slug in ("acme", "globex")}
    world.settle()
    for slug, key in keys.items():
        for server, upstream in (("tools", f"{slug}-tools"), (slug, slug), ("shared", "shared"), ("common", "common")):
            seen = len(world.upstreams[upstream].seen)
            assert world.call(server, api_key(key.text)).status == 200
            assert len(world.upstreams[upstream].seen) == seen + 1


def test_each_request_of_a_connection_shows_its_own_credential(world: Identified) -> None:
    """Who came before on the same connection lends nobody anything, pipelined or one by one."""
    acme, globex = world.key("acme"), world.key("globex")
    world.settle()
    asked = [(api_key(acme.text),), (), (api_key(globex.text),), (bearer("nothing"),), (api_key(acme.text),)]
    requests = [post("/acme/mcp", CALL, *fields) for fields in asked]
    with connected(world.proxy) as client:
        client.send(b"".join(requests))
        assert [client.answer()[0] for _ in asked] == [200, 401, 404, 401, 200]
        for request, status in zip(requests, (200, 401, 404, 401, 200), strict=True):
            client.send(request)
            assert client.answer()[0] == status


# --- limits of a key -------------------------------------------------------------------------------------------------


def test_each_limit_of_a_key_holds_alone_and_together(world: Identified) -> None:
    """What it permits passes, all else is refused."""
    limits: dict[str, list[str]] = {
        "allowed_servers": ["acme", "sha*"],
        "allowed_tools": ["open*"],
        "allowed_ips": ["127.0.0.0/8"],
        "allowed_origins": ["http://localhost"],
    }
    wrong: dict[str, list[str]] = {
        "allowed_servers": ["other"],
        "allowed_tools": ["other"],
        "allowed_ips": ["10.0.0.0/8"],
        "allowed_origins": ["https://other.example"],
    }
    alone = [world.key("acme", **{name: limits[name]}) for name in limits]
    whole = world.key("acme", **limits)
    broken = [world.key("acme", **{**limits, name: wrong[name]}) for name in limits]
    world.settle()
    origin = "Origin: http://localhost"
    for key in (*alone, whole):
        assert world.call("acme", api_key(key.text), origin, body=call("open-file")).status == 200
        assert world.call("shared", api_key(key.text), origin, body=LIST).status == 200
    for key in broken:
        assert world.call("acme", api_key(key.text), origin, body=call("open-file")).status == 403
    assert world.call("tools", api_key(alone[0].text), body=LIST).status == 403
    assert world.call("acme", api_key(alone[1].text), body=call("secret")).status == 403
    assert world.call("acme", api_key(alone[3].text), body=LIST).status == 403


def test_limits_that_change_are_in_force_for_the_next_request(world: Identified) -> None:
    """Wider, narrower, and scopes, on one open connection."""
    key = world.key("acme")
    world.settle()
    with connected(world.proxy) as client:

        def status(body: bytes = CALL) -> int:
            client.send(post("/acme/mcp", body, api_key(key.text)))
            return client.answer()[0]

        assert status() == 200
        for column, value, expected in (
            ("allowed_tools", ["other"], 403), ("allowed_tools", ["echo"], 200), ("allowed_servers", ["other"], 403),
            ("allowed_servers", [], 200), ("scopes", ["proxy", "read"], 403), ("scopes", ["proxy", "write"], 200),
        ):  # fmt: skip
            world.sql(f"UPDATE enhanced_api_keys SET {column} = $2 WHERE id = $1", key.id, value)
            world.settle()
            assert (column, value, status()) == (column, value, expected)


# --- sessions --------------------------------------------------------------------------------------------------------


def begun(world: Identified, server: str, *fields: str) -> str:
    """The id of a new MCP session."""
    answer = world.call(server, *fields, body=INITIALIZE)
    assert answer.status == 200
    return f"Mcp-Session-Id: {answer.fields['mcp-session-id']}"


def test_a_rotated_key_keeps_its_sessions(world: Identified) -> None:
    """During the overlap with either key, afterwards with the new one."""
    old = world.key("acme")
    world.settle()
    session = begun(world, "acme", api_key(old.text))
    new = world.key("acme", rotated_from=old.id)
    world.sql("UPDATE enhanced_api_keys SET expires_at = $2 WHERE id = $1", old.id, later(1.5))
    world.settle()
    for key in (old, new, old):
        assert world.call("acme", api_key(key.text), session, body=LIST).status == 200
    begun_with_new = begun(world, "acme", api_key(new.text))
    assert world.call("acme", api_key(old.text), begun_with_new, body=LIST).status == 200
    until = time.monotonic() + 3
    while world.call("acme", api_key(old.text), session, body=LIST).status != 401:
        assert time.monotonic() < until
    assert world.call("acme", api_key(new.text), session, body=LIST).status == 200
    assert {principal_of(world, new, session)} == {f"key:{old.id}"}


def principal_of(world: Identified, key: Key, session: str) -> str:
    return str(line_of(world, post("/acme/mcp", LIST, api_key(key.text), session))["principal"])


def test_a_rotation_by_command_does_the_same(world: Identified) -> None:
    """`keys rotate` as an operator uses it."""
    old = world.key("acme")
    world.settle()
    session = begun(world, "acme", api_key(old.text))
    done = command(world, "keys", "rotate", old.id, "--overlap", "1h")
    assert done.returncode == 0, done.stderr
    new = done.stdout.strip()
    world.settle()
    assert new.startswith("mcpm_") and new != old.text
    for text in (old.text, new):
        assert world.call("acme", bearer(text), session, body=LIST).status == 200
    assert command(world, "keys", "revoke", new).returncode == 0
    world.settle()
    assert [world.call("acme", bearer(text), session, body=LIST).status for text in (old.text, new)] == [200, 401]


def test_a_session_is_its_principals_alone(world: Identified) -> None:
    """Everyone else gets the 404 of a session that is none; a user is the same in every sign-in."""
    user = world.user("acme")
    key, other = world.key("acme"), world.key("acme")
    for text in ("first sign-in", "second sign-in"):
        world.session(user, text.replace(" ", "-"))
    world.session(world.user("acme"), "another-user")
    world.settle()
    of_key, of_user = begun(world, "acme", api_key(key.text)), begun(world, "acme", cookie("first-sign-in"))
    cases = [
        (of_key, bearer(key.text), 200), (of_key, api_key(other.text), 404), (of_key, bearer("first-sign-in"), 404),
        (of_user, bearer("second-sign-in"), 200), (of_user, cookie("first-sign-in"), 200),
        (of_user, bearer("another-user"), 404), (of_user, api_key(key.text), 404),
    ]  # fmt: skip
    seen = len(world.seen())
    for session, field, status in cases:
        assert world.call("acme", field, session, body=LIST).status == status
        if status == 404:
            assert world.ask(get("/acme/mcp", field, session, method="DELETE")).status == 404
            assert world.ask(stream_of("/acme/mcp", field, session)).status == 404
    assert len(world.seen()) == seen + 3


# --- rules of access -------------------------------------------------------------------------------------------------


class Ruled:
    """A tenant of its own, so that its rules concern no other test."""

    def __init__(self, world: Identified, slug: str) -> None:
        self.world = world
        self.slug = slug
        world.tenant(slug)
        url = world.upstreams["acme"].url
        self.server = world.server(slug, "one", url)
        world.server(slug, "two", url)
        self.user = world.user(slug, role="viewer,user")
        self.key, self.other = world.key(slug, user_id=self.user), world.key(slug)
        world.settle()

    def statuses(self, key: Key | None = None, server: str = "one") -> tuple[int, int, int]:
        """Of a list, of a call of `open`, and of a call of `secret`."""
        field = api_key((key or self.key).text)
        bodies = (LIST, call("open"), call("secret"))
        first, second, third = (self.world.call(server, field, body=body).status for body in bodies)
        return first, second, third

    def rule(self, effect: str, **columns: Any) -> str:
        """A rule for server `one`, in force when this returns."""
        row = self.world.rule(self.slug, effect, columns.pop("server", self.server), **columns)
        self.world.settle()
        return row

    def clear(self) -> None:
        self.world.sql("DELETE FROM server_access_control WHERE tenant_id = $1", self.world.tenants[self.slug])
        self.world.settle()


ALL, NONE = (200, 200, 200), (403, 403, 403)


def test_rules_deny_and_allow(world: Identified) -> None:
    """Denied to one, closed by an allowance, limited to tools; the higher priority counts, and of equals the denial."""
    ruled = Ruled(world, "ruled")
    key, other = ruled.key, ruled.other
    assert ruled.statuses() == ruled.statuses(other) == ALL
    cases: list[tuple[list[tuple[str, dict[str, Any]]], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
        ([("deny", {})], NONE, NONE, ALL),
        ([("deny", {"server": None})], NONE, NONE, NONE),
        ([("deny", {"is_enabled": False})], ALL, ALL, ALL),
        ([("deny", {"subject_type": "api_key", "subject_id": key.id})], NONE, ALL, ALL),
        ([("deny", {"subject_type": "user", "subject_id": ruled.user})], NONE, ALL, ALL),
        ([("deny", {"subject_type": "role", "subject_id": "viewer"})], NONE, ALL, ALL),
        ([("deny", {"subject_type": "anonymous"})], ALL, ALL, ALL),
        ([("deny", {"tools": ["secret"]})], (200, 200, 403), (200, 200, 403), ALL),
        ([("allow", {"subject_type": "api_key", "subject_id": key.id})], ALL, NONE, ALL),
        ([("allow", {"tools": ["open*"]})], (200, 200, 403), (200, 200, 403), ALL),
        ([("allow", {}), ("deny", {})], NONE, NONE, ALL),
        ([("allow", {"priority": 1}), ("deny", {})], ALL, ALL, ALL),
        ([("deny", {"priority": 1, "tools": ["sec*"]}), ("allow", {})], (200, 200, 403), (200, 200, 403), ALL),
    ]  # fmt: skip
    for rules, mine, others, elsewhere in cases:
        for effect, columns in rules:
            ruled.rule(effect, **columns)
        got = ruled.statuses(), ruled.statuses(other), ruled.statuses(server="two")
        assert (rules, got) == (rules, (mine, others, elsewhere))
        ruled.clear()


def test_rules_hold_for_a_time(world: Identified) -> None:
    """From and until a moment, at hours of the day in a zone, on days of the week."""
    ruled = Ruled(world, "timed")
    zones = {"Asia/Kolkata": timedelta(hours=5, minutes=30), "America/Caracas": timedelta(hours=-4)}  # all year
    local = {name: datetime.now(UTC) + offset for name, offset in zones.items()}
    zone, here = next((name, now) for name, now in local.items() if 2 <= now.hour < 21)  # far from midnight
    today, hour = here.isoweekday(), timedelta(hours=1)
    around = {"daily_from": f"{here - hour:%H:%M}", "daily_until": f"{here + hour:%H:%M}", "time_zone": zone}
    away = {**around, "daily_from": around["daily_until"], "daily_until": f"{here + 2 * hour:%H:%M}"}
    cases: list[tuple[dict[str, Any], tuple[int, ...]]] = [
        ({"valid_from": later(-60)}, NONE),
        ({"valid_from": later(60)}, ALL),
        ({"valid_until": later(60)}, NONE),
        ({"valid_until": later(-60)}, ALL),
        (around, NONE),
        (away, ALL),
        ({"days_of_week": [today], "time_zone": zone}, NONE),
        ({"days_of_week": [today % 7 + 1], "time_zone": zone}, ALL),
        ({**around, "days_of_week": [today]}, NONE),
        ({"daily_from": "00:00", "daily_until": "23:59", "time_zone": "Nowhere/At_All"}, NONE),
    ]
    for columns, expected in cases:
        ruled.rule("deny", **columns)
        assert (columns, ruled.statuses()) == (columns, expected)
        ruled.clear()
    until = time.monotonic() + 4
    ruled.rule("allow", valid_until=later(4))
    assert ruled.statuses() == ALL
    time.sleep(until + 0.1 - time.monotonic())
    assert ruled.statuses() == NONE  # a rule that allowed closes the server when its time is over


def test_rules_of_the_system_tenant_are_for_everyone(world: Identified) -> None:
    """On the shared servers, and, without a server, on all of all tenants."""
    ruled = Ruled(world, "governed")
    common = world.sql("SELECT id FROM mcp_servers WHERE name = 'common'")[0]["id"]
    for server, expected in ((common, (NONE, ALL)), (None, (NONE, NONE))):
        row = world.rule("system", "deny", server, subject_type="user", subject_id=ruled.user)
        world.settle()
        assert (ruled.statuses(server="common"), ruled.statuses()) == expected
        assert ruled.statuses(ruled.other, "common") == ALL
        world.sql("DELETE FROM server_access_control WHERE id = $1::uuid", row)
        world.settle()
    assert ruled.statuses(server="common") == ALL


# --- routes ----------------------------------------------------------------------------------------------------------


def test_routes_ask_who_the_client_is(world: Identified) -> None:
    """By tenant, scope, key and tier; whoever satisfies none finds nothing."""
    keys = {
        "acme": world.key("acme"),
        "globex": world.key("globex"),
        "reader": world.key("globex", scopes=["proxy", "read"]),
        "admin": world.key("globex", tier="admin"),
    }
    conditions: list[tuple[dict[str, Any], list[str]]] = [
        ({"tenant": "acme"}, ["acme"]),
        ({"tenant": ["acme", "globex"]}, list(keys)),
        ({"tenant": "initech"}, []),
        ({"scope": "write"}, ["acme", "globex", "admin"]),
        ({"scope": ["admin", "read"]}, list(keys)),
        ({"key": keys["globex"].id}, ["globex"]),
        ({"tier": "admin"}, ["admin"]),
        ({"tier": ["user"], "scope": "write", "tenant": "globex"}, ["globex"]),
    ]
    for number, (when, _) in enumerate(conditions):
        world.route("system", f"/asked/{number}", ["common"], conditions=json.dumps(when))
    world.settle()
    for number, (when, welcome) in enumerate(conditions):
        answers = {name: world.ask(post(f"/asked/{number}", LIST, api_key(key.text))) for name, key in keys.items()}
        got = [name for name, answer in answers.items() if answer.status == 200]
        assert (when, got) == (when, welcome)


def test_conditions_of_the_configuration_file_hold_for_principals(world: Identified) -> None:
    """And give different tenants different servers on one path."""
    acme, globex = world.key("acme"), world.key("globex")
    world.settle()
    servers = {**world.config["servers"], "second": {"url": world.upstreams["globex"].url}}
    routes = [
        {"name": "for-acme", "path": "/both", "servers": "shared", "when": {"tenant": "acme"}},
        {"name": "for-others", "path": "/both", "servers": "second"},
    ]
    world.reload(servers=servers, routes=routes)
    for key, upstream in ((acme, "shared"), (globex, "globex")):
        seen = len(world.upstreams[upstream].seen)
        assert world.ask(post("/both", CALL, api_key(key.text))).status == 200
        assert len(world.upstreams[upstream].seen) == seen + 1
    world.reload()


def test_a_tenants_route_goes_before_a_shared_one(world: Identified) -> None:
    """On its own servers and on shared ones; other tenants do not notice."""
    acme, globex = world.key("acme"), world.key("globex")
    world.route("acme", "/shared/mcp", ["tools"])
    world.route("acme", "/mixed", ["tools", "common"], load_balancing_strategy="round_robin")
    world.settle()
    seen = {name: len(each.seen) for name, each in world.upstreams.items()}
    assert world.call("shared", api_key(acme.text)).status == 200
    assert world.call("shared", api_key(globex.text)).status == 200
    assert [world.ask(post("/mixed", CALL, api_key(acme.text))).status for _ in range(2)] == [200, 200]
    assert world.ask(post("/mixed", CALL, api_key(globex.text))).status == 404
    grown = {name: len(each.seen) - seen[name] for name, each in world.upstreams.items() if len(each.seen) > seen[name]}
    assert grown == {"acme-tools": 2, "shared": 1, "common": 1}
    world.sql("DELETE FROM routing_rules WHERE path = '/shared/mcp'")
    world.settle()


def test_a_server_that_is_denied_is_passed_over(world: Identified) -> None:
    """Of several behind one path; when all are denied, so is the request."""
    key = world.key("acme", allowed_servers=["tools"])
    none = world.key("acme", allowed_servers=["acm"])
    world.route("acme", "/pool", ["acme", "tools"])
    world.settle()
    seen = len(world.upstreams["acme-tools"].seen)
    assert [world.ask(post("/pool", CALL, api_key(key.text))).status for _ in range(4)] == [200] * 4
    assert len(world.upstreams["acme-tools"].seen) == seen + 4
    assert world.ask(post("/pool", CALL, api_key(none.text))).status == 403


def test_what_nobody_reads_takes_every_right(world: Identified) -> None:
    """On a route that inspects nothing a body may be anything: only who may do anything may send one."""
    allowed = {"a key": {}, "tools": {"allowed_tools": ["*"]}, "some tools": {"allowed_tools": ["open*"]},
               "a reader": {"scopes": ["proxy", "read"]}, "a server": {"allowed_servers": ["acme"]}}  # fmt: skip
    keys = {name: world.key("acme", **columns) for name, columns in allowed.items()}
    world.route("acme", "/raw", ["acme"], options='{"inspect": "none"}')
    world.settle()
    got = {name: world.ask(post("/raw", LIST, api_key(key.text))).status for name, key in keys.items()}
    assert got == {"a key": 200, "tools": 200, "some tools": 403, "a reader": 403, "a server": 200}


# --- lists -----------------------------------------------------------------------------------------------------------


def test_each_sees_the_tools_it_may_call(world: Identified) -> None:
    """In JSON, in events, and on the stream of legacy SSE; who may call none sees none."""
    port = world.upstreams["acme"].port
    world.server("acme", "legacy", f"http://127.0.0.1:{port}/sse", transport_type="sse")
    world.route("acme", "/filtered", ["acme"], options='{"filter_lists": true}')
    world.route("acme", "/filtered/sse", ["legacy"], options='{"filter_lists": true}')
    keys = {
        world.key("acme"): list(TOOLS),
        world.key("acme", allowed_tools=["open"]): ["open"],
        world.key("acme", allowed_tools=["open*"]): ["open", "open-file"],
        world.key("acme", allowed_tools=["nothing"]): [],
        world.key("acme", scopes=["proxy", "read"]): [],
    }
    ruled = world.key("acme", tier="user")
    world.rule("acme", "deny", subject_type="api_key", subject_id=ruled.id, tools=["secret"])
    world.settle()
    paged = LIST.replace(b"}", b',"params":{"cursor":"x"}}')
    for key, expected in {**keys, ruled: ["open", "open-file"]}.items():
        field = api_key(key.text)
        assert tools(world.ask(post("/filtered", LIST, field))) == expected
        events = (stream_of("/filtered", field), stream_of("/filtered/sse", field), post("/filtered", paged, field))
        for request in events:
            with streaming(world.proxy, request) as client:
                assert streamed_tools(client) == expected
        assert tools(world.call("acme", field, body=LIST)) == list(TOOLS)
        called = [tool for tool in TOOLS if world.call("acme", field, body=call(tool)).status == 200]
        assert called == expected


def streamed_tools(client: Client) -> list[str]:
    """Names in the first list of a stream."""
    while (begin := client.read.find(b'data: {"jsonrpc"')) < 0 or b"\n\n" not in client.read[begin:]:
        assert client.receive()
    line = client.read[begin + 6 :].partition(b"\n\n")[0]
    return [tool["name"] for tool in json.loads(line)["result"]["tools"]]


def test_what_a_list_does_not_show_is_refused_all_the_same(world: Identified) -> None:
    """A list is for the eye: the call is decided by itself, also after the rights have changed."""
    key = world.key("acme")
    world.settle()
    assert tools(world.call("acme", api_key(key.text), body=LIST)) == list(TOOLS)
    world.sql("UPDATE enhanced_api_keys SET allowed_tools = '{open}' WHERE id = $1", key.id)
    world.settle()
    assert world.call("acme", api_key(key.text), body=call("secret")).status == 403
    assert world.call("acme", api_key(key.text), body=LIST).body == LISTED


# --- streams and tunnels ---------------------------------------------------------------------------------------------


def test_an_open_stream_ends_with_its_credential(world: Identified) -> None:
    """Within five seconds, by reset; those of others go on."""
    key, other = world.key("acme"), world.key("acme")
    world.settle()
    with (
        streaming(world.proxy, stream_of("/acme/mcp", api_key(key.text))) as lost,
        streaming(world.proxy, stream_of("/acme/mcp", api_key(other.text))) as kept,
    ):
        world.sql("UPDATE enhanced_api_keys SET revoked_at = now() WHERE id = $1", key.id)
        began = time.monotonic()
        lost.rest()
        assert time.monotonic() - began < 5
        kept.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while kept.receive():
                pass


LESS: Final = [
    "UPDATE \"user\" SET tenant_id = (SELECT id FROM tenants WHERE slug = 'globex') WHERE id = $1",
    "UPDATE \"user\" SET role = 'viewer' WHERE id = $1",
    "UPDATE enhanced_api_keys SET allowed_servers = '{other}' WHERE user_id = $1",
]


@pytest.mark.parametrize("statement", LESS, ids=["another tenant", "another role", "other servers"])
def test_an_open_stream_ends_when_its_client_becomes_another(world: Identified, statement: str) -> None:
    """What it was let in for is no longer what it may do."""
    user = world.user("acme")
    token = f"sign-in-of-{user}"
    world.session(user, token)
    key = world.key("acme", user_id=user)
    world.settle()
    field = api_key(key.text) if "api_keys" in statement else bearer(token)
    with streaming(world.proxy, stream_of("/acme/mcp", field)) as client:
        world.sql(statement, user)
        began = time.monotonic()
        client.rest()
        assert time.monotonic() - began < 5


async def switch(wire: Wire) -> None:
    """A WebSocket server that says nothing."""
    if await wire.request():
        await wire.send(SWITCH)
        await wire.reader.read()


def test_a_websocket_needs_a_credential_and_ends_with_it(world: Identified) -> None:
    """The handshake is asked for one; nobody can look into frames, so scope write is needed."""
    upstream = world.upstreams["globex-tools"]
    url = f"ws://127.0.0.1:{upstream.port}/ws"
    world.server("globex", "live", url, transport_type="websocket")
    key, reader = world.key("globex"), world.key("globex", scopes=["proxy", "read"])
    world.settle()
    script, upstream.script = upstream.script, switch
    try:
        assert world.ask(get("/live/mcp", *HANDSHAKE)).status == 401
        assert world.ask(get("/live/mcp", *HANDSHAKE, api_key(reader.text))).status == 403
        with connected(world.proxy) as client:
            client.send(get("/live/mcp", *HANDSHAKE, bearer(key.text)))
            while b"\r\n\r\n" not in client.read:
                assert client.receive()
            assert client.read.startswith(b"HTTP/1.1 101 ")
            assert key.text.encode() not in b"".join(upstream.seen)
            world.sql("UPDATE tenants SET status = 'suspended' WHERE slug = 'globex'")
            began = time.monotonic()
            client.rest()
            assert time.monotonic() - began < 5
    finally:
        upstream.script = script
        world.sql("UPDATE tenants SET status = 'active' WHERE slug = 'globex'")
        world.settle()


# --- without PostgreSQL ----------------------------------------------------------------------------------------------


def _copied(world: Identified, key: Key) -> None:
    """Wait until the copy of the registry has this key."""
    state = Path(world.config["state_dir"])
    file = RegistryFile(state / "registry", load_or_create(state / "registry.key"))
    until = time.monotonic() + PATIENCE_S
    while key.id not in (file.read() or {}).get("enhanced_api_keys", {}):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_who_is_known_is_served_without_postgresql(world: Identified) -> None:
    """By a proxy that runs and by one that starts from its copy; who may be new is asked to come back."""
    user = world.user("acme")
    key, brief = world.key("acme"), world.key("acme", expires_at=later(20))
    world.session(user, "known-sign-in")
    world.settle()
    _copied(world, key)
    session = begun(world, "acme", api_key(key.text))
    unknown = [api_key(mint(RING).text), bearer("new-token"), cookie("new-sign-in")]
    wrong = [api_key(key.text[:-1]), bearer(f"{key.text}x"), f"Cookie: better-auth.session_token={signed('a', 'b')}"]
    with world.away(), running_proxy(world.config) as fresh:
        until = time.monotonic() + 60
        while world.call("acme", unknown[0]).status != 503:
            assert time.monotonic() < until
        for proxy in (world.proxy, fresh):
            for field in (api_key(key.text), bearer(brief.text), cookie("known-sign-in")):
                assert ask(proxy, post("/acme/mcp", CALL, field)).status == 200
            assert ask(proxy, post("/acme/mcp", LIST, api_key(key.text), session)).status == 200
            assert ask(proxy, post("/globex/mcp", CALL, api_key(key.text))).status == 404
            answers = [ask(proxy, post("/acme/mcp", CALL, field)) for field in unknown]
            assert [answer.status for answer in answers] == [503] * 3
            for answer in answers:
                answer.fields.pop("x-request-id")  # each has a name of its own
            assert len({(answer.body, str(answer.fields)) for answer in answers}) == 1
            assert answers[0].fields["retry-after"].isdigit()
            assert ask(proxy, post("/acme/mcp", CALL)).status == 401
            assert [ask(proxy, post("/acme/mcp", CALL, field)).status for field in wrong] == [401] * 3
        while ask(fresh, post("/acme/mcp", CALL, api_key(brief.text))).status == 200:  # ends as always
            assert time.monotonic() < until
            time.sleep(0.1)
        assert ask(fresh, post("/acme/mcp", CALL, api_key(brief.text))).status == 401
    assert world.call("acme", unknown[0]).status == 401


# --- without credentials ---------------------------------------------------------------------------------------------


def open_proxy(world: Identified, **sections: Any) -> dict[str, Any]:
    """The same configuration with another section `auth`."""
    auth = {name: value for name, value in world.config["auth"].items() if name != "anonymous"}
    return {**world.config, "auth": auth, **sections}


def test_clients_of_this_machine_need_no_credential(world: Identified) -> None:
    """On loopback they may use what is shared and nothing of a tenant; a credential that is shown must be good."""
    key = world.key("acme")
    world.settle()
    with running_proxy(open_proxy(world)) as proxy:
        assert ask(proxy, post("/shared/mcp", CALL)).status == 200
        assert ask(proxy, post("/common/mcp", CALL)).status == 200
        for path in ("/acme/mcp", "/tools/mcp", "/nope/mcp"):
            assert ask(proxy, post(path, CALL)).status == 404
        assert ask(proxy, post("/acme/mcp", CALL, api_key(key.text))).status == 200
        assert ask(proxy, post("/shared/mcp", CALL, api_key(mint(RING).text))).status == 401
        assert ask(proxy, post("/shared/mcp", CALL, bearer("nothing-of-ours"))).status == 401
        session = ask(proxy, post("/shared/mcp", INITIALIZE)).fields["mcp-session-id"]
        assert ask(proxy, post("/shared/mcp", LIST, f"Mcp-Session-Id: {session}", api_key(key.text))).status == 404
        assert ask(proxy, post("/shared/mcp", LIST, f"Mcp-Session-Id: {session}")).status == 200
        rule = world.rule("system", "deny", subject_type="anonymous")
        world.settle()
        becomes(proxy, post("/shared/mcp", CALL), 403)
        assert ask(proxy, post("/shared/mcp", CALL, api_key(key.text))).status == 200
        world.sql("DELETE FROM server_access_control WHERE id = $1::uuid", rule)


def becomes(proxy: ProxyProcess, request: bytes, status: int) -> None:
    """Fail unless the answer becomes this one."""
    until = time.monotonic() + PATIENCE_S
    while ask(proxy, request).status != status:
        assert time.monotonic() < until


@pytest.mark.parametrize("sections", [
    {"auth": {"anonymous": False}},
    {"listen": {"trusted_proxies": ["127.0.0.1"]}},
    {"listen": {"host": "0.0.0.0", "allowed_hosts": ["127.0.0.1"]}},
], ids=["configured", "behind a proxy", "on every address"])  # fmt: skip
def test_elsewhere_everyone_needs_one(world: Identified, sections: dict[str, Any]) -> None:
    """Where it is configured, and by default wherever the client need not be on this machine."""
    auth = {**open_proxy(world)["auth"], **sections.get("auth", {})}
    with running_proxy({**open_proxy(world), **sections, "auth": auth}) as proxy:
        for path in ("/shared/mcp", "/nope/mcp"):
            answer = ask(proxy, post(path, CALL))
            assert (answer.status, answer.reason) == (401, "unauthorized")
            assert answer.fields["www-authenticate"] == 'Bearer realm="mcp"'


def test_a_reload_can_close_the_door(world: Identified) -> None:
    """Anonymous clients are refused from the next request on, and lose their streams."""
    with running_proxy(open_proxy(world)) as proxy, streaming(proxy, stream_of("/shared/mcp")) as client:
        assert ask(proxy, post("/shared/mcp", CALL)).status == 200
        assert proxy.reload(world.config)["event"] == "configuration in force"
        assert ask(proxy, post("/shared/mcp", CALL)).status == 401
        began = time.monotonic()
        client.rest()
        assert time.monotonic() - began < 5
