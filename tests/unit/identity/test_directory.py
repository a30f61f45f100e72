"""Who is this? Every answer of the index, and that a patched one answers as one built anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.errors import Forbidden, Refusal, Unauthorized
from proxy.identity.credentials import Credential, CredentialReader, unauthorized
from proxy.identity.directory import Directory, UnknownCredential, place_of
from proxy.identity.keys import mint
from proxy.identity.principal import Principal, Scope, Source, anonymous
from proxy.identity.records import KeyRecord, Record, SessionRecord, TenantRecord, TokenRecord, UserRecord, rotated
from tests.unit.identity.rows import (
    KEY,
    LEGACY,
    LEGACY_TEXT,
    MINTED,
    MOMENT,
    NOW,
    RING,
    ROWS,
    SESSION,
    SESSION_TEXT,
    SOON,
    TENANT,
    TOKEN,
    TOKEN_TEXT,
    USER,
)

READER = CredentialReader()
DIRECTORY = Directory.of(RING, ROWS)
TEXTS = {"key": MINTED.text, "legacy": LEGACY_TEXT, "token": TOKEN_TEXT, "session": SESSION_TEXT}


def shown(text: str) -> Credential:
    """The credential of a client that sends this text as a bearer."""
    credential = READER.read({"authorization": f"Bearer {text}"})
    assert credential is not None
    return credential


def wrong_secret() -> str:
    """A key of the right id and checksum with another secret."""
    body = f"mcpm_{KEY.id}_{'x' * 43}"
    return f"{body}_{crc32(body.encode()):08x}"


def ask(directory: Directory, text: str = MINTED.text, now: float = NOW, ip: str = "", origin: str = "") -> Principal:
    """The principal who shows a text."""
    return directory.authenticate(shown(text), ip, origin, now)


def refusal(directory: Directory, text: str = MINTED.text, now: float = NOW) -> Refusal:
    """The refusal of a text."""
    with pytest.raises(Refusal) as caught:
        ask(directory, text, now)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "source"),
    [("key", Source.KEY), ("legacy", Source.LEGACY_KEY), ("token", Source.BEARER), ("session", Source.SESSION)],
)
def test_every_kind_of_credential_is_found(kind: str, source: Source) -> None:
    """All become one kind of principal."""
    principal = ask(DIRECTORY, TEXTS[kind])
    assert (principal.source, principal.tenant, principal.user) == (source, "t1", "u1")
    assert len(DIRECTORY) == 4


def test_all_that_is_not_accepted_gets_one_answer() -> None:
    """Unknown, wrong, revoked, expired, not yet, disabled tenant: status, code, reason, message and headers agree."""
    wrong = wrong_secret()
    refusals = [
        refusal(Directory(RING)),
        refusal(DIRECTORY, wrong),
        refusal(DIRECTORY, "unknown-text"),
        refusal(DIRECTORY.patched([replace(KEY, revoked_at=MOMENT)])),
        refusal(DIRECTORY.patched([replace(KEY, expires_at=MOMENT)])),
        refusal(DIRECTORY.patched([replace(KEY, not_before=SOON)])),
        refusal(DIRECTORY.patched([replace(TENANT, status="suspended")])),
        refusal(DIRECTORY.patched([replace(USER, banned=True)])),
        unauthorized("malformed"),
    ]
    faces = {(type(one).status, one.code, one.reason, one.message, one.closes, one.headers) for one in refusals}
    assert len(faces) == 1
    assert all(isinstance(one, Unauthorized) for one in refusals)
    assert ("WWW-Authenticate", 'Bearer realm="mcp"') in refusals[0].headers


def test_only_the_unknown_are_worth_a_question_to_the_database() -> None:
    """A wrong secret or an expired key is known well enough."""
    assert isinstance(refusal(DIRECTORY, mint(RING).text), UnknownCredential)
    assert isinstance(refusal(DIRECTORY, "unknown-text"), UnknownCredential)
    assert not isinstance(refusal(DIRECTORY, wrong_secret()), UnknownCredential)
    assert not isinstance(
        refusal(DIRECTORY.patched([replace(LEGACY, revoked_at=MOMENT)]), LEGACY_TEXT), UnknownCredential
    )


def test_a_session_token_is_no_api_key() -> None:
    """In `X-API-Key` only keys and tokens count."""
    for text in (LEGACY_TEXT, TOKEN_TEXT, MINTED.text):
        credential = READER.read({"x-api-key": text})
        assert credential is not None
        assert DIRECTORY.authenticate(credential, "", "", NOW).user == "u1"
    credential = READER.read({"x-api-key": SESSION_TEXT})
    assert credential is not None
    with pytest.raises(UnknownCredential):
        DIRECTORY.authenticate(credential, "", "", NOW)


def test_a_signed_cookie_finds_sessions_only() -> None:
    """A front end that signs anything cannot make a legacy key of it."""
    signed = CredentialReader("s" * 32)
    token = replace(TOKEN, token_hash=SESSION.token_hash)
    directory = Directory.of(RING, (TENANT, USER, token, SESSION))
    assert ask(directory, SESSION_TEXT).source is Source.BEARER
    from tests.unit.identity.test_credentials import cookie

    credential = signed.read({"cookie": cookie(secret="s" * 32)})
    assert credential is not None
    assert directory.authenticate(credential, "", "", NOW).source is Source.SESSION


@pytest.mark.parametrize(
    ("ip", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::7", True),
        ("fe80::1%eth0", True),
        ("11.1.2.3", False),
        ("::1", False),
        ("2001:db9::1", False),
        ("", False),
        ("unix", False),
    ],
)
def test_a_key_may_be_bound_to_addresses(ip: str, allowed: bool) -> None:
    """IPv4, IPv6, IPv4 in IPv6; a good key from elsewhere is a 403, a wrong one a 401 from anywhere."""
    directory = DIRECTORY.patched([replace(KEY, allowed_ips=("10.0.0.0/8", "2001:db8::/32", "fe80::1"))])
    if allowed:
        assert ask(directory, ip=ip).key_id == KEY.id
    else:
        with pytest.raises(Forbidden):
            ask(directory, ip=ip)
    with pytest.raises(Unauthorized):
        ask(directory, wrong_secret(), ip=ip)


def test_a_key_may_be_bound_to_origins() -> None:
    """A key for a web page is not for anything else: without `Origin` it is refused, too."""
    directory = DIRECTORY.patched([replace(KEY, allowed_origins=("https://app.example",))])
    assert ask(directory, origin="https://app.example").key_id == KEY.id
    for origin in ("", "https://evil.example", "https://app.example.evil.example", "http://app.example", "null"):
        with pytest.raises(Forbidden):
            ask(directory, origin=origin)
    assert ask(DIRECTORY, origin="https://anywhere.example").key_id == KEY.id


def test_both_keys_are_good_while_a_rotation_overlaps() -> None:
    """As the same client; the old one up to its moment, not longer."""
    fresh = mint(RING)
    directory = DIRECTORY.patched(rotated(KEY, fresh, SOON))
    end = SOON.timestamp()
    assert ask(directory, fresh.text).id == ask(directory, MINTED.text, end - 1).id == ask(DIRECTORY).id
    assert isinstance(refusal(directory, MINTED.text, end), Unauthorized)
    assert ask(directory, fresh.text, end)


def test_a_change_concerns_the_new_directory_only() -> None:
    """Whoever reads the old one reads on undisturbed."""
    changed = DIRECTORY.patched([replace(KEY, revoked_at=MOMENT)], [place_of(LEGACY)])
    assert isinstance(refusal(changed), Unauthorized)
    assert isinstance(refusal(changed, LEGACY_TEXT), UnknownCredential)
    assert ask(DIRECTORY)
    assert ask(DIRECTORY, LEGACY_TEXT)
    assert (len(DIRECTORY), len(changed)) == (4, 3)


def test_a_change_of_a_user_reaches_every_credential_of_the_user() -> None:
    """Role, ban, removal; also of the tenant, and of the administrator who impersonates."""
    promoted = DIRECTORY.patched([replace(USER, role="admin")])
    assert Scope.ADMIN in ask(promoted, SESSION_TEXT).scopes
    for directory in (DIRECTORY.patched([replace(USER, banned=True)]), DIRECTORY.patched(removed=[place_of(USER)]),
                      DIRECTORY.patched(removed=[place_of(TENANT)])):  # fmt: skip
        assert all(isinstance(refusal(directory, text), Unauthorized) for text in TEXTS.values())
    impersonated = DIRECTORY.patched([replace(SESSION, impersonated_by="u2")])
    assert ask(impersonated, SESSION_TEXT).impersonator == "u2"
    assert isinstance(refusal(impersonated.patched(removed=[("user", "u2")]), SESSION_TEXT), Unauthorized)


def test_a_row_that_moves_to_another_text_leaves_the_old_one() -> None:
    """A session with a new token is not found by its old one."""
    other = replace(SESSION, token_hash=TOKEN.token_hash)
    directory = DIRECTORY.patched([other], [place_of(TOKEN), ("session", "never there")])
    assert isinstance(refusal(directory, SESSION_TEXT), UnknownCredential)
    assert ask(directory, TOKEN_TEXT).source is Source.SESSION


def test_a_long_stream_can_ask_whether_it_still_may() -> None:
    """Without the credential: revoked, expired, disabled, or with other rights or another tenant than it began with."""
    principal = ask(DIRECTORY)
    assert DIRECTORY.holds(principal, NOW)
    assert DIRECTORY.patched(rotated(KEY, mint(RING), SOON)).holds(principal, NOW)
    assert not DIRECTORY.patched(rotated(KEY, mint(RING), MOMENT)).holds(principal, NOW)
    changes: list[list[Record]] = [
        [replace(KEY, revoked_at=MOMENT)],
        [replace(KEY, expires_at=MOMENT)],
        [replace(TENANT, status="suspended")],
        [replace(KEY, scopes=("proxy",))],
        [replace(KEY, allowed_servers=("other",))],
        [replace(KEY, tenant_id="t2"), replace(TENANT, id="t2", slug="globex")],
    ]
    assert DIRECTORY.patched([replace(KEY, requests_per_minute=5)]).holds(principal, NOW)
    assert not any(DIRECTORY.patched(change).holds(principal, NOW) for change in changes)
    assert not DIRECTORY.patched(removed=[place_of(KEY)]).holds(principal, NOW)
    assert Directory(RING).holds(anonymous(), NOW)


def test_no_hash_shows_in_a_directory() -> None:
    """Nor in what it raises."""
    assert str(KEY.secret_hmac) not in repr(DIRECTORY)
    assert SESSION.token_hash.hex() not in refusal(Directory(RING), SESSION_TEXT).detail


class Patching(RuleBasedStateMachine):
    """Any sequence of patches answers like a directory built from the rows that are left."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[tuple[str, str], Record] = {}
        self.directory = Directory(RING)

    rows_to_put = st.one_of(
        st.builds(TenantRecord, st.sampled_from(["t1", "t2"]), st.just("x"), st.sampled_from(["active", "suspended"])),
        st.builds(
            UserRecord,
            st.sampled_from(["u1", "u2"]),
            st.sampled_from(["", "t1", "t2"]),
            st.sampled_from([None, "admin"]),
            st.booleans(),
        ),
        st.builds(
            lambda row, tenant, user, gone: replace(row, tenant_id=tenant, user_id=user, revoked_at=gone),
            st.sampled_from([KEY, LEGACY, TOKEN]),
            st.sampled_from(["", "t1", "t2"]),
            st.sampled_from(["", "u1", "u2"]),
            st.sampled_from([None, MOMENT]),
        ),
        st.builds(
            lambda user, by, hours: replace(
                SESSION, user_id=user, impersonated_by=by, expires_at=MOMENT + timedelta(hours=hours)
            ),
            st.sampled_from(["u1", "u2"]),
            st.sampled_from(["", "u1", "u2"]),
            st.sampled_from([-1, 1]),
        ),
    )
    places = st.sampled_from([place_of(row) for row in (*ROWS, replace(TENANT, id="t2"))])

    @rule(put=st.lists(rows_to_put, max_size=3), removed=st.lists(places, max_size=2))
    def patch(self, put: list[Record], removed: list[tuple[str, str]]) -> None:
        """One batch of changes."""
        self.directory = self.directory.patched(put, removed)
        changed = {place_of(row): row for row in put}
        for place in removed:
            self.rows.pop(place, None)
        self.rows.update(changed)

    @invariant()
    def answers_like_a_new_one(self) -> None:
        """For every text, the same principal or the same class of refusal."""
        fresh = Directory.of(RING, self.rows.values())
        for text in TEXTS.values():
            assert self.answer(self.directory, text) == self.answer(fresh, text)
        assert len(fresh) == len(self.directory)

    @staticmethod
    def answer(directory: Directory, text: str) -> Any:
        """A principal or the class of a refusal."""
        try:
            return ask(directory, text)
        except Refusal as refused:
            return type(refused)


TestPatching = Patching.TestCase
TestPatching.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)


def test_rows_have_their_places() -> None:
    """Table and id, as notifications name them."""
    assert [place_of(row) for row in ROWS] == [
        ("tenants", "t1"),
        ("user", "u1"),
        ("user", "u2"),
        ("enhanced_api_keys", KEY.id),
        ("api_keys", "l1"),
        ("api_tokens", "a1"),
        ("session", "s1"),
    ]
    assert isinstance(KEY, KeyRecord)
    assert isinstance(TOKEN, TokenRecord)
    assert isinstance(SESSION, SessionRecord)
