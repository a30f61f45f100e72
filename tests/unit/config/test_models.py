"""Servers and routes that are right, and what a change of them means."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.models import Config, RouteServer, restart_keys


def config(**keys: Any) -> Config:
    """A configuration with one server and these keys."""
    return Config.model_validate({"servers": {"a": {"url": "https://a.example/mcp"}}, **keys})


def test_servers_of_a_route_may_be_written_in_four_ways() -> None:
    """A name, a list of names, names with weights, or mixed."""
    for written in ("a", ["a"], [{"name": "a"}], [{"name": "a", "weight": 1}]):
        route = config(routes=[{"name": "r", "path": "/r", "servers": written}]).routes[0]
        assert route.servers == (RouteServer(name="a", weight=1),)


def test_passthrough_needs_exactly_one_server() -> None:
    """Unsealed ids do not say where a session lives."""
    one = {"name": "r", "path": "/r", "servers": ["a"], "sessions": "passthrough"}
    assert config(routes=[one]).routes[0].sessions == "passthrough"
    with pytest.raises(ValueError, match="exactly one server"):
        config(routes=[{**one, "servers": ["a", "b"]}])


@pytest.mark.parametrize("when", [{"host": "x"}, {"header": {"X": "y"}}, {"client_ip": "10.0.0.0/8"}, {"percent": 5}])
def test_without_inspection_conditions_on_the_head_still_work(when: dict[str, Any]) -> None:
    """They need no body."""
    assert config(routes=[{"name": "r", "path": "/r", "servers": "a", "inspect": "none", "when": when}])


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
    )  # fmt: skip
    assert restart_keys(before, before) == []
    assert restart_keys(before, after) == ["listen.port", "admin", "log.format", "metrics", "state_dir"]


def test_a_dump_shows_no_credential() -> None:
    """Not in JSON, not in text."""
    server = {"url": "http://a/", "headers": {"Authorization": "Bearer topsecret"}}
    shown = config(servers={"a": server})
    assert "topsecret" not in repr(shown) + str(shown.model_dump()) + shown.model_dump_json()
