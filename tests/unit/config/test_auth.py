"""Who may use the proxy, as configured."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.config.auth import Auth
from proxy.config.models import Config
from proxy.identity.principal import ROLE_SCOPES


def config(**keys: Any) -> Config:
    """A configuration with one server and these keys."""
    return Config.model_validate({"servers": {"a": {"url": "https://a.example/mcp"}}, **keys})


@pytest.mark.parametrize(
    ("keys", "anonymous"),
    [
        ({}, True),
        ({"listen": {"host": "localhost"}}, True),
        ({"listen": {"host": "::1"}}, True),
        ({"listen": {"host": "0.0.0.0"}}, False),
        ({"listen": {"host": "proxy.internal"}}, False),
        ({"listen": {"trusted_proxies": "127.0.0.1"}}, False),
        ({"auth": {"anonymous": False}}, False),
        ({"auth": {"anonymous": True}, "listen": {"host": "0.0.0.0"}}, True),
    ],
)
def test_without_a_word_only_this_machine_needs_no_credential(keys: dict[str, Any], anonymous: bool) -> None:
    """Loopback without a proxy in front; whatever is written wins."""
    assert config(**keys).anonymous is anonymous


def test_the_roles_are_those_of_identity() -> None:
    """The default of the configuration and that of the code that applies it."""
    assert {role: set(scopes) for role, scopes in Auth().roles.items()} == {
        role: {scope.value for scope in scopes} for role, scopes in ROLE_SCOPES.items()
    }


@pytest.mark.parametrize(
    "keys",
    [
        {"peppers": {0: "x" * 16}},
        {"peppers": {32768: "x" * 16}},
        {"peppers": {1: "short"}},
        {"session_secret": "short"},
        {"cookie_prefix": "a b"},
        {"roles": {"user": ["everything"]}},
    ],
)
def test_what_would_weaken_it_is_refused(keys: dict[str, Any]) -> None:
    """Short secrets, versions that the column cannot hold, prefixes that are no cookie names, scopes that are none."""
    with pytest.raises(ValidationError):
        Auth.model_validate(keys)


def test_a_dump_shows_no_secret() -> None:
    """Not in JSON, not in text."""
    shown = Auth.model_validate({"peppers": {"1": "pepper-of-this-test"}, "session_secret": "secret-of-this-test"})
    assert "of-this-test" not in repr(shown) + str(shown.model_dump()) + shown.model_dump_json()
