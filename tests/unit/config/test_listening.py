"""The proxy's own side of the configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.config.listening import Listen, Sessions


def test_by_default_only_this_machine_is_served() -> None:
    """Whoever wants more says so."""
    listen = Listen()
    assert (listen.host, listen.port, listen.tls, listen.public_url) == ("127.0.0.1", 8080, None, None)


def test_a_model_is_frozen() -> None:
    """A snapshot that requests read must not change under them."""
    with pytest.raises(ValidationError, match="frozen"):
        Listen().port = 1  # type: ignore[misc]


def test_keys_are_hidden() -> None:
    """No representation and no dump shows them."""
    sessions = Sessions.model_validate({"keys": ["0123456789abcdef"]})
    assert "0123456789abcdef" not in repr(sessions) + str(sessions.model_dump()) + sessions.model_dump_json()
