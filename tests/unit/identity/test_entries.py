"""One row, its user and its tenant, compiled into what a request is checked against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from proxy.identity.entries import Entry, Surroundings, compile_key, compile_session, compile_token
from proxy.identity.keys import mint
from proxy.identity.principal import Scope, Source
from proxy.identity.records import KeyRecord, SessionRecord, TenantRecord, TokenRecord, UserRecord, rotated
from tests.unit.identity.rows import (
    ADMIN,
    EARLIER,
    KEY,
    LEGACY,
    MINTED,
    MOMENT,
    NOW,
    RING,
    SESSION,
    SOON,
    TENANT,
    TOKEN,
    USER,
)


def around(tenant: TenantRecord = TENANT, user: UserRecord = USER, admin: UserRecord = ADMIN) -> Surroundings:
    """The tenant and its users."""
    return Surroundings({tenant.id: tenant}, {user.id: user, admin.id: admin}, {KEY.id: KEY})


def compiled(row: KeyRecord | TokenRecord | SessionRecord, surroundings: Surroundings | None = None) -> Entry:
    """The entry of a row of any table."""
    compilers: dict[type, Callable[[Any, Surroundings], Entry]] = {
        KeyRecord: compile_key,
        TokenRecord: compile_token,
        SessionRecord: compile_session,
    }
    return compilers[type(row)](row, surroundings or around())


EVERY = pytest.mark.parametrize("row", [KEY, LEGACY, TOKEN, SESSION], ids=["key", "legacy", "token", "session"])


@EVERY
def test_a_good_row_holds_and_belongs_to_its_tenant_and_user(row: Any) -> None:
    """Tenant by id and by name, the user, and the row."""
    entry = compiled(row)
    principal = entry.principal
    assert entry.holds(NOW)
    assert (principal.tenant, principal.tenant_slug, principal.user, principal.key_id) == ("t1", "acme", "u1", row.id)
    assert principal.scopes == {Scope.PROXY, Scope.READ, Scope.WRITE}
    assert principal.roles == {"user"}


def test_each_table_is_a_source_and_each_client_has_its_own_id() -> None:
    """A user is the same client in every session."""
    entries = [compiled(row) for row in (KEY, LEGACY, TOKEN, SESSION)]
    assert [entry.principal.source for entry in entries] == [
        Source.KEY,
        Source.LEGACY_KEY,
        Source.BEARER,
        Source.SESSION,
    ]
    assert [entry.principal.id for entry in entries] == [f"key:{KEY.id}", "legacy:l1", "token:a1", "user:u1"]
    assert compiled(replace(SESSION, id="s2")).principal.id == "user:u1"


@EVERY
def test_expiry_is_the_first_moment_at_which_a_credential_fails(row: Any) -> None:
    """And the principal knows it."""
    entry = compiled(replace(row, expires_at=SOON))
    end = SOON.timestamp()
    assert entry.holds(end - 0.001)
    assert not entry.holds(end)
    assert entry.principal.expires_at == end


@EVERY
@pytest.mark.parametrize(
    "surroundings",
    [
        around(tenant=replace(TENANT, status="suspended")),
        around(tenant=replace(TENANT, id="other")),
        around(user=replace(USER, id="other")),
        around(user=replace(USER, banned=True)),
        around(user=replace(USER, banned=True, ban_expires=SOON)),
    ],
    ids=["tenant suspended", "tenant gone", "user gone", "banned", "banned for a while"],
)
def test_without_its_tenant_and_its_user_a_credential_is_nothing(row: Any, surroundings: Surroundings) -> None:
    """Whatever the row itself says."""
    assert not compiled(row, surroundings).holds(NOW)


@EVERY
def test_a_ban_ends(row: Any) -> None:
    """At its moment, and a ban that is lifted counts for nothing."""
    entry = compiled(row, around(user=replace(USER, banned=True, ban_expires=MOMENT)))
    assert entry.holds(NOW)
    assert not entry.holds(NOW - 0.001)
    assert compiled(row, around(user=replace(USER, banned=False, ban_expires=SOON))).holds(NOW)
    assert compiled(row, around(user=replace(USER, banned=None))).holds(NOW)


@pytest.mark.parametrize("change", [{"revoked_at": EARLIER}, {"revoked_at": SOON}])
@pytest.mark.parametrize("row", [KEY, LEGACY, TOKEN], ids=["key", "legacy", "token"])
def test_revoked_rows_never_hold(row: Any, change: dict[str, Any]) -> None:
    """The mark counts, not its moment."""
    assert not compiled(replace(row, **change)).holds(NOW)


def test_a_key_is_not_good_before_its_time() -> None:
    """Not-before is the first good moment."""
    entry = compiled(replace(KEY, not_before=MOMENT))
    assert entry.holds(NOW)
    assert not entry.holds(NOW - 0.001)


def test_a_credential_of_no_user_and_no_tenant_stands_for_itself() -> None:
    """Such keys exist for machines and for operators."""
    principal = compiled(replace(KEY, tenant_id="", user_id="")).principal
    assert (principal.tenant, principal.tenant_slug, principal.user, principal.roles) == ("", "", "", frozenset())
    assert compiled(replace(KEY, tenant_id="", user_id="")).holds(NOW)


def test_a_session_has_the_scopes_of_its_users_roles() -> None:
    """Read when it is compiled; an administrator is in the administrators' tier."""
    entry = compiled(SESSION, around(user=replace(USER, role="admin")))
    assert Scope.ADMIN in entry.principal.scopes
    assert entry.principal.tier == "admin"
    assert compiled(SESSION, around(user=replace(USER, role="guest"))).principal.scopes == frozenset()


def test_impersonation_is_recorded_and_gives_no_scopes() -> None:
    """The administrator acts with the user's scopes, and only while being an active user."""
    row = replace(SESSION, impersonated_by="u2")
    principal = compiled(row).principal
    assert (principal.user, principal.impersonator) == ("u1", "u2")
    assert Scope.ADMIN not in principal.scopes
    assert not compiled(row, around(admin=replace(ADMIN, banned=True))).holds(NOW)
    assert not compiled(replace(row, impersonated_by="gone")).holds(NOW)


def test_a_network_that_cannot_be_read_lets_nobody_in() -> None:
    """The others of the list stay."""
    entry = compiled(replace(KEY, allowed_ips=("10.0.0.0/8", "10.0.0.1/8", "x")))
    assert entry.networks is not None
    assert "10.1.1.1" in entry.networks
    closed = compiled(replace(KEY, allowed_ips=("x",))).networks
    assert closed is not None
    assert "10.1.1.1" not in closed


def test_limits_of_a_key_are_its_principals() -> None:
    """Servers, tools, tier, rate and origins."""
    entry = compiled(
        replace(
            KEY,
            tier="gold",
            requests_per_minute=50,
            burst=7,
            allowed_servers=("github",),
            allowed_tools=("search_*",),
            allowed_origins=("https://app.example",),
        )
    )
    assert (entry.principal.tier, entry.principal.requests_per_minute, entry.principal.burst) == ("gold", 50, 7)
    assert entry.principal.allowed.tool("github", "search_all")
    assert not entry.principal.allowed.tool("github", "delete")
    assert entry.origins == {"https://app.example"}
    assert entry.principal.expires_at == inf


def test_a_rotated_key_is_the_same_client() -> None:
    """Through any number of rotations, as long as the older rows are there and of the same tenant."""
    second, _ = rotated(KEY, mint(RING), SOON)
    third, _ = rotated(second, mint(RING), SOON)
    keys = {row.id: row for row in (KEY, second, third)}
    known = Surroundings(around().tenants, around().users, keys)
    assert compile_key(third, known).principal.id == compile_key(KEY, known).principal.id == f"key:{KEY.id}"
    assert compile_key(third, around()).principal.id == f"key:{third.id}"
    foreign = Surroundings(known.tenants, known.users, {**keys, KEY.id: replace(KEY, tenant_id="t2")})
    assert compile_key(third, foreign).principal.id == f"key:{second.id}"


def test_keys_that_replace_each_other_in_a_circle_are_keys_all_the_same() -> None:
    """Nobody can make the index run for ever."""
    circle = replace(KEY, rotated_from=KEY.id)
    assert compile_key(circle, Surroundings(around().tenants, around().users, {KEY.id: circle})).holds(NOW)


def test_what_is_stored_of_a_key_is_what_its_secret_is_compared_with() -> None:
    """Hash and version of the pepper."""
    assert compiled(KEY).stored == (MINTED.secret_hmac, 1)
