"""Addresses that misbehave are blocked on every replica: two proxy processes with one Redis and one PostgreSQL.

The tests play a trusted proxy in front of both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest

from tests.harness import CALL, ProxyProcess, post, running_proxy
from tests.integration.blocking import connected
from tests.integration.identified import Identified, Key, api_key, ask, command, identified
from tests.unit.dataplane.valkey import server
from tests.unit.store.engine import folder

GUESSED: Final = "mcpx-a-key-that-somebody-made-up"
#: What is promised, from the first violation; seconds.
EVERYWHERE_S: Final = 2.0
ONE, OTHER = "203.0.113.7", "203.0.113.8"

pytestmark = pytest.mark.alone


class World:
    """Two replicas, and a key that is good on both."""

    def __init__(self, first: Identified, second: ProxyProcess) -> None:
        self.first = first
        self.replicas = (first.proxy, second)
        self.good: Key = first.key("acme")
        first.settle()
        waited_for(lambda: all(self.status(replica, OTHER) == 200 for replica in self.replicas), 10)

    def status(self, replica: ProxyProcess, client: str, *fields: str) -> int:
        """How a request with the good key, or these fields, is answered."""
        return ask(replica, request(client, *(fields or (api_key(self.good.text),)))).status

    def blocked(self, client: str) -> bool:
        """By both, whatever the key."""
        return all(self.status(replica, client) == 429 for replica in self.replicas)

    def events(self) -> list[tuple[Any, ...]]:
        rows = self.first.sql("SELECT host(client_ip) AS ip, event_type, severity, action_taken FROM security_events")
        return [tuple(row) for row in rows]


def request(client: str, *fields: str) -> bytes:
    """As the trusted proxy passes it on; '' for one of its own."""
    forwarded = (f"X-Forwarded-For: {client}",) if client else ()
    return post("/shared/mcp", CALL, *forwarded, *fields)


def waited_for(truth: Callable[[], bool], longest_s: float) -> float:
    """How long it took until this was true, seconds."""
    began = time.monotonic()
    while not truth():
        assert time.monotonic() - began < longest_s, "it did not come true"
        time.sleep(0.02)
    return time.monotonic() - began


@contextmanager
def two_replicas(**blocking: Any) -> Iterator[World]:
    """Two processes that share everything but their state directories."""
    sections: dict[str, Any] = {
        "redis": {"url": server().url},
        "listen": {"trusted_proxies": ["127.0.0.0/8"]},
        "limits": {"preset": "none", "blocking": blocking},
    }
    with ExitStack() as stack:
        first = stack.enter_context(identified(**sections))
        second = stack.enter_context(running_proxy(first.config | {"state_dir": str(folder() / "state")}))
        yield World(first, second)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Blocks at a score of 100, which is a hundred bad keys."""
    with two_replicas() as world:
        yield world


class Guesses:
    """What came of guessing keys on both replicas, turn by turn, from one address."""

    def __init__(self, world: World, client: str, count: int) -> None:
        self.statuses: list[list[int]] = [[], []]
        self.blocked_after_s = 0.0
        """From the first guess until both had said 429; 0 when they had not."""
        began = time.monotonic()
        with ExitStack() as stack:
            clients = [stack.enter_context(connected(replica)) for replica in world.replicas]
            for number in range(count):
                for each, seen in zip(clients, self.statuses, strict=True):
                    each.send(request(client, api_key(f"{GUESSED}-{number}")))
                    seen.append(each.answer()[0])
                if not self.blocked_after_s and all(seen[-1] == 429 for seen in self.statuses):
                    self.blocked_after_s = time.monotonic() - began


def test_a_thousand_bad_keys_block_the_address_on_both_replicas(world: World) -> None:
    """Within two seconds, for the good key as well, and nobody else behind the same proxy."""
    guesses = Guesses(world, ONE, 500)
    assert 0 < guesses.blocked_after_s < EVERYWHERE_S
    for seen in guesses.statuses:
        assert set(seen) == {401, 429} and seen == sorted(seen)
    for replica in world.replicas:
        assert world.status(replica, OTHER) == world.status(replica, "") == 200
        answer = ask(replica, request(ONE, api_key(world.good.text)))
        assert answer.status == 429 and 1 <= int(answer.fields["retry-after"]) <= 60
        assert b'"reason":"blocked"' in answer.body and ONE.encode() not in answer.body


def test_each_replica_alone_has_seen_too_little(world: World) -> None:
    """Sixty keys here and sixty there are too many together."""
    client = "203.0.113.60"
    guesses = Guesses(world, client, 120)
    assert sum(status == 401 for seen in guesses.statuses for status in seen) >= 100
    waited_for(lambda: world.blocked(client), EVERYWHERE_S)


def test_a_ban_is_told_once(world: World) -> None:
    """One row by one of the replicas, and one line of its log, also when both have seen enough to decide."""
    client = "203.0.113.61"
    Guesses(world, client, 120)
    waited_for(lambda: world.blocked(client), EVERYWHERE_S)
    waited_for(lambda: (client, "blocked") in {(row[0], row[3]) for row in world.events()}, 5)
    time.sleep(1.5)  # the other one would have written by now, too
    told = [row for row in world.events() if row[0] == client and row[3] != "logged"]  # what was refused has rows, too
    assert told == [(client, "bad_key", "medium", "blocked")]
    lines = [
        line for replica in world.replicas for line in replica.lines
        if line.get("event") == "address blocked" and line["address"] == client
    ]  # fmt: skip
    assert len(lines) == 1


def test_an_operator_blocks_and_lifts_on_every_replica(world: World) -> None:
    """With the commands, while the proxies run."""
    client = "203.0.113.62"
    assert command(world.first, "bans", "add", client, "--reason", "because").returncode == 0
    waited_for(lambda: world.blocked(client), EVERYWHERE_S)
    assert client in command(world.first, "bans", "list").stdout
    assert command(world.first, "bans", "remove", client).returncode == 0
    waited_for(lambda: all(world.status(replica, client) == 200 for replica in world.replicas), EVERYWHERE_S)


def test_who_shows_no_credential_or_asks_for_discovery_is_not_blocked(world: World) -> None:
    """That is how clients find out where to sign in."""
    client = "203.0.113.63"
    replica = world.replicas[0]
    for _ in range(150):
        assert ask(replica, request(client)).status == 401
    for _ in range(150):
        probe = post("/.well-known/oauth-protected-resource", CALL, f"X-Forwarded-For: {client}")
        assert ask(replica, probe).status in (401, 404, 405)
    assert world.status(replica, client) == 200


def test_what_the_gate_refuses_does_not_count_against_the_trusted_proxy(world: World) -> None:
    """Nobody knows whose request it was."""
    replica = world.replicas[0]
    for _ in range(250):
        assert ask(replica, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status == 400
    assert world.status(replica, "") == 200
