"""Hostile credentials over raw sockets: one status, one body and one set of header fields, and nothing at an upstream.

Rows A are about credentials, rows U about servers: `docs/identity.md` states what each must get.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from zlib import crc32

import pytest

from proxy.identity.keys import PREFIX, PepperRing, mint
from tests.harness import CALL, RawClient, post, scripted_upstream
from tests.inprocess import running_app
from tests.integration.blocking import connected
from tests.integration.identified import (
    EVERY_SCOPE,
    INITIALIZE,
    LIST,
    PEPPER,
    RING,
    SHARED,
    Identified,
    Key,
    api_key,
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
from tests.integration.talk import Answered, ask, get, values
from tests.integration.test_websocket import HANDSHAKE
from tests.unit.store.engine import execute, folder, login_dsn, migrated_database, owner_dsn

#: What every answer of one status must be, but for the id of the message where it was read.
UNAUTHORIZED: Final = (
    {"content-type": "application/json", "cache-control": "no-store", "www-authenticate": 'Bearer realm="mcp"',
     "content-length": "124"},
    b'{"jsonrpc":"2.0","error":{"code":401,"message":"Authentication required",'
    b'"data":{"source":"proxy","reason":"unauthorized"}}}',
)  # fmt: skip
FORBIDDEN: Final = (
    {"content-type": "application/json", "cache-control": "no-store"},
    b'{"jsonrpc":"2.0","error":{"code":403,"message":"Not allowed","data":{"source":"proxy","reason":"forbidden"}}}',
)
NOT_FOUND: Final = (
    {"content-type": "application/json", "cache-control": "no-store"},
    b'{"jsonrpc":"2.0","error":{"code":404,"message":"Not found","data":{"source":"proxy","reason":"no_route"}}}',
)
BAD_REQUEST: Final = (
    {"content-type": "application/json", "cache-control": "no-store", "connection": "close"},
    b'{"jsonrpc":"2.0","error":{"code":400,"message":"Bad request","data":{"source":"proxy","reason":"bad_request"}}}',
)
EXPECTED: Final = {400: BAD_REQUEST, 401: UNAUTHORIZED, 403: FORBIDDEN, 404: NOT_FOUND}
LEGACY, TOKEN, SESSION = "sk-legacy-of-acme", "token-of-acme", "s" * 32


class Cast:
    """The proxy, and who asks it."""

    def __init__(self, world: Identified) -> None:
        self.world = world
        self.user = world.user("acme")
        self.good = world.key("acme")
        self.other = world.key("acme")
        world.legacy("acme", LEGACY)
        world.token("acme", TOKEN)
        world.session(self.user, SESSION)
        world.settle()

    def refused(self, request: bytes, status: int) -> None:
        """Exactly the answer of this status, and nobody behind the proxy was asked."""
        world = self.world
        before = len(world.seen()), world.connections()
        answer = world.ask(request)
        assert_exact(answer, status)
        assert (len(world.seen()), world.connections()) == before


def assert_exact(answer: Answered, status: int) -> None:
    """Nothing tells one refusal of a status from another."""
    fields, body = EXPECTED[status]
    plain = answer.body.replace(b'"id":1,', b"")
    assert (answer.status, plain) == (status, body)
    answer.fields.pop("x-request-id", None)  # each has a name of its own; what is no request has none
    assert {**answer.fields, "content-length": ""} == {**fields, "content-length": ""}
    assert answer.fields["content-length"] == str(len(answer.body))


@pytest.fixture(scope="module")
def cast() -> Iterator[Cast]:
    """One proxy for all cases; heads up to 16 KiB, so that long credentials are read at all."""
    listen = {"limits": {"header_line": "16KiB"}, "public_url": "https://mcp.example.com"}
    with identified(listen=listen) as world:
        cast = Cast(world)
        yield cast
        assert world.call("acme", api_key(cast.good.text)).status == 200
        assert world.proxy.stderr() == ""


def changed(text: str, at: int) -> str:
    """A key with one wrong letter, and the checksum that belongs to it."""
    body = text.rpartition("_")[0]
    letter = "x" if body[at] != "x" else "y"
    body = body[:at] + letter + (body[at + 1 :] if at != -1 else "")
    return f"{body}_{crc32(body.encode()):08x}"


# --- A1, A2: no credential, and wrong ones ---------------------------------------------------------------------------

Fields = Callable[[Cast], tuple[str, ...]]
SECRET_AT: Final = len(PREFIX) + 12 + 1

WRONG: Final[list[tuple[str, Fields]]] = [
    ("nothing at all", lambda cast: ()),
    ("a wrong prefix", lambda cast: (api_key(cast.good.text.replace("mcpm_", "mcpx_")),)),
    ("a prefix in capitals", lambda cast: (api_key(cast.good.text.replace("mcpm_", "MCPM_")),)),
    ("a wrong checksum", lambda cast: (api_key(cast.good.text[:-8] + "00000000"),)),
    ("a checksum in capitals", lambda cast: (api_key(cast.good.text[:-8] + "ABCDEF01"),)),
    ("without its end", lambda cast: (api_key(cast.good.text[:-1]),)),
    ("with more at its end", lambda cast: (api_key(cast.good.text + "0"),)),
    ("the prefix alone", lambda cast: (api_key("mcpm_"),)),
    ("10 KiB of key", lambda cast: (api_key("mcpm_" + "a" * 10_240),)),
    ("257 characters", lambda cast: (bearer("a" * 257),)),
    ("a key nobody has", lambda cast: (bearer(mint(RING).text),)),
    ("a key of another pepper", lambda cast: (bearer(mint(PepperRing({1: b"x" * 16})).text),)),
    ("the first letter of the secret", lambda cast: (api_key(changed(cast.good.text, SECRET_AT)),)),
    ("the last letter of the secret", lambda cast: (api_key(changed(cast.good.text, -1)),)),
    ("the secret of another key", lambda cast: (api_key(swapped(cast.good, cast.other)),)),
    ("an id alone", lambda cast: (api_key(cast.good.id),)),
    ("a legacy key with a letter more", lambda cast: (bearer(LEGACY + "x"),)),
    ("a token in capitals", lambda cast: (bearer(TOKEN.upper()),)),
    ("a session that is none", lambda cast: (bearer("t" * 32),)),
    ("a session in the field of keys", lambda cast: (api_key(SESSION),)),
    ("a signed session in the field of keys", lambda cast: (api_key(signed(SESSION)),)),
    ("a session signed by somebody else", lambda cast: (f"Cookie: better-auth.session_token={signed(SESSION, 'x')}",)),
    ("an unsigned session in a cookie", lambda cast: (f"Cookie: better-auth.session_token={SESSION}",)),
    ("a cookie of a session that is none", lambda cast: (cookie("t" * 32),)),
    ("a key in a cookie", lambda cast: (f"Cookie: better-auth.session_token={cast.good.text}",)),
    ("a cookie of another prefix", lambda cast: (f"Cookie: other.session_token={signed(SESSION)}",)),
    ("a key without a scheme", lambda cast: (f"Authorization: {cast.good.text}",)),
    ("a key in Basic", lambda cast: (f"Authorization: Basic {cast.good.text}",)),
    ("another scheme", lambda cast: ("Authorization: Basic YTpi",)),
    ("Bearer and nothing", lambda cast: ("Authorization: Bearer",)),
    ("an empty key", lambda cast: ("X-API-Key:",)),
    ("a blank in a key", lambda cast: (api_key(f"{cast.good.text[:9]} {cast.good.text[9:]}"),)),
    ("letters that look alike", lambda cast: (bearer(LEGACY.replace("a", "\u0430")),)),
    ("a digest for its text", lambda cast: (bearer("5d41402abc4b2a76b9719d911017c592"),)),
    ("SQL", lambda cast: (bearer("'OR'1'='1'--"),)),
]  # fmt: skip


def swapped(key: Key, other: Key) -> str:
    body = f"{PREFIX}{key.id}_{other.text.split('_')[2]}"
    return f"{body}_{crc32(body.encode()):08x}"


@pytest.mark.parametrize("fields", [fields for _, fields in WRONG], ids=[name for name, _ in WRONG])
def test_a_credential_that_is_not_good_is_401(fields: Fields, cast: Cast) -> None:
    """A1, A2: on every path, there or not, and with every method; no path and no server can be learned without one."""
    for path in ("/acme/mcp", "/shared/mcp", "/nope/mcp", "/"):
        cast.refused(post(path, CALL, *fields(cast)), 401)
    for method in ("GET", "DELETE", "OPTIONS"):
        cast.refused(get("/acme/mcp", *fields(cast), method=method), 401)
    cast.refused(get("/acme/mcp", *HANDSHAKE, *fields(cast)), 401)
    cast.refused(get("/.well-known/oauth-protected-resource/shared/mcp", *fields(cast)), 401)


QUERIES: Final = (
    "?key={}", "?access_token=x", "?api_key=x", "?a=b&API-Key=x", "?apikey", "?x-api-key=x", "?a=1;access_token=2",
    "?%61ccess_token=x", "?q=%6dcpm_x", "?{}", "?a=mcpm_",
)  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_a_credential_in_the_url_is_401(query: str, cast: Cast) -> None:
    """A1: alone, and beside a good one, which does not make it better."""
    path = f"/acme/mcp{query.format(cast.good.text)}"
    cast.refused(post(path), 401)
    cast.refused(post(path, CALL, api_key(cast.good.text)), 401)
    cast.refused(get(path, api_key(cast.good.text)), 401)


def test_a_body_is_not_read_before_its_sender_is_known(cast: Cast) -> None:
    """Nobody fills memory without a credential: the answer comes on the head alone."""
    head = post("/acme/mcp", b"", api_key("x")).replace(b"Content-Length: 0", b"Content-Length: 4000000")
    with connected(cast.world.proxy) as client:
        client.send(head)
        answer = Answered(*client.answer())
    assert (answer.status, answer.body) == (401, UNAUTHORIZED[1])
    assert answer.fields["connection"] == "close"


# --- A3: no longer, or not yet ---------------------------------------------------------------------------------------

OLD = later(-3600)
#: What is wrong with the row of a credential.
ROWS: Final[list[tuple[str, dict[str, Any]]]] = [
    ("revoked", {"revoked_at": OLD}),
    ("revoked later", {"revoked_at": later(3600)}),
    ("expired", {"expires_at": OLD}),
]
#: What is wrong with whom it belongs to.
USERS: Final[list[tuple[str, dict[str, Any]]]] = [
    ("banned", {"banned": True}),
    ("banned for an hour", {"banned": True, "ban_expires": later(3600)}),
]


class Doors:
    """The same row of each kind of credential, and how it is shown."""

    def __init__(self, world: Identified) -> None:
        self.world = world
        self._count = 0

    def all(self, tenant: str, user: str, row: dict[str, Any], sessions: bool = True) -> Iterator[str]:
        """A header field for each."""
        world, self._count = self.world, self._count + 1
        owned = {**row, "user_id": user}
        text = f"-{tenant}-{self._count}"
        yield api_key(world.key(tenant, **owned).text)
        world.legacy(tenant, "legacy" + text, **owned)
        yield bearer("legacy" + text)
        world.token(tenant, "token" + text, **owned)
        yield bearer("token" + text)
        if sessions:
            world.session(user, "session" + text, **row)
            yield bearer("session" + text)
            yield cookie("session" + text)


def test_what_is_no_longer_good_is_401(cast: Cast) -> None:
    """A3: whatever kind of credential it is, and whatever is wrong with it, its user or its tenant."""
    world, doors = cast.world, Doors(cast.world)
    fields: list[tuple[str, str]] = []
    for name, row in ROWS:
        fields += [(name, field) for field in doors.all("acme", cast.user, row, sessions="expires_at" in row)]
    for name, columns in USERS:
        fields += [(name, field) for field in doors.all("acme", world.user("acme", **columns), {})]
    for status in ("suspended", "archived"):
        world.tenant(status, status=status)
        fields += [(status, field) for field in doors.all(status, world.user(status), {})]
        fields += [(status, field) for field in doors.all("acme", world.user(status), {})][3:]  # sessions
    fields.append(("not yet valid", api_key(world.key("acme", not_before=later(3600)).text)))
    fields.append(("another pepper", api_key(world.key("acme", pepper_version=2).text)))
    world.session(cast.user, "acted", impersonated_by=world.user("acme", banned=True))
    world.session(cast.user, "acted by nobody", impersonated_by="nobody")
    fields += [("impersonator banned", bearer("acted")), ("no impersonator", cookie("acted by nobody"))]
    good = list(doors.all("acme", world.user("acme", banned=True, ban_expires=OLD), {}))
    world.settle()
    for name, field in fields:
        assert (name, world.call("acme", field).status) == (name, 401)
        cast.refused(post("/acme/mcp", CALL, field), 401)
    assert [world.call("acme", field).status for field in good] == [200] * 5
    assert len(fields) == 3 * 3 + 2 + 2 * 5 + 2 * (5 + 2) + 4


#: What happens, and how many of the five credentials are no good any more. Users outlive their tenant.
CHANGES: Final = [
    ("the key is revoked", "UPDATE enhanced_api_keys SET revoked_at = now() WHERE user_id = $1", 1),
    ("the keys are deleted", "WITH a AS (DELETE FROM enhanced_api_keys WHERE user_id = $1), "
     "b AS (DELETE FROM api_keys WHERE user_id = $1), c AS (DELETE FROM api_tokens WHERE user_id = $1) "
     "DELETE FROM session WHERE user_id = $1", 5),
    ("all expire", "WITH a AS (UPDATE enhanced_api_keys SET expires_at = now() WHERE user_id = $1), "
     "b AS (UPDATE api_keys SET expires_at = now() WHERE user_id = $1), "
     "c AS (UPDATE api_tokens SET expires_at = now() WHERE user_id = $1) "
     "UPDATE session SET expires_at = now() WHERE user_id = $1", 5),
    ("the user is banned", 'UPDATE "user" SET banned = true WHERE id = $1', 5),
    ("the user is deleted", 'DELETE FROM "user" WHERE id = $1', 5),
    ("the tenant is suspended", "UPDATE tenants SET status = 'suspended' WHERE id = "
     '(SELECT tenant_id FROM "user" WHERE id = $1)', 5),
    ("the tenant is deleted", 'DELETE FROM tenants WHERE id = (SELECT tenant_id FROM "user" WHERE id = $1)', 3),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "ended"), [change[1:] for change in CHANGES], ids=[name for name, *_ in CHANGES])
@pytest.mark.alone
def test_a_change_is_in_force_within_a_second(
    statement: str, ended: int, cast: Cast, request: pytest.FixtureRequest
) -> None:
    """A3: what was good a moment ago is refused, and nothing else is."""
    world = cast.world
    slug = re.sub("[^a-z]+", "-", request.node.callspec.id)
    world.tenant(slug)
    user = world.user(slug)
    fields = list(Doors(world).all(slug, user, {}))
    world.settle()
    assert [world.call("shared", field).status for field in fields] == [200] * 5
    world.sql(statement, user)
    began = time.monotonic()
    while [world.call("shared", field).status for field in fields].count(401) < ended:
        assert time.monotonic() - began < 1
    for field in fields[:ended]:
        cast.refused(post("/shared/mcp", CALL, field), 401)
    assert [world.call("shared", field).status for field in fields[ended:]] == [200] * (5 - ended)


@pytest.mark.alone
def test_a_change_that_nobody_tells_of_is_found_within_five_seconds(cast: Cast) -> None:
    """A3: with notices cut."""
    world = cast.world
    key = world.key("acme")
    world.settle()
    world.sql("ALTER TABLE enhanced_api_keys DISABLE TRIGGER notify_change")
    assert world.call("acme", api_key(key.text)).status == 200
    world.sql("UPDATE enhanced_api_keys SET revoked_at = now() WHERE id = $1", key.id)
    began = time.monotonic()
    while world.call("acme", api_key(key.text)).status != 401:
        assert time.monotonic() - began < 5
        time.sleep(0.05)
    world.sql("ALTER TABLE enhanced_api_keys ENABLE TRIGGER notify_change")


def test_what_expires_does_so_on_time(cast: Cast) -> None:
    """A3: nobody has to change a row for it."""
    world = cast.world
    key = world.key("acme", not_before=later(4), expires_at=later(6))
    world.settle()
    told, until = [], time.monotonic() + 8
    while time.monotonic() < until:
        status = world.call("acme", api_key(key.text)).status
        if not told or told[-1] != status:
            told.append(status)
    assert told == [401, 200, 401]


# --- A4: two at once -------------------------------------------------------------------------------------------------

TWICE: Final[list[tuple[str, Fields, int]]] = [
    ("two Authorization", lambda cast: (bearer(cast.good.text), bearer("x")), 400),
    ("two Authorization that agree", lambda cast: (bearer(cast.good.text), bearer(cast.good.text)), 400),
    ("two API keys", lambda cast: (api_key(cast.good.text), api_key(cast.other.text)), 400),
    ("two API keys that agree", lambda cast: (api_key(cast.good.text), api_key(cast.good.text)), 400),
    ("two good ones", lambda cast: (bearer(cast.good.text), api_key(cast.other.text)), 400),
    ("a good one and a bad one", lambda cast: (bearer(cast.good.text), api_key("x")), 400),
    ("a bad one and a good one", lambda cast: (bearer("x"), api_key(cast.good.text)), 400),
    ("a good one and a mistyped one", lambda cast: (bearer(cast.good.text), api_key(cast.good.text[:-1])), 400),
    ("a key and a cookie", lambda cast: (bearer(cast.good.text), cookie(SESSION)), 400),
    ("two cookies", lambda cast: (cookie(SESSION, f"__Secure-better-auth.session_token={signed('x' * 32)}; "),), 400),
    ("two in one field", lambda cast: (bearer(f"{cast.good.text}, Bearer x"),), 400),
    ("two in one field of keys", lambda cast: (api_key(f"{cast.good.text},x"),), 400),
    ("a scheme before it", lambda cast: (f"Authorization: Basic YTpi, Bearer {TOKEN}",), 400),
    ("a good one and one that is too long", lambda cast: (bearer(cast.good.text), api_key("x" * 300)), 401),
    ("a good one and an empty one", lambda cast: (bearer(cast.good.text), "X-API-Key:"), 401),
    ("a good key and a forged cookie",
     lambda cast: (api_key(cast.good.text), f"Cookie: better-auth.session_token={signed(SESSION, 'x')}"), 401),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status"), [case[1:] for case in TWICE], ids=[name for name, *_ in TWICE])
def test_two_credentials_that_disagree_are_refused(fields: Fields, status: int, cast: Cast) -> None:
    """A4: whichever of them is good."""
    cast.refused(post("/acme/mcp", CALL, *fields(cast)), status)


AGREEING: Final[list[tuple[str, Fields]]] = [
    ("lower case", lambda cast: (f"authorization: bearer {cast.good.text}",)),
    ("upper case", lambda cast: (f"AUTHORIZATION: BEARER {cast.good.text}",)),
    ("leading blanks", lambda cast: (f"Authorization:  \t  Bearer   {cast.good.text}  ",)),
    ("tabs", lambda cast: (f"Authorization: Bearer\t{cast.good.text}\t",)),
    ("blanks around a key", lambda cast: (f"X-API-Key:   {cast.good.text}\t ",)),
    ("both fields", lambda cast: (bearer(cast.good.text), api_key(cast.good.text))),
    ("a session in both places", lambda cast: (bearer(SESSION), cookie(SESSION))),
    ("a signed session in both places", lambda cast: (bearer(signed(SESSION)), cookie(SESSION))),
    ("both names of the cookie",
     lambda cast: (cookie(SESSION, f"__Secure-better-auth.session_token={signed(SESSION)}; "),)),
    ("another scheme beside a key", lambda cast: ("Authorization: Basic YTpi", api_key(cast.good.text))),
]  # fmt: skip


@pytest.mark.parametrize("fields", [fields for _, fields in AGREEING], ids=[name for name, _ in AGREEING])
def test_one_credential_may_be_written_in_many_ways(fields: Fields, cast: Cast) -> None:
    """A4: schemes have no case, and the same twice is one."""
    assert cast.world.call("acme", *fields(cast)).status == 200


# --- A5: addresses ---------------------------------------------------------------------------------------------------

TRUSTING: Final[dict[str, dict[str, Any]]] = {
    "nobody": {},
    "us": {"trusted_proxies": ["127.0.0.1", "10.9.0.0/16", "2001:db8:9::/48"]},
    "others": {"trusted_proxies": ["192.0.2.7"]},
    "Forwarded": {"trusted_proxies": ["127.0.0.1"], "forwarded_fields": "forwarded"},
    "both": {"trusted_proxies": ["127.0.0.1"], "forwarded_fields": ["x-forwarded-for", "forwarded"]},
}
HOPS = ", ".join(["10.9.0.1"] * 49)
#: Whom the proxy trusts, what the fields say, and the status of a key for 10.0.0.1 and 2001:db8::1 alone.
ADDRESSES: Final[list[tuple[str, tuple[str, ...], int]]] = [
    ("nobody", ("X-Forwarded-For: 10.0.0.1",), 403),
    ("nobody", ("Forwarded: for=10.0.0.1",), 403),
    ("nobody", ("X-Real-IP: 10.0.0.1", "X-Client-IP: 10.0.0.1", "True-Client-IP: 10.0.0.1"), 403),
    ("nobody", ("X-Forwarded-For: nonsense;",), 403),
    ("nobody", (), 403),
    ("others", ("X-Forwarded-For: 10.0.0.1",), 403),
    ("us", ("X-Forwarded-For: 10.0.0.1",), 200),
    ("us", ("X-Forwarded-For: 10.0.0.1, 192.0.2.1",), 403),
    ("us", ("X-Forwarded-For: 192.0.2.1, 10.0.0.1",), 200),
    ("us", ("X-Forwarded-For: 192.0.2.1, 10.0.0.1, 10.9.0.1, 10.9.255.255",), 200),
    ("us", ("X-Forwarded-For: 10.0.0.1, 192.0.2.1, 10.9.0.1",), 403),
    ("us", ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.0.0.1"), 200),
    ("us", ("X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 192.0.2.1"), 403),
    ("us", ("X-Forwarded-For: ::ffff:10.0.0.1",), 200),
    ("us", ("X-Forwarded-For: 10.0.0.1:4711",), 200),
    ("us", ("X-Forwarded-For: [2001:db8::1]:443",), 200),
    ("us", ("X-Forwarded-For: 2001:DB8:0::1",), 200),
    ("us", ("X-Forwarded-For: 2001:db8::1%eth0",), 200),
    ("us", ("X-Forwarded-For: fe80::1%eth0",), 403),
    ("us", ("X-Forwarded-For: 10.0.0.01",), 400),
    ("us", ("X-Forwarded-For: 167772161",), 400),
    ("us", ("X-Forwarded-For: 10.0.0.1;",), 400),
    ("us", ("X-Forwarded-For: example.com",), 400),
    ("us", ("X-Forwarded-For: <script>",), 400),
    ("us", ("X-Forwarded-For: 10.0.0.1, unknown",), 403),
    ("us", (f"X-Forwarded-For: 10.0.0.1, {HOPS}",), 200),
    ("us", (f"X-Forwarded-For: 10.0.0.1, 10.9.0.1, {HOPS}",), 400),
    ("us", ("Forwarded: for=10.0.0.1",), 403),
    ("Forwarded", ("Forwarded: for=10.0.0.1",), 200),
    ("Forwarded", ('Forwarded: for="[2001:db8::1]:443";proto=https, for=127.0.0.1',), 200),
    ("Forwarded", ('Forwarded: for="[::1]"',), 403),
    ("Forwarded", ('Forwarded: for="[::ffff:10.0.0.1]"',), 200),
    ("Forwarded", ("Forwarded: for=10.0.0.1, for=_hidden",), 403),
    ("Forwarded", ("Forwarded: for=[2001:db8::1]",), 400),
    ("Forwarded", ('Forwarded: for="10.0.0.1',), 400),
    ("Forwarded", ("Forwarded: for=10.0.0.1;for=10.0.0.1",), 400),
    ("Forwarded", ("X-Forwarded-For: 10.0.0.1",), 403),
    ("both", ("X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1"), 200),
    ("both", ("X-Forwarded-For: 10.0.0.1", "Forwarded: for=192.0.2.1"), 400),
]


def test_only_what_trusted_proxies_say_is_believed(cast: Cast) -> None:
    """A5: from right to left, and no further than the first that is not trusted; what cannot be read is refused."""
    world = cast.world
    key = world.key("acme", allowed_ips=["10.0.0.1/32", "2001:db8::1/128"])
    world.settle()
    for trusting, section in TRUSTING.items():
        world.reload(listen={**world.config["listen"], **section})
        for fields, status in [case[1:] for case in ADDRESSES if case[0] == trusting]:
            request = post("/acme/mcp", CALL, *fields, api_key(key.text))
            if status == 200:
                assert (trusting, fields, world.ask(request).status) == (trusting, fields, 200)
                assert values(world.upstreams["acme"].seen[-1], "x-forwarded-for") != []
            else:
                cast.refused(request, status)
    world.reload()


def test_a_key_for_other_places_is_403_and_tells_nothing(cast: Cast) -> None:
    """A list that cannot be read lets nobody in; an origin has to be named, a wildcard names none."""
    world = cast.world
    keys = [
        world.key("acme", allowed_ips=["10.0.0.0/8"]),
        world.key("acme", allowed_ips=["::1/128"]),
        world.key("acme", allowed_origins=["http://localhost:3000"]),
        world.key("acme", allowed_origins=["*", "http://*"]),
    ]
    good = world.key("acme", allowed_ips=["127.0.0.0/8"], allowed_origins=["http://localhost"])
    world.settle()
    for key in keys:
        for origin in ((), ("Origin: http://localhost",), ("Origin: http://localhost:3001",)):
            cast.refused(post("/acme/mcp", CALL, api_key(key.text), *origin), 403)
    assert world.call("acme", api_key(good.text), "Origin: http://localhost").status == 200
    cast.refused(post("/acme/mcp", CALL, api_key(good.text)), 403)
    assert world.call("acme", api_key(keys[2].text), "Origin: http://localhost:3000").status == 200


# --- A6: limits of a key ---------------------------------------------------------------------------------------------

INJECTED: Final = ["*a*", "ac*e", "%", "_", "../acme", "acme/*", "a..me", "acme\\*", "*e", "", "shared,acme", "acme *"]


def test_a_key_for_one_server_opens_no_other(cast: Cast) -> None:
    """A6: the server of the same letters in the middle, of the other tenant's, and of all, included."""
    world = cast.world
    one, begins = world.key("acme", allowed_servers=["acme"]), world.key("acme", allowed_servers=["a*", "to*"])
    world.settle()
    for server, fits_one, fits_begins in (
        ("acme", True, True), ("tools", False, True), ("shared", False, False), ("common", False, False),
    ):  # fmt: skip
        for key, fits in ((one, fits_one), (begins, fits_begins)):
            request = post(f"/{server}/mcp", CALL, api_key(key.text))
            if fits:
                assert world.ask(request).status == 200
            else:
                cast.refused(request, 403)
                cast.refused(stream_of(f"/{server}/mcp", api_key(key.text)), 403)
                cast.refused(get(f"/{server}/mcp", api_key(key.text), method="DELETE"), 403)
    cast.refused(post("/globex/mcp", CALL, api_key(begins.text)), 404)


def test_what_looks_like_a_wildcard_widens_no_key(cast: Cast) -> None:
    """A6: neither in the lists of a key nor in the name of a tool."""
    world = cast.world
    servers = [world.key("acme", allowed_servers=[pattern]) for pattern in INJECTED]
    tools = [world.key("acme", allowed_tools=[pattern.replace("acme", "open")]) for pattern in INJECTED]
    narrow = world.key("acme", allowed_tools=["open"])
    world.settle()
    for key in servers:
        for server in ("acme", "tools", *SHARED):
            cast.refused(post(f"/{server}/mcp", CALL, api_key(key.text)), 403)
    for key in tools:
        cast.refused(post("/acme/mcp", call("open"), api_key(key.text)), 403)
        cast.refused(post("/acme/mcp", call("secret"), api_key(key.text)), 403)
    assert world.call("acme", api_key(narrow.text), body=call("open")).status == 200
    for tool in (
        "*",
        "o*",
        "open*",
        "open%",
        "OPEN",
        "open ",
        " open",
        "open\\u0000",
        "\u043epen",
        "open,secret",
        "",
        "open/.",
    ):
        answer = world.call("acme", api_key(narrow.text), body=call(tool))
        assert (tool, answer.status) in ((tool, 403), (tool, 400))
    batch = b"[" + call("open") + b"," + call("secret").replace(b'"id":1', b'"id":2') + b"]"
    seen = len(world.seen())
    answer = world.call("acme", api_key(narrow.text), body=batch)
    assert answer.status in (400, 403)
    assert len(world.seen()) == seen


SCOPED: Final = [
    ([], (403, 403, 403)),
    (["read"], (403, 403, 403)),
    (["read", "write"], (403, 403, 403)),
    (["admin"], (403, 403, 403)),
    (["proxy"], (200, 403, 403)),
    (["proxy", "read"], (200, 200, 403)),
    (["proxy", "write"], (200, 403, 200)),
    (["proxy", "admin"], (200, 403, 403)),
]  # fmt: skip


@pytest.mark.parametrize(("scopes", "statuses"), SCOPED, ids=["+".join(case[0]) or "none" for case in SCOPED])
def test_a_scope_that_is_missing_is_403(scopes: list[str], statuses: tuple[int, ...], cast: Cast) -> None:
    """A6: shaking hands, a list, a call and a method that nobody knows; of a batch the strongest counts."""
    world = cast.world
    key = world.key("acme", scopes=scopes)
    world.settle()
    unknown = LIST.replace(b"tools/list", b"tools/unheard-of")
    for body, status in zip((INITIALIZE, LIST, call(), unknown), (*statuses, statuses[-1]), strict=True):
        request = post("/acme/mcp", body, api_key(key.text))
        if status == 200:
            assert world.ask(request).status == 200
        else:
            cast.refused(request, status)


# --- A7: what goes on ------------------------------------------------------------------------------------------------

SHOWN: Final[list[tuple[str, Fields]]] = [
    ("a key as bearer", lambda cast: (bearer(cast.good.text),)),
    ("a key in its field", lambda cast: (api_key(cast.good.text),)),
    ("a key in both", lambda cast: (bearer(cast.good.text), api_key(cast.good.text))),
    ("a legacy key", lambda cast: (api_key(LEGACY),)),
    ("a token", lambda cast: (bearer(TOKEN),)),
    ("a session", lambda cast: (bearer(SESSION),)),
    ("a signed session", lambda cast: (bearer(signed(SESSION)),)),
    ("a cookie", lambda cast: (cookie(SESSION, "theme=dark; better-auth.session_data=abc; "),)),
    ("a cookie beside it", lambda cast: (api_key(LEGACY), "Cookie: theme=dark; better-auth.session_data.0=a")),
]  # fmt: skip


@pytest.mark.parametrize("fields", [fields for _, fields in SHOWN], ids=[name for name, _ in SHOWN])
def test_a_credential_never_goes_on(fields: Fields, cast: Cast) -> None:
    """A7: not to a server with a credential of its own, not to one without, not on a stream; other cookies pass."""
    world = cast.world
    for path in ("/acme/mcp", "/shared/mcp"):
        answered = world.ask(post(path, CALL, *fields(cast)))
        assert answered.status == 200
        with streaming(world.proxy, stream_of(path, *fields(cast))):
            pass
    for name in ("acme", "shared"):
        for request in world.upstreams[name].seen[-2:]:
            head = request.partition(b"\r\n\r\n")[0]
            for secret in (cast.good.text, cast.good.text.split("_")[2], LEGACY, TOKEN, SESSION, "better-auth"):
                assert secret.encode() not in head
            assert values(request, "authorization") == values(request, "x-api-key") == []
            shown = [field for field in fields(cast) if "theme=dark" in field]
            assert values(request, "cookie") == ["theme=dark"] * len(shown)


def test_the_servers_own_credential_takes_its_place(cast: Cast) -> None:
    """A7: whatever the client showed in the same field."""
    world = cast.world
    headers = '{"Authorization": "Bearer of-the-server", "Cookie": "a=of-the-server"}'
    url = world.upstreams["acme"].url
    world.server("acme", "keyed", url, headers=headers)
    world.settle()
    for fields in (
        (bearer(TOKEN),),
        (api_key(cast.good.text), "Authorization: Basic YTpi"),
        (cookie(SESSION, "b=c; "),),
    ):
        assert world.call("keyed", *fields).status == 200
        request = world.upstreams["acme"].seen[-1]
        assert values(request, "authorization") == ["Bearer of-the-server"]
        assert values(request, "cookie") == ["a=of-the-server"]


# --- U1: servers that are not there, and not yours -------------------------------------------------------------------

ABSENT: Final[list[tuple[str, Callable[[str], bytes]]]] = [
    ("POST", lambda name: post(f"/{name}/mcp", CALL)),
    ("a list", lambda name: post(f"/{name}/mcp", LIST)),
    ("initialize", lambda name: post(f"/{name}/mcp", INITIALIZE)),
    ("no JSON at all", lambda name: post(f"/{name}/mcp", b"{")),
    ("GET", lambda name: stream_of(f"/{name}/mcp")),
    ("GET without Accept", lambda name: get(f"/{name}/mcp")),
    ("DELETE", lambda name: get(f"/{name}/mcp", "Mcp-Session-Id: x", method="DELETE")),
    ("OPTIONS", lambda name: get(f"/{name}/mcp", method="OPTIONS")),
    ("legacy SSE", lambda name: stream_of(f"/{name}/sse")),
    ("POST to legacy SSE", lambda name: post(f"/{name}/sse?session_id=x", CALL)),
    ("WebSocket", lambda name: get(f"/{name}/mcp", *HANDSHAKE)),
    ("a session id", lambda name: post(f"/{name}/mcp", LIST, "Mcp-Session-Id: x")),
    ("its document", lambda name: get(f"/.well-known/oauth-protected-resource/{name}/mcp")),
    ("its issuer", lambda name: get(f"/.well-known/oauth-authorization-server/{name}/mcp")),
    ("its issuer, the other way", lambda name: get(f"/{name}/mcp/.well-known/openid-configuration")),
    ("with its tenant", lambda name: post(f"/globex/{name}/mcp", CALL)),
    ("by a rule", lambda name: post(f"/by-rule-{name}", CALL)),
]


@pytest.mark.parametrize("request_for", [case for _, case in ABSENT], ids=[name for name, _ in ABSENT])
def test_anothers_server_is_as_absent_as_one_that_is_not_there(request_for: Callable[[str], bytes], cast: Cast) -> None:
    """U1: byte for byte the same answer, so that nobody learns what others have."""
    world = cast.world
    if "ws" not in {row["name"] for row in world.sql("SELECT name FROM mcp_servers")}:
        port = world.upstreams["globex"].port
        world.server("globex", "ws", f"ws://127.0.0.1:{port}/ws", transport_type="websocket")
        world.server("globex", "old", f"http://127.0.0.1:{port}/sse", transport_type="sse")
        for name in ("globex", "ws", "old", "nope"):
            world.route("acme", f"/by-rule-{name}", [name])
        world.settle()
    before = len(world.seen()), world.connections()
    raw = []
    for name in ("nope", "globex", "ws", "old"):
        request = request_for(name).replace(b"\r\n\r\n", f"\r\n{api_key(cast.good.text)}\r\n\r\n".encode(), 1)
        with connected(world.proxy) as client:
            client.send(request)
            while not client.read.endswith(b"}"):
                assert client.receive(), client.read
            raw.append(re.sub(rb"X-Request-Id: [^\r]+\r\n", b"", client.read))  # each has a name of its own
    assert raw[0].startswith(b"HTTP/1.1 404 ")
    assert set(raw) == {raw[0]}
    assert (len(world.seen()), world.connections()) == before


def test_a_session_of_another_tenant_is_as_unknown_as_any(cast: Cast) -> None:
    """U1, M12: on a server that both may use; the same for another key of the same tenant."""
    world = cast.world
    foreign = world.key("globex")
    world.settle()
    sessions = [
        world.call(server, api_key(key.text), body=INITIALIZE).fields["mcp-session-id"]
        for server, key in (("shared", foreign), ("tools", foreign), ("shared", cast.other))
    ]
    seen = len(world.seen())
    for make in (
        lambda text: post("/shared/mcp", LIST, f"Mcp-Session-Id: {text}", api_key(cast.good.text)),
        lambda text: post("/tools/mcp", LIST, f"Mcp-Session-Id: {text}", api_key(cast.good.text)),
        lambda text: stream_of("/shared/mcp", f"Mcp-Session-Id: {text}", api_key(cast.good.text), "Last-Event-ID: 1"),
        lambda text: get("/shared/mcp", f"Mcp-Session-Id: {text}", api_key(cast.good.text), method="DELETE"),
    ):
        answers = [world.ask(make(text)) for text in ("made-up", *sessions)]
        assert len({answer.fields.pop("x-request-id") for answer in answers}) == len(answers)
        assert {(answer.status, answer.body, str(answer.fields)) for answer in answers} == {
            (404, answers[0].body, str(answers[0].fields))
        }
    assert len(world.seen()) == seen
    assert world.call("shared", api_key(foreign.text), f"Mcp-Session-Id: {sessions[0]}", body=LIST).status == 200


# --- U2: names of servers --------------------------------------------------------------------------------------------

NAMES: Final = [
    ("..", 400), ("%2e", 400), ("%2e%2e", 400), (".", 400), ("acme%00", 400), ("acme%2f", 400), ("\N{ROBOT FACE}", 400),
    ("ACME", 404), ("Acme", 404), ("acme.", 404), ("acme%20", 404), ("%F0%9F%A4%96", 404), ("a" * 1000, 404),
    ("acme..", 404), ("acme~", 404), ("*", 404), ("ac*", 404), ("%61cme", 404), ("acme/acme", 404),
    ("system/common", 404), ("-acme", 404), ("acme@globex", 404),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status"), NAMES)
def test_an_odd_name_of_a_server_is_none(name: str, status: int, cast: Cast) -> None:
    """U2: 400 where no path can look like this, else the 404 of any unknown server."""
    answer = cast.world.ask(post(f"/{name}/mcp", CALL, api_key(cast.good.text)))
    before = len(cast.world.seen())
    assert_exact(answer, status)
    assert len(cast.world.seen()) == before


# --- U3: where servers of tenants stand ------------------------------------------------------------------------------

PRIVATE: Final = (
    "http://169.254.169.254:{}/", "http://[::ffff:127.0.0.1]:{}/mcp", "http://127.0.0.1:{}/mcp", "http://localhost:{}/mcp",
    "http://[::1]:{}/mcp", "http://0.0.0.0:{}/mcp", "http://ip6-localhost:{}/mcp",
)  # fmt: skip
INVALID: Final = (
    "http://a@127.0.0.1:{}/mcp", "http://a:b@127.0.0.1:{}/mcp", "http://127.0.0.1:{}/#x", "http://2130706433:{}/mcp",
    "http://0x7f.1:{}/mcp", "http://0177.0.0.1:{}/mcp", "http://127.1:{}/mcp",
)  # fmt: skip


@pytest.fixture(scope="module")
def strict() -> Iterator[Cast]:
    """A proxy that permits no private network."""
    with identified(registry={}) as world:
        yield Cast(world)


def test_a_tenants_server_on_a_private_address_is_never_connected_to(strict: Cast) -> None:
    """U3: however its address is written, also where a row got past the commands; the operator's servers are free."""
    world = strict.world
    port = world.upstreams["acme"].port
    for number, url in enumerate(PRIVATE):
        world.server("acme", f"private{number}", url.format(port))
    for number, url in enumerate(INVALID):
        world.server("acme", f"invalid{number}", url.format(port))
    world.server("acme", "socket", f"ws://127.0.0.1:{port}/ws", transport_type="websocket")
    world.server("system", "operators", f"http://127.0.0.1:{port}/mcp")
    world.settle()
    connections = world.connections()
    field = api_key(strict.good.text)
    for number, url in enumerate(PRIVATE):
        answer = world.call(f"private{number}", field)
        assert (url, answer.status) == (url, 502)
        assert b"127." not in answer.body
        assert world.ask(stream_of(f"/private{number}/mcp", field)).status == 502
    for number in range(len(INVALID)):
        strict.refused(post(f"/invalid{number}/mcp", CALL, field), 404)
    assert world.ask(get("/socket/mcp", field, *HANDSHAKE)).status == 502
    assert world.connections() == connections
    assert world.call("operators", field).status == 200
    problems = world.proxy.wait_for(lambda line: line.get("event") == "rows of the registry left out")["problems"]
    assert sum("invalid" in line for line in problems) >= 1


def test_a_network_that_the_operator_lists_is_reached(cast: Cast) -> None:
    """U3: by address and by name."""
    world = cast.world
    hosts = ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]")
    for number, host in enumerate(hosts):
        world.server("acme", f"near{number}", f"http://{host}:{world.upstreams['acme'].port}/mcp")
    world.settle()
    assert [world.call(f"near{number}", api_key(cast.good.text)).status for number in range(3)] == [200] * 3


def test_the_commands_refuse_such_a_server_before_it_is_written(strict: Cast) -> None:
    """U3: by the configuration of the proxy; what only a name leads to is refused when it is connected to."""
    world = strict.world
    rows = len(world.sql("SELECT FROM mcp_servers WHERE tenant_id = $1", world.tenants["acme"]))
    for url in (*PRIVATE[:4], INVALID[0], "file:///etc/passwd?{}"):
        done = command(world, "servers", "add", "near", url.format(8080), "--tenant", "acme")
        assert (url, done.returncode, done.stdout) == (url, 2, "")
        assert "Traceback" not in done.stderr and "8080" not in done.stderr
    assert len(world.sql("SELECT FROM mcp_servers WHERE tenant_id = $1", world.tenants["acme"])) == rows


# --- A8: many at once ------------------------------------------------------------------------------------------------

MANY: Final = 1000


@pytest.mark.alone
async def test_a_thousand_unknown_keys_cost_the_database_nothing() -> None:
    """A8: not one statement for them, and whoever has a key is answered meanwhile."""
    async with migrated_database() as name, scripted_upstream() as upstream:
        good = await filled(name)
        config = {
            "auth": {"anonymous": False, "peppers": {1: PEPPER}},
            "postgres": {"dsn": login_dsn(name)},
            "servers": {"up": {"url": upstream.url}},
            "state_dir": str(folder() / "state"),
        }
        async with running_app(config) as (app, port):
            stores = app._backend._stores
            assert stores.database is not None
            numbers = stores.database.numbers

            def statements() -> int:
                return sum(pool.statements for pool in numbers().values())

            assert (await ask(port, post("/up/mcp", CALL, api_key(good)))).status == 200
            await asyncio.sleep(2)  # what is done at the start is done
            idle = await counted(statements, asyncio.sleep(3))
            began = time.monotonic()
            bad = await counted(statements, flood(port, good, until=began + 3))
            assert time.monotonic() - began < 6
            print(f"statements in 3 s: {idle} idle, {bad} with {MANY} unknown keys")
            assert bad <= idle + 8  # the use of the good key is counted, and the seconds are not the same
        assert len(upstream.seen) > 1
        assert all(b"mcpm_" not in request for request in upstream.seen)


async def filled(name: str) -> str:
    """The text of a key in a database that has one."""
    minted = mint(RING)
    [tenant] = await execute(owner_dsn(name), "INSERT INTO tenants (slug, name) VALUES ('acme', 'acme') RETURNING id")
    await execute(
        owner_dsn(name),
        "INSERT INTO enhanced_api_keys (id, tenant_id, name, secret_hmac, scopes) VALUES ($1, $2, 'a', $3, $4)",
        minted.id, tenant["id"], minted.secret_hmac, EVERY_SCOPE,
    )  # fmt: skip
    return minted.text


async def counted(statements: Callable[[], int], work: Awaitable[None]) -> int:
    """Statements while `work` is done."""
    before = statements()
    await work
    return statements() - before


async def flood(port: int, good: str, until: float) -> None:
    """A thousand unknown keys over twenty connections, and a good one again and again; returns at `until`."""

    async def guess() -> None:
        client = await RawClient.connect(port)
        for _ in range(MANY // 20):
            await client.send(post("/up/mcp", CALL, api_key(mint(RING).text)))
            assert (await client.answer())[0] == 401
        await client.close()

    async def use() -> None:
        for _ in range(20):
            began = time.monotonic()
            assert (await ask(port, post("/up/mcp", CALL, api_key(good)))).status == 200
            assert time.monotonic() - began < 1

    await asyncio.gather(use(), *(guess() for _ in range(20)))
    await asyncio.sleep(until - time.monotonic())
