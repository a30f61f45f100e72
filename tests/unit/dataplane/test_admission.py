"""Who is let in follows configuration and rows, and a change costs what it changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.dataplane.context import ANONYMOUS
from proxy.errors import Forbidden, Unauthorized
from proxy.identity.access import Server
from proxy.identity.credentials import Credential, CredentialReader
from proxy.identity.principal import Scope
from proxy.identity.records import AccessRule
from tests.unit.dataplane.admitted import admitting, builder, configuration, rows_of
from tests.unit.identity.rows import EARLIER, KEY, LEGACY, LEGACY_TEXT, MINTED, NOW, ROWS, SESSION, TENANT, USER

ACME = Server("up", "s1", "t1")
DENY = AccessRule("r1", "t1", "deny")


def shown(text: str) -> Credential:
    """The credential that a client shows as a bearer text."""
    found = CredentialReader().read({"authorization": f"Bearer {text}"})
    assert found is not None
    return found


def test_without_a_database_nobody_looks_for_credentials() -> None:
    """And everyone is anonymous, where the listener is for this machine only."""
    admission = builder().build(configuration(), {})
    assert (admission.reader, admission.directory) == (None, None)
    assert admission.anonymous is ANONYMOUS
    assert admission.holds(ANONYMOUS, NOW)


def test_off_this_machine_there_is_no_anonymous() -> None:
    """Unless the configuration says so."""
    assert admitting(listen={"host": "0.0.0.0"}).anonymous is None
    assert not admitting(listen={"host": "0.0.0.0"}).holds(ANONYMOUS, NOW)
    assert admitting(listen={"host": "0.0.0.0"}, auth={"anonymous": True}).anonymous is ANONYMOUS


def test_scopes_of_roles_are_those_of_the_configuration() -> None:
    """Here a user may only read."""
    admission = admitting(auth={"roles": {"user": ["proxy", "read"]}})
    assert admission.directory is not None
    principal = admission.directory.authenticate(shown("s" * 32), "::1", "", NOW)
    assert principal.scopes == {Scope.PROXY, Scope.READ}


def test_a_change_is_patched_in() -> None:
    """A key that is revoked and a rule that denies; what is not named stays the same."""
    before = admitting()
    rows = rows_of(*(record for record in ROWS if record not in (KEY, LEGACY)), replace(KEY, revoked_at=EARLIER), DENY)
    changes = {("enhanced_api_keys", KEY.id), ("api_keys", LEGACY.id), ("server_access_control", "r1")}
    after = builder().patched(before, rows, changes)
    assert before.directory is not None
    assert after.directory is not None
    principal = before.directory.authenticate(shown(MINTED.text), "::1", "", NOW)
    assert not after.holds(principal, NOW)
    for text in (MINTED.text, LEGACY_TEXT):
        with pytest.raises(Unauthorized):
            after.directory.authenticate(shown(text), "::1", "", NOW)
    user = after.directory.authenticate(shown("s" * 32), "::1", "", NOW)
    with pytest.raises(Forbidden):
        after.access.authorize(user, ACME, None, NOW)
    assert builder().patched(before, rows, set()).access is before.access


def test_without_a_database_rows_change_nothing() -> None:
    """There is nobody to let in by them."""
    admission = builder().build(configuration(), {})
    assert builder().patched(admission, rows_of(TENANT, USER, SESSION), {("user", USER.id)}) is admission
