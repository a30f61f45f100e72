"""Strategies: nobody who cannot take the request is chosen, and the shares are those promised."""

import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from proxy.config.models import Server
from proxy.dataplane.balancer import Selection, select
from proxy.dataplane.upstream import Upstream

STRATEGIES = ["round_robin", "weighted", "least_connections", "random", "power_of_two", "consistent_hash", "priority"]
BALANCED = ["round_robin", "weighted", "least_connections", "random", "power_of_two"]


class Backend(Upstream):
    """A server that may be told not to take traffic, as breakers and health will, and to take none at all."""

    down = False
    barred = False

    def available(self) -> bool:
        return not self.down and not self.barred

    def possible(self) -> bool:
        return not self.barred


def server(name: str) -> Upstream:
    return Backend(name, Server(url="http://127.0.0.1:9/mcp"), None, None)


def route(
    strategy: str, weights: dict[str, int], sticky: bool = False, draw: Callable[[], float] | None = None
) -> tuple[Selection, dict[str, Upstream]]:
    servers = {name: server(name) for name in weights}
    pairs = [(servers[name], weight) for name, weight in weights.items()]
    return select(strategy, pairs, draw or random.Random(7).random, sticky=sticky), servers


def names(selection: Selection, count: int, key: str = "", tried: tuple[str, ...] = ()) -> list[str]:
    picked = [selection.pick(key, tried) for _ in range(count)]
    return [one.name for one in picked if one is not None]


class Picks(RuleBasedStateMachine):
    """A route of any strategy while its servers come and go, fill up and slow down."""

    @initialize(
        strategy=st.sampled_from(STRATEGIES),
        sticky=st.booleans(),
        weights=st.lists(st.integers(0, 3), min_size=1, max_size=5),
        seed=st.integers(0, 99),
    )
    def a_route(self, strategy: str, sticky: bool, weights: list[int], seed: int) -> None:
        self.weights = {f"s{number}": weight for number, weight in enumerate(weights)}
        self.selection, self.servers = route(strategy, self.weights, sticky, random.Random(seed).random)

    @rule(number=st.integers(0, 4), down=st.booleans(), in_flight=st.integers(0, 3), latency=st.floats(0, 2))
    def a_server_changes(self, number: int, down: bool, in_flight: int, latency: float) -> None:
        one = self.servers.get(f"s{number}")
        if one is not None:
            one.down, one.in_flight, one.latency_ewma_s = down, in_flight, latency

    @rule(number=st.integers(0, 4), barred=st.booleans())
    def a_server_is_barred(self, number: int, barred: bool) -> None:
        """Its breaker is open, or it is under maintenance."""
        one = self.servers.get(f"s{number}")
        if one is not None:
            one.barred = barred

    @rule(key=st.sampled_from(["", "a", "b"]), tried=st.sets(st.integers(0, 4).map("s{}".format)))
    def a_request_comes(self, key: str, tried: set[str]) -> None:
        able = {
            name for name, one in self.servers.items() if self.weights[name] and one.available() and name not in tried
        }
        picked = self.selection.pick(key, tried)
        assert (picked is None) == (not able)
        assert picked is None or picked.name in able

    @rule(tried=st.sets(st.integers(0, 4).map("s{}".format)))
    def a_request_takes_what_is_left(self, tried: set[str]) -> None:
        """The least busy of those that are not barred, available or not."""
        left = {
            name: one.in_flight
            for name, one in self.servers.items()
            if self.weights[name] and not one.barred and name not in tried
        }
        picked = self.selection.last_resort(tried)
        assert (picked is None) == (not left)
        assert picked is None or left[picked.name] == min(left.values())

    @rule()
    def somebody_looks_at_all(self) -> None:
        """Those that have a weight, in the order written, whatever their state."""
        assert [one.name for one in self.selection.candidates()] == [
            name for name in self.weights if self.weights[name]
        ]

    @rule(key=st.sampled_from(["", "a"]))
    def a_request_tries_all(self, key: str) -> None:
        """Retrying ends, and has tried everyone who could."""
        able = {name for name, one in self.servers.items() if self.weights[name] and one.available()}
        tried: list[str] = []
        while (picked := self.selection.pick(key, tried)) is not None:
            tried.append(picked.name)
        assert sorted(tried) == sorted(able)

    @rule(number=st.integers(0, 5))
    def a_session_asks_for_its_server(self, number: int) -> None:
        assert self.selection.get(f"s{number}") is self.servers.get(f"s{number}")


TestPicks = Picks.TestCase
TestPicks.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weight_0_drains_a_server(strategy: str) -> None:
    """No new request goes there, not even when it is the only one; its sessions still find it."""
    selection, servers = route(strategy, {"old": 0, "new": 1})
    assert set(names(selection, 20)) == {"new"}
    assert selection.get("old") is servers["old"]
    servers["new"].down = True
    assert selection.pick("key", ()) is None
    drained, _ = route(strategy, {"a": 0, "b": 0})
    assert drained.pick("", ()) is None
    assert drained.get("b") is not None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_last_resort_is_the_least_busy_that_is_not_barred(strategy: str) -> None:
    """Whatever the strategy: who is said to be down is not to be finished off."""
    selection, servers = route(strategy, {"a": 1, "b": 9, "c": 1, "drained": 0})
    for number, one in enumerate(servers.values()):
        one.down, one.in_flight = True, 3 - number
    assert selection.pick("key", ()) is None
    assert selection.last_resort(()) is servers["c"]
    assert selection.last_resort(("c",)) is servers["b"]
    servers["b"].barred = True
    assert selection.last_resort(("c",)) is servers["a"]
    assert selection.last_resort(("a", "c")) is None
    assert list(selection.candidates()) == [servers[name] for name in "abc"]


def test_a_server_alone_is_its_own_last_resort() -> None:
    """And one that takes nothing new is nobody's."""
    selection, servers = route("random", {"only": 1})
    servers["only"].down = True
    assert selection.last_resort(()) is servers["only"]
    assert selection.last_resort(("only",)) is None
    drained, _ = route("random", {"a": 0})
    assert drained.last_resort(()) is None
    assert list(drained.candidates()) == []


def test_round_robin_takes_turns() -> None:
    """In the order written."""
    selection, _ = route("round_robin", {"a": 1, "b": 9, "c": 1})
    assert names(selection, 6) == ["a", "b", "c", "a", "b", "c"]


@pytest.mark.parametrize("down", [{"b"}, {"a", "b"}, {"b", "d"}])
def test_round_robin_spreads_the_turns_of_a_server_that_is_down(down: set[str]) -> None:
    """Its neighbour does not get them all."""
    selection, servers = route("round_robin", dict.fromkeys("abcd", 1))
    for name in down:
        servers[name].down = True
    shares = Counter(names(selection, 240))
    assert set(shares) == set("abcd") - down
    assert max(shares.values()) == min(shares.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_server_in_slow_start_gets_a_tenth_of_its_share(strategy: str) -> None:
    """Each is asked once for each choice: asked again, it would get up to twice as much."""
    chance = random.Random(7)
    selection, servers = route(strategy, dict.fromkeys("ab", 1), draw=chance.random)
    asked: Counter[str] = Counter()

    def starting() -> bool:
        asked["a"] += 1
        return chance.random() < 0.1

    servers["a"].available = starting
    for _ in range(4000):
        before = asked["a"]
        selection.pick("", ())
        assert asked["a"] - before <= 1
    share = Counter(names(selection, 4000))["a"] / 4000
    assert share < (0.12 if strategy in ("priority", "least_connections") else 0.06)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_weighted_is_exact_over_a_cycle(weights: list[int]) -> None:
    """And over every further one; after the sum of the weights it stands where it began."""
    by_name = {f"s{number}": weight for number, weight in enumerate(weights)}
    selection, _ = route("weighted", by_name)
    cycle = names(selection, sum(weights))
    assert Counter(cycle) == by_name
    assert names(selection, sum(weights)) == cycle


def test_weighted_is_smooth() -> None:
    """5, 1, 1 is nginx's own example."""
    selection, _ = route("weighted", {"a": 5, "b": 1, "c": 1})
    assert "".join(names(selection, 7)) == "aabacaa"


def test_weighted_keeps_the_shares_of_those_that_are_left() -> None:
    """A server that is down takes no credit."""
    selection, servers = route("weighted", {"a": 3, "b": 2, "c": 1})
    servers["b"].down = True
    assert Counter(names(selection, 40)) == {"a": 30, "c": 10}


def test_least_connections_fills_in_proportion_to_the_weights() -> None:
    """Streams that stay open end up 3 to 1."""
    selection, servers = route("least_connections", {"a": 3, "b": 1})
    for _ in range(40):
        picked = selection.pick("", ())
        assert picked is not None
        picked.in_flight += 1
    assert {name: one.in_flight for name, one in servers.items()} == {"a": 30, "b": 10}


def test_least_connections_lets_equal_servers_take_turns() -> None:
    """Idle servers are not always asked in the order written."""
    selection, servers = route("least_connections", dict.fromkeys("abc", 1))
    assert Counter(names(selection, 30)) == dict.fromkeys("abc", 10)
    servers["a"].in_flight = 1
    assert Counter(names(selection, 30)) == {"b": 15, "c": 15}


def test_random_follows_the_weights() -> None:
    """Also among those that are left when one is down."""
    selection, servers = route("random", {"a": 1, "b": 2, "c": 5})
    shares = Counter(names(selection, 8000))
    assert [shares[name] / 1000 for name in "abc"] == pytest.approx([1, 2, 5], rel=0.1)
    servers["c"].down = True
    shares = Counter(names(selection, 3000))
    assert [shares[name] / 1000 for name in "ab"] == pytest.approx([1, 2], rel=0.1)


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1 - 2**-53])
def test_every_draw_is_a_server(drawn: float) -> None:
    """The ends of the range, too."""
    for strategy in ("random", "power_of_two"):
        selection, _ = route(strategy, dict.fromkeys("abc", 1000), draw=lambda: drawn)
        assert selection.pick("", ()) is not None


def test_power_of_two_prefers_the_faster_server() -> None:
    """And looks at the other one again now and then, so that a stale average cannot last."""
    selection, servers = route("power_of_two", {"fast": 1, "slow": 1})
    servers["fast"].latency_ewma_s, servers["slow"].latency_ewma_s = 0.01, 0.1
    assert Counter(names(selection, 640)) == {"fast": 630, "slow": 10}
    servers["fast"].in_flight = 10
    assert Counter(names(selection, 640)) == {"fast": 10, "slow": 630}


def test_power_of_two_compares_any_two_servers() -> None:
    """All pairs come up: the slowest of three gets its second looks only."""
    selection, servers = route("power_of_two", dict.fromkeys("abc", 1))
    for name, latency in zip("abc", (0.01, 0.02, 0.5), strict=True):
        servers[name].latency_ewma_s = latency
    shares = Counter(names(selection, 6400))
    assert shares["a"] > shares["b"] > shares["c"]
    assert shares["a"] / 6400 == pytest.approx(2 / 3, abs=0.03)
    assert 0 < shares["c"] <= 100


def test_power_of_two_tries_a_server_without_a_sample() -> None:
    """One that nobody has asked yet is asked at once."""
    selection, servers = route("power_of_two", {"known": 1, "new": 1})
    servers["known"].latency_ewma_s = 0.001
    assert names(selection, 3) == ["new"] * 3


def test_power_of_two_does_not_pour_requests_into_a_server_that_never_answers() -> None:
    """Without a sample it is no better than its open requests."""
    selection, servers = route("power_of_two", {"known": 1, "hung": 1})
    servers["known"].latency_ewma_s = 0.5
    for _ in range(60):
        picked = selection.pick("", ())
        assert picked is not None
        if picked.name == "hung":
            picked.in_flight += 1
    assert servers["hung"].in_flight == 1


def test_priority_takes_the_first_that_can() -> None:
    """In the order written."""
    selection, servers = route("priority", dict.fromkeys("abc", 1))
    assert names(selection, 2) == ["a", "a"]
    assert names(selection, 1, tried=("a",)) == ["b"]
    servers["a"].down = True
    assert names(selection, 2, tried=("b",)) == ["c", "c"]


KEYS = [f"client {number}" for number in range(3000)]


def owners(selection: Selection) -> dict[str, str]:
    return {key: names(selection, 1, key)[0] for key in KEYS}


def test_a_key_keeps_its_server_and_only_those_of_a_lost_server_move() -> None:
    """They spread over the others, and come back with it."""
    selection, servers = route("consistent_hash", dict.fromkeys("abcde", 1))
    before = owners(selection)
    servers["c"].down = True
    after = owners(selection)
    moved = {key for key in KEYS if before[key] != after[key]}
    assert moved == {key for key in KEYS if before[key] == "c"}
    assert len(moved) / len(KEYS) == pytest.approx(1 / 5, abs=0.03)
    assert {after[key] for key in moved} == set("abde")
    servers["c"].down = False
    assert owners(selection) == before


def test_every_replica_sends_a_key_to_the_same_server() -> None:
    """Whatever it drew, whatever it did before, and in whatever order its servers are written."""
    one, _ = route("consistent_hash", {"a": 1, "b": 2, "c": 1}, draw=random.Random(1).random)
    other, _ = route("consistent_hash", {"c": 1, "b": 2, "a": 1}, draw=random.Random(2).random)
    names(other, 5)
    assert owners(one) == owners(other)


def test_a_key_takes_the_next_server_when_its_own_was_tried() -> None:
    """The same next one each time."""
    selection, _ = route("consistent_hash", dict.fromkeys("abc", 1))
    first = names(selection, 1, "key")[0]
    second = names(selection, 5, "key", tried=(first,))
    assert len(set(second)) == 1
    assert second[0] != first


@pytest.mark.parametrize("strategy", BALANCED)
def test_affinity_outranks_the_strategy_only_where_there_is_a_key(strategy: str) -> None:
    """The same key, the same server; no key, the strategy's own choice over both servers."""
    selection, _ = route(strategy, {"a": 1, "b": 1}, sticky=True)
    assert len(set(names(selection, 20, "key"))) == 1
    assert len(set(names(selection, 40))) == 2


def test_without_affinity_a_key_means_nothing() -> None:
    """A strategy that does not hash does not look at it."""
    selection, _ = route("round_robin", dict.fromkeys("ab", 1))
    assert names(selection, 4, "key") == ["a", "b", "a", "b"]


def test_a_hash_without_a_key_is_random() -> None:
    """Requests that have nothing to hash do not all meet on one server."""
    selection, _ = route("consistent_hash", dict.fromkeys("ab", 1))
    assert min(Counter(names(selection, 100)).values()) > 30


@pytest.mark.parametrize(("strategy", "tried"), list(itertools.product(STRATEGIES, [(), ("only",)])))
def test_one_server_is_picked_unless_it_was_tried(strategy: str, tried: tuple[str, ...]) -> None:
    """The common case, whatever the strategy says."""
    selection, servers = route(strategy, {"only": 1})
    assert selection.pick("key", tried) is (None if tried else servers["only"])
