"""The one credential of a request, wherever it stands, and what is left of the head without it."""

from __future__ import annotations

import base64
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest, Unauthorized
from proxy.identity.credentials import CHALLENGE, Credential, CredentialReader, Kind, unauthorized
from proxy.identity.keys import digest_of, parse
from tests.unit.identity.rows import LEGACY_TEXT, MINTED, SESSION_TEXT

SECRET = "better-auth-secret-of-thirty-two-characters"
READER = CredentialReader(SECRET)
KEY_TEXT = MINTED.text
SESSION = Credential(Kind.SESSION, digest_of(SESSION_TEXT))


def signature(token: str = SESSION_TEXT, secret: str = SECRET) -> str:
    """What Better-Auth signs a token with."""
    return base64.b64encode(hmac.digest(secret.encode(), token.encode(), "sha256")).decode()


def cookie(token: str = SESSION_TEXT, name: str = "better-auth.session_token", secret: str = SECRET) -> str:
    """A cookie as Better-Auth writes it: encodeURIComponent(token.signature)."""
    return f"{name}={quote(f'{token}.{signature(token, secret)}', safe='')}"


def same(found: Credential | None, expected: Credential) -> bool:
    """Whether two credentials are looked up in the same way."""
    return found is not None and (found.kind, found.name, found.secret) == (
        expected.kind,
        expected.name,
        expected.secret,
    )


@pytest.mark.parametrize(
    "value",
    [f"Bearer {KEY_TEXT}", f"bearer {KEY_TEXT}", f"BEARER   {KEY_TEXT} ", f"  Bearer\t{KEY_TEXT}"],
    ids=["usual", "lower case", "blanks", "leading blanks and a tab"],
)
def test_a_key_is_read_from_authorization(value: str) -> None:
    """The scheme has no case, and blanks do not count."""
    found = READER.read({"authorization": value})
    assert found is not None
    assert (found.kind, found.name, found.secret) == (Kind.KEY, *(parse(KEY_TEXT) or ()))
    assert found.carriers == {"authorization"}


def test_a_key_is_read_from_x_api_key() -> None:
    """The same key, another carrier."""
    found = READER.read({"x-api-key": f" {KEY_TEXT} "})
    assert found is not None
    assert (found.kind, found.carriers) == (Kind.KEY, {"x-api-key"})


def test_no_text_of_a_credential_is_kept_but_the_secret_of_a_key() -> None:
    """And that shows nowhere."""
    for fields in ({"authorization": f"Bearer {KEY_TEXT}"}, {"x-api-key": LEGACY_TEXT}, {"cookie": cookie()}):
        shown = repr(READER.read(fields))
        for planted in (KEY_TEXT, (parse(KEY_TEXT) or ("", ""))[1], LEGACY_TEXT, SESSION_TEXT, SECRET):
            assert planted not in shown
    assert SECRET not in repr(READER)


def test_any_other_text_is_looked_up_by_its_digest() -> None:
    """Legacy keys, API tokens and bare session tokens look alike."""
    for fields in ({"authorization": f"Bearer {LEGACY_TEXT}"}, {"x-api-key": LEGACY_TEXT}):
        assert same(READER.read(fields), Credential(Kind.OPAQUE, digest_of(LEGACY_TEXT)))


def test_the_signature_of_better_auth_is_known_by_a_fixed_example() -> None:
    """What Node makes of it: createHmac('sha256', 'secret').update('token').digest('base64'), encodeURIComponent."""
    example = "better-auth.session_token=token.6UERDj0r%2FoJiHw4%2BFDRzDXMF0QbF9oyHFl0LJ6RhGko%3D"
    found = CredentialReader("secret").read({"cookie": example})
    assert same(found, Credential(Kind.SESSION, digest_of("token")))


@pytest.mark.parametrize(
    "value",
    [
        cookie(),
        cookie(name="__Secure-better-auth.session_token"),
        f"a=b; {cookie()}; c=d",
        f"a=b;{cookie()}",
        f'better-auth.session_token="{SESSION_TEXT}.{signature()}"',
        f"{cookie()}; {cookie(name='__Secure-better-auth.session_token')}",
    ],
    ids=["alone", "secure", "between others", "without blanks", "quoted, not encoded", "both names"],
)
def test_a_signed_cookie_is_a_session(value: str) -> None:
    """Under both names, beside other cookies."""
    found = READER.read({"cookie": value})
    assert same(found, SESSION)
    assert found is not None
    assert found.carriers == {"cookie"}


@pytest.mark.parametrize(
    "value",
    [
        f"{SESSION_TEXT}.{signature()}",
        quote(f"{SESSION_TEXT}.{signature()}", safe=""),
        f"{SESSION_TEXT}.{signature().rstrip('=')}",
        f"{SESSION_TEXT}.{signature().rstrip('=').replace('+', '-').replace('/', '_')}",
    ],
    ids=["plain", "URL-encoded", "unpadded", "URL alphabet"],
)
def test_a_signed_token_is_a_session_as_bearer_too(value: str) -> None:
    """As the bearer plugin hands it out in `set-auth-token`."""
    assert same(READER.read({"authorization": f"Bearer {value}"}), SESSION)


@pytest.mark.parametrize(
    "value",
    [
        cookie(secret="another secret"),
        f"better-auth.session_token={SESSION_TEXT}",
        "better-auth.session_token=",
        f"better-auth.session_token=.{signature('')}",
        f"better-auth.session_token={SESSION_TEXT}.é{signature()[1:]}",
        f"better-auth.session_token={SESSION_TEXT}.{'A' * 43}",
        cookie(token="x" * 300),
        "better-auth.session_token=%",
    ],
)
def test_a_forged_cookie_is_a_401(value: str) -> None:
    """Another secret, no signature, no token, too long."""
    with pytest.raises(Unauthorized):
        READER.read({"cookie": value})


def test_a_forged_bearer_is_an_opaque_text() -> None:
    """It is no session; whether it is a legacy key with a dot, the directory knows."""
    text = f"{SESSION_TEXT}.{signature(secret='another secret')}"
    assert same(READER.read({"authorization": f"Bearer {text}"}), Credential(Kind.OPAQUE, digest_of(text)))


def test_without_the_secret_cookies_are_no_credentials() -> None:
    """They pass untouched."""
    reader = CredentialReader()
    assert reader.read({"cookie": cookie()}) is None
    assert reader.without([("Cookie", cookie())], None) == [("Cookie", cookie())]
    assert reader.strip_cookies(cookie()) == cookie()


def test_another_prefix_is_another_cookie() -> None:
    """Better-Auth's `advanced.cookiePrefix`."""
    reader = CredentialReader(SECRET, cookie_prefix="mcp.manager")
    assert same(reader.read({"cookie": cookie(name="mcp.manager.session_token")}), SESSION)
    assert reader.read({"cookie": cookie()}) is None
    assert reader.strip_cookies(f"{cookie(name='mcp.manager.session_token')}; mcpxmanager.session_token=1") == (
        "mcpxmanager.session_token=1"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": 'Digest username="x", realm="y"'},
        {"cookie": "a=b; session=c"},
        {"cookie": "x-better-auth.session_token=1"},
        {"host": "x"},
    ],
)
def test_other_fields_hold_no_credential(fields: dict[str, str]) -> None:
    """Other schemes and cookies are the upstream's business."""
    assert READER.read(fields) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "Bearer"},
        {"authorization": "Bearer  "},
        {"authorization": "Bearer a b"},
        {"authorization": "Bearer é"},
        {"authorization": f"Bearer {KEY_TEXT[:-1]}x"},
        {"authorization": f"Bearer {'x' * 257}"},
        {"authorization": f"Bearer {'x' * 10_240}"},
        {"authorization": "Bearer mcpm_"},
        {"authorization": KEY_TEXT},
        {"authorization": f"Token {KEY_TEXT}"},
        {"x-api-key": ""},
        {"x-api-key": f"Bearer {KEY_TEXT}"},
    ],
)
def test_what_cannot_be_a_credential_is_the_same_401(fields: dict[str, str]) -> None:
    """Malformed, too long, a wrong checksum, a key without its scheme (which would reach the upstream)."""
    with pytest.raises(Unauthorized) as caught:
        READER.read(fields)
    assert type(caught.value) is type(unauthorized(""))
    assert caught.value.headers == CHALLENGE


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": f"Bearer {KEY_TEXT}", "x-api-key": LEGACY_TEXT},
        {"authorization": f"Bearer {KEY_TEXT}", "cookie": cookie()},
        {"x-api-key": KEY_TEXT, "cookie": cookie()},
        {"authorization": f"Bearer {KEY_TEXT}, Bearer {KEY_TEXT}"},
        {"authorization": f"Bearer {KEY_TEXT},{LEGACY_TEXT}"},
        {"authorization": f"Basic eDp5, Bearer {LEGACY_TEXT}"},
        {"x-api-key": f"{KEY_TEXT}, {LEGACY_TEXT}"},
        {"cookie": f"{cookie()}; {cookie(token='other')}"},
        {"cookie": f"{cookie()}; {cookie('other', '__Secure-better-auth.session_token')}"},
    ],
)
def test_two_credentials_that_disagree_are_a_400(fields: dict[str, str]) -> None:
    """Nobody may guess which one was meant."""
    with pytest.raises(BadRequest):
        READER.read(fields)


def test_two_that_agree_are_one() -> None:
    """Both carriers are taken out."""
    found = READER.read({"authorization": f"Bearer {KEY_TEXT}", "x-api-key": KEY_TEXT})
    assert found is not None
    assert found.carriers == {"authorization", "x-api-key"}
    assert same(READER.read({"authorization": f"Bearer {SESSION_TEXT}", "cookie": cookie()}), SESSION)


@pytest.mark.parametrize(
    "query",
    [
        f"key={KEY_TEXT}",
        "x=1&mcpm_",
        "token=%6Dcpm_abc",
        "access_token=x",
        "a=b&API_KEY=x",
        "a;apikey=x",
        "x-api%2Dkey=1",
    ],
)
def test_a_credential_in_the_url_is_a_401_even_beside_a_good_one(query: str) -> None:
    """It stands in logs by now, and is never used."""
    for fields in ({}, {"authorization": f"Bearer {KEY_TEXT}"}):
        with pytest.raises(Unauthorized):
            READER.read(fields, query)


def test_other_queries_do_not_matter() -> None:
    """Session ids of legacy SSE, cursors, and names that only look alike."""
    fields = {"authorization": f"Bearer {KEY_TEXT}"}
    for query in ("", "session_id=v1.abc", "my_api_key_name=x", "q=access_token", "%", "&&="):
        assert READER.read(fields, query) is not None


def test_what_was_used_goes_no_further() -> None:
    """Fields by name in any case; of the cookies only the session's, one by one."""
    headers = [
        ("Host", "x"),
        ("AUTHORIZATION", f"Bearer {SESSION_TEXT}"),
        ("X-Api-Key", "other"),
        ("Cookie", f"a=b; {cookie()}; c=d"),
        ("Cookie", cookie()),
    ]
    found = READER.read({"authorization": f"Bearer {SESSION_TEXT}", "cookie": cookie()})
    assert READER.without(headers, found) == [("Host", "x"), ("X-Api-Key", "other"), ("Cookie", "a=b; c=d")]


def test_fields_that_held_no_credential_pass() -> None:
    """Another scheme of Authorization is meant for the server."""
    headers = [("Authorization", "Basic eDp5"), ("Cookie", "a=b;c=d ; e"), ("X-Api-Key", "k")]
    assert READER.without(headers, None) == headers


@pytest.mark.parametrize(
    "name",
    [
        "better-auth.session_token",
        "__Secure-better-auth.session_token",
        "__Host-better-auth.session_token",
        "better-auth.session_data",
        "better-auth.session_data.0",
        "__Secure-better-auth.session_data.12",
        "better-auth.account_data",
    ],
)
def test_cookies_that_carry_the_session_never_pass(name: str) -> None:
    """The cached copy of the session holds its token, in pieces when it is large."""
    assert READER.strip_cookies(f"a=b; {name}=x; c=d") == "a=b; c=d"
    assert READER.strip_cookies(f"{name}=x") == ""
    assert READER.without([("Cookie", f"{name}=x")], None) == []


def test_other_cookies_pass_byte_for_byte() -> None:
    """Also where the session's name is part of theirs or of their value."""
    value = "a=better-auth.session_token;  my-better-auth.session_token=1 ;better-auth.dont_remember=1; x"
    assert READER.strip_cookies(value) == value


COOKIE_TEXT = st.text(st.sampled_from('ab=;. \t"%') | st.characters(min_codepoint=33, max_codepoint=126), max_size=30)


@given(COOKIE_TEXT, COOKIE_TEXT)
def test_no_cookies_around_it_carry_the_token_on(before: str, after: str) -> None:
    """Wherever it stands, the signed value is gone; what is left is a piece of what came."""
    name = "better-auth.session_token"
    stripped = READER.strip_cookies(f"{before};{cookie()};{after}")
    assert quote(signature(), safe="") not in stripped
    assert all(piece.partition("=")[0].strip(" \t") != name for piece in stripped.split(";"))


@given(
    st.dictionaries(st.sampled_from(["authorization", "x-api-key", "cookie"]), st.text(max_size=80)),
    st.text(max_size=40),
)
def test_any_head_is_a_credential_nothing_or_a_refusal(fields: dict[str, str], query: str) -> None:
    """Nothing else ever happens, and no refusal shows its input."""
    try:
        READER.read(fields, query)
    except (BadRequest, Unauthorized) as refusal:
        assert not any(value in refusal.detail for value in fields.values() if len(value) > 12)
