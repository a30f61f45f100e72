"""Who asks: scopes of messages, of roles and of stored names."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from proxy.identity.principal import (
    ROLE_SCOPES,
    SCOPE_OF,
    Scope,
    Source,
    anonymous,
    read_scopes,
    roles_of,
    scopes_of,
)
from proxy.mcp.methods import METHODS, UNKNOWN, Access


def test_every_access_has_its_scope() -> None:
    """Reading needs `read`, executing `write`, keeping a session going nothing beyond `proxy`."""
    assert SCOPE_OF == {Access.READ: Scope.READ, Access.EXECUTE: Scope.WRITE, Access.SESSION: None}
    assert set(SCOPE_OF) == set(Access)


def test_unknown_methods_need_write() -> None:
    """So do tool calls and tasks; lists and discovery need `read`."""
    assert SCOPE_OF[UNKNOWN.access] is Scope.WRITE
    for method in ("tools/call", "tasks/get", "tasks/cancel"):
        assert SCOPE_OF[METHODS[method].access] is Scope.WRITE
    for method in ("tools/list", "resources/read", "prompts/get", "ping", "server/discover", "resources/subscribe"):
        assert SCOPE_OF[METHODS[method].access] is Scope.READ


def test_administration_is_for_administrators() -> None:
    """Of the roles only `admin` has it, and nobody anonymous."""
    assert [role for role, scopes in ROLE_SCOPES.items() if Scope.ADMIN in scopes] == ["admin"]
    assert Scope.ADMIN not in anonymous().scopes


@pytest.mark.parametrize(
    ("text", "roles"),
    [(None, {"user"}), ("", {"user"}), ("admin", {"admin"}), ("user, admin,", {"user", "admin"}), (" , ", {"user"})],
)
def test_roles_are_joined_by_commas(text: str | None, roles: set[str]) -> None:
    """A user without a role is a `user`, as in Better-Auth."""
    assert roles_of(text) == roles


def test_scopes_of_roles_add_up_and_unknown_roles_have_none() -> None:
    """A role that is not in the table permits nothing."""
    assert scopes_of(frozenset(("viewer", "admin"))) == set(Scope)
    assert scopes_of(frozenset(("viewer",))) == {Scope.PROXY, Scope.READ}
    assert scopes_of(frozenset(("owner", "Admin"))) == frozenset()
    assert scopes_of(frozenset(("owner",)), {"owner": frozenset((Scope.READ,))}) == {Scope.READ}


def test_stored_names_that_are_no_scopes_permit_nothing() -> None:
    """No prefix, no other case, no wildcard."""
    assert read_scopes(("read", "proxy")) == {Scope.READ, Scope.PROXY}
    assert read_scopes(("READ", "*", "write:all", "server:a:*", "adm")) == frozenset()


def test_a_principal_is_a_fixed_value() -> None:
    """Anonymous ones are all the same, and nobody can raise its own scopes."""
    nobody = anonymous()
    assert nobody == anonymous()
    assert (nobody.tenant, nobody.tier, nobody.source) == ("", "anonymous", Source.ANONYMOUS)
    with pytest.raises(FrozenInstanceError):
        nobody.scopes = frozenset(Scope)  # type: ignore[misc]
