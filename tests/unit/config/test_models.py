"""Servers that are right, and what a change of the configuration means."""

from __future__ import annotations

from typing import Any

from proxy.config.models import Config, restart_keys


def config(**keys: Any) -> Config:
    """A configuration with one server and these keys."""
    return Config.model_validate({"servers": {"a": {"url": "https://a.example/mcp"}}, **keys})


def test_a_websocket_server_has_a_websocket_url_or_an_http_one() -> None:
    """The handshake is HTTP either way."""
    for url in ("ws://x/", "wss://x/", "http://x/", "https://x/"):
        assert config(servers={"w": {"url": url, "transport": "websocket"}})


def test_the_public_prefix_is_the_path_of_the_public_url() -> None:
    """Without its last slash; nothing when there is no public URL."""
    assert config().public_prefix == ""
    assert config(listen={"public_url": "https://x.example"}).public_prefix == ""
    assert config(listen={"public_url": "https://x.example/a/b/"}).public_prefix == "/a/b"


def test_only_what_is_built_once_needs_a_restart() -> None:
    """Sockets, the state directory, the log's shape, the cap on labels; all else is swapped in while requests run."""
    before = config()
    after = config(
        listen={"port": 1, "limits": {"body": "1MiB"}}, admin={"port": 2}, state_dir="x",
        log={"level": "debug", "format": "console"},
        sessions={"ttl": "1h"}, metrics={"max_servers": 1}, servers={"b": {"url": "http://b/"}},
        postgres={"embedded": True}, redis={"embedded": True}, auth={"anonymous": False},
    )  # fmt: skip
    assert restart_keys(before, before) == []
    assert restart_keys(before, after) == [
        "listen.port",
        "admin",
        "log.format",
        "metrics",
        "postgres",
        "redis",
        "state_dir",
    ]


def test_a_dump_shows_no_credential() -> None:
    """Not in JSON, not in text."""
    server = {"url": "http://a/", "headers": {"Authorization": "Bearer topsecret"}}
    shown = config(servers={"a": server})
    assert "topsecret" not in repr(shown) + str(shown.model_dump()) + shown.model_dump_json()


def test_a_repr_shows_no_url() -> None:
    """A token may stand in its query."""
    assert "topsecret" not in repr(config(servers={"a": {"url": "http://a/?token=topsecret"}}))
