"""The sections of the databases: what they take, and that they keep their passwords to themselves."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from proxy.config.stores import Postgres, Redis

DSN = "postgresql://proxy:planted@db.example.com:5432/mcp"


@pytest.mark.parametrize(
    "section",
    [
        Postgres.model_validate({"dsn": DSN, "read_dsn": DSN, "analytics_dsn": DSN, "owner_dsn": DSN}),
        Redis.model_validate({"url": "rediss://:planted@cache.example.com:6380/1"}),
    ],
)
def test_passwords_are_hidden(section: BaseModel) -> None:
    """No representation and no dump shows them; whoever connects asks for them by name."""
    assert "planted" not in repr(section) + str(section) + str(section.model_dump()) + section.model_dump_json()


@pytest.mark.parametrize(
    "dsn",
    ["", "planted", "mysql://u:planted@h/d", "postgresql://u:planted@h:x/d", "postgresql://u:planted@[::1/d",
     "postgresql://u:planted@h:0/d"],
)  # fmt: skip
def test_a_dsn_that_is_none_is_refused_without_repeating_it(dsn: str) -> None:
    """One sentence with an example."""
    with pytest.raises(ValidationError, match="a DSN looks like postgresql://") as refused:
        Postgres.model_validate({"dsn": dsn})
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize(
    "dsn", [DSN, "postgres://h/d", "postgresql:///d?host=/run/postgresql", "postgresql://u@[::1]:5/d"]
)
def test_every_form_of_dsn_that_connects_is_taken(dsn: str) -> None:
    """Sockets and IPv6, too."""
    given = Postgres.model_validate({"dsn": dsn}).dsn
    assert given is not None and given.get_secret_value() == dsn


@pytest.mark.parametrize("url", ["http://planted/", "redis://h:planted/0"])
def test_a_redis_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    """One sentence with an example."""
    with pytest.raises(ValidationError, match="a Redis URL looks like") as refused:
        Redis.model_validate({"url": url})
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (Postgres, {}, "needs a 'dsn'"),
        (Postgres, {"read_dsn": DSN}, "needs a 'dsn'"),
        (Postgres, {"embedded": True, "dsn": DSN}, "no 'dsn' of any kind"),
        (Postgres, {"embedded": True, "owner_dsn": DSN}, "no 'dsn' of any kind"),
        (Redis, {}, "needs a 'url'"),
        (Redis, {"embedded": True, "url": "redis://h"}, "not both"),
        (Postgres, {"dsn": DSN, "pool": {"write": 0}}, "greater than or equal to 1"),
        (Postgres, {"dsn": DSN, "timeouts": {"statement": "0"}}, "longer than 0"),
    ],
)
def test_a_section_is_one_server_or_the_embedded_one(model: type[BaseModel], given: dict[str, Any], words: str) -> None:
    """Neither, both and useless numbers are refused."""
    with pytest.raises(ValidationError, match=words):
        model.model_validate(given)


def test_nothing_is_embedded_or_migrated_unless_it_is_said() -> None:
    """A shared database is changed only when somebody wants it."""
    postgres = Postgres.model_validate({"dsn": DSN})
    assert (postgres.embedded, postgres.auto_migrate) == (False, False)
    assert Postgres.model_validate({"embedded": True}).dsn is None
    assert Redis.model_validate({"embedded": True}).url is None
