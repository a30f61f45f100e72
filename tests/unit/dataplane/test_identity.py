"""Who asks is known from the head, and from memory alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from urllib.parse import quote

import pytest

from proxy.dataplane.admission import Admission
from proxy.dataplane.bans import Bans, policy_of, turn_away
from proxy.dataplane.context import ANONYMOUS, PREFLIGHT, RequestContext
from proxy.dataplane.identity import authenticate
from proxy.errors import BadRequest, Forbidden, Refusal, RegistryUnavailable, Unauthorized
from proxy.identity.credentials import CHALLENGE
from proxy.identity.keys import mint
from proxy.identity.principal import Source
from tests.unit.dataplane.admitted import IDENTIFIED, admitting, builder, configuration
from tests.unit.dataplane.asked import snapshot
from tests.unit.dataplane.fakes import Client
from tests.unit.identity.rows import (
    EARLIER,
    KEY,
    LEGACY_TEXT,
    MINTED,
    NOW,
    RING,
    SESSION_TEXT,
    TENANT,
    TOKEN_TEXT,
    USER,
)

SNAPSHOT = snapshot({"up": "http://up.test/mcp"})
STRICT = {"auth": {**IDENTIFIED["auth"], "anonymous": False}}


def asked(*fields: str, target: str = "/up/mcp", peer: str = "2001:db8::7") -> RequestContext:
    """A request whose head was read and nothing else."""
    lines = "".join(f"{field}\r\n" for field in ("Host: h", *fields))
    return RequestContext(Client(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode(), peer=peer), SNAPSHOT, 0.0)


def identify(ctx: RequestContext, admission: Admission) -> None:
    """Both phases that go by the head: where the client is, and who."""
    turn_away(ctx, admission, Bans(policy_of(configuration())))
    authenticate(ctx, admission, NOW)


def refused(admission: Admission, *fields: str, target: str = "/up/mcp", peer: str = "2001:db8::7") -> Refusal:
    """The refusal that the fields end in."""
    with pytest.raises(Refusal) as caught:
        identify(asked(*fields, target=target, peer=peer), admission)
    return caught.value


def signed(token: str) -> str:
    """A session cookie as Better-Auth writes it."""
    signature = hmac.digest(IDENTIFIED["auth"]["session_secret"].encode(), token.encode(), hashlib.sha256)
    return quote(f"{token}.{base64.b64encode(signature).decode()}", safe="")


def test_without_a_database_nobody_can_claim_to_be_someone() -> None:
    """Fields decide nothing, and stay where they are: they may be meant for the server."""
    ctx = asked("Authorization: Bearer x", "X-Forwarded-For: 10.0.0.1")
    ctx.client_ip = "10.0.0.1"
    identify(ctx, builder().build(configuration(), {}))
    assert ctx.principal is ANONYMOUS
    assert (ctx.client_ip, ctx.consumed, ctx.reader) == ("2001:db8::7", frozenset(), None)


@pytest.mark.parametrize(
    ("field", "source", "carrier"),
    [
        (f"Authorization: Bearer {MINTED.text}", Source.KEY, "authorization"),
        (f"X-API-Key: {MINTED.text}", Source.KEY, "x-api-key"),
        (f"X-API-Key: {LEGACY_TEXT}", Source.LEGACY_KEY, "x-api-key"),
        (f"Authorization: bearer {TOKEN_TEXT}", Source.BEARER, "authorization"),
        (f"Authorization: Bearer {SESSION_TEXT}", Source.SESSION, "authorization"),
        (f"Cookie: a=b; better-auth.session_token={signed(SESSION_TEXT)}", Source.SESSION, "cookie"),
    ],
)
def test_a_credential_becomes_its_principal_and_goes_no_further(field: str, source: Source, carrier: str) -> None:
    """Wherever it stands."""
    ctx = asked(field)
    identify(ctx, admitting())
    assert (ctx.principal.source, ctx.principal.tenant_slug) == (source, "acme")
    assert ctx.consumed == {carrier}


def test_who_shows_nothing_is_anonymous_where_that_is_allowed() -> None:
    """Elsewhere it is a 401 with a challenge."""
    ctx = asked()
    identify(ctx, admitting())
    assert ctx.principal is ANONYMOUS
    refusal = refused(admitting(**STRICT))
    assert isinstance(refusal, Unauthorized)
    assert refusal.headers == CHALLENGE


def test_a_preflight_shows_no_credential_and_needs_none() -> None:
    """It is nobody, and may do nothing else; without the fields of one it is like any other request."""
    raw = b"OPTIONS /up/mcp HTTP/1.1\r\nHost: h\r\nOrigin: https://app.test\r\n%b\r\n"
    ctx = RequestContext(Client(raw % b"Access-Control-Request-Method: POST\r\n"), SNAPSHOT, 0.0)
    identify(ctx, admitting(**STRICT))
    assert ctx.principal is PREFLIGHT
    assert not ctx.principal.scopes
    with pytest.raises(Unauthorized):
        identify(RequestContext(Client(raw % b""), SNAPSHOT, 0.0), admitting(**STRICT))
    assert isinstance(
        refused(admitting(**STRICT), "Origin: https://app.test", "Access-Control-Request-Method: POST"), Unauthorized
    )


@pytest.mark.parametrize("anonymous", [True, False])
def test_a_bad_credential_is_refused_also_where_none_is_needed(anonymous: bool) -> None:
    """Malformed, unknown, in the URL: the client wanted to be someone."""
    admission = admitting() if anonymous else admitting(**STRICT)
    for text in (MINTED.text[:-1] + "x", mint(RING).text, "nobody-knows-this"):
        assert type(refused(admission, f"Authorization: Bearer {text}")).status == 401
    assert isinstance(refused(admission, target=f"/up/mcp?api_key={MINTED.text}"), Unauthorized)


def test_what_is_not_known_while_nobody_can_be_asked_may_be_good() -> None:
    """503 with a time to come back; a known key goes on, and a mistyped one is still wrong."""
    admission = admitting(current=False)
    refusal = refused(admission, f"X-API-Key: {mint(RING).text}")
    assert isinstance(refusal, RegistryUnavailable)
    assert dict(refusal.headers)["Retry-After"]
    assert isinstance(refused(admission, f"X-API-Key: {MINTED.text[:-1]}x"), Unauthorized)
    ctx = asked(f"X-API-Key: {MINTED.text}")
    identify(ctx, admission)
    assert ctx.principal.key_id == KEY.id


def test_a_good_key_from_the_wrong_place_is_forbidden() -> None:
    """By the true address, which only a trusted proxy may tell, and by origin."""
    key = replace(KEY, allowed_ips=("192.0.2.0/24",), allowed_origins=("https://app.test",))
    admission = admitting(TENANT, USER, key, listen={"trusted_proxies": "2001:db8::/32"})
    good = (f"X-API-Key: {MINTED.text}", "X-Forwarded-For: 192.0.2.1", "Origin: https://app.test")
    ctx = asked(*good)
    identify(ctx, admission)
    assert ctx.client_ip == "192.0.2.1"
    assert isinstance(refused(admission, *good[:2]), Forbidden)
    assert isinstance(refused(admission, *good, peer="198.51.100.1"), Forbidden)
    assert isinstance(refused(admission, good[0], good[2], "X-Forwarded-For: nonsense"), BadRequest)


def test_a_key_that_is_revoked_is_not_let_in() -> None:
    """Whatever is right about it."""
    assert isinstance(
        refused(admitting(TENANT, USER, replace(KEY, revoked_at=EARLIER)), f"X-API-Key: {MINTED.text}"), Unauthorized
    )
