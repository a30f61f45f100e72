"""The script in the real engine, held against its model in Python; what its buckets weigh, and that they all expire."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from proxy.dataplane.limit_script import (
    SCRIPT,
    TEXT,
    LimitScript,
    bucket_key,
    fair_key,
    outcome_of,
    packed_bucket,
)
from proxy.limits.bucket import Ask, Buckets, Fair, Outcome
from proxy.limits.rules import Demand, Rule
from tests.unit.dataplane.valkey import Wire, server

#: The script with the clock of the test, and lives that the clock of Redis does not end meanwhile.
TIMED = LimitScript(
    TEXT.replace("call('TIME')", "{redis.call('GET', 'seconds'), redis.call('GET', 'micros')}").replace(
        "ceil(seconds * 1000) + 1", "1000000"
    )
)
START_US = 1_795_000_000_000_000
RULES = (
    Rule("shared", "shared", "global", 40.0, 8.0),
    Rule("tight", "tight", "key", 3.0, 0.7),
    Rule("windowed", "windowed", "key", 6.0, 2.0, window=(5.0, 9.0)),
    Rule("shadow", "shadow", "tool", 2.0, 0.1, window=(3.0, 4.0), enforce=False),
    Rule("never", "never", "tool", 5.0, 0.0, enforce=False),
)


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A connection to an empty server that knows the script."""
    wire = Wire(server())
    wire.run("FLUSHALL", "SYNC")
    wire.send(SCRIPT.load)
    yield wire
    wire.close()


def ask_of(demand: Demand) -> Ask:
    """What the model is asked."""
    limit = demand.rule
    window = limit.window or (0.0, 0.0)
    return Ask(
        bucket_key(limit.id, demand.subject),
        limit.capacity,
        limit.refill_per_s,
        demand.cost,
        *window,
        limit.enforce,
    )


class SameAsModel(RuleBasedStateMachine):
    """The script and the model decide alike, whatever is asked and however the clock goes."""

    @initialize()
    def begin(self) -> None:
        """An empty Redis and an empty model."""
        self.wire = Wire(server())
        self.wire.run("FLUSHALL", "SYNC")
        self.wire.send(TIMED.load)
        self.model = Buckets(1000)
        self.now_us = START_US

    def teardown(self) -> None:
        """Give the connection back."""
        if hasattr(self, "wire"):
            self.wire.close()

    @rule(
        count=st.integers(1, 5),
        subjects=st.lists(st.sampled_from(("a", "b")), min_size=5, max_size=5),
        costs=st.lists(st.sampled_from((0.0, 0.5, 1.0, 2.0, 5.0, 10.0)), min_size=5, max_size=5),
        fair=st.none()
        | st.builds(
            Fair,
            st.sampled_from((fair_key("shared", "x"), fair_key("shared", "y"))),
            st.just(0),
            st.sampled_from((1.0, 4.0)),
            st.sampled_from((0.5, 8.0)),
            st.sampled_from((0.0, 4.0)),
        ),
    )
    def take(self, count: int, subjects: list[str], costs: list[float], fair: Fair | None) -> None:
        """A request with some of the rules."""
        demands = [Demand(*each) for each in zip(RULES, subjects, costs, strict=True)][:count]
        seconds, micros = divmod(self.now_us, 1_000_000)
        self.wire.run("MSET", "seconds", seconds, "micros", micros)
        command, keys = TIMED.command(demands, fair)
        outcome = outcome_of(self.wire.send(command))
        asks = [ask_of(demand) for demand in demands]
        assert [ask.key for ask in asks] == keys
        assert outcome == self.model.take(asks, fair, seconds + micros / 1_000_000)
        for tokens, demand in zip(outcome.remaining, demands, strict=True):
            assert 0 <= tokens <= demand.rule.capacity

    @rule(micros=st.integers(0, 3_000_000) | st.sampled_from((86_400_000_000, -1_000, -86_400_000_000)))
    def pass_time(self, micros: int) -> None:
        """The clock of Redis goes on, or is set."""
        self.now_us += micros


SameAsModel.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestSameAsModel = SameAsModel.TestCase


def take(wire: Wire, *demands: Demand, fair: Fair | None = None) -> Outcome:
    """One call of the real script."""
    return outcome_of(wire.send(SCRIPT.command(demands, fair)[0]))


def test_a_denied_request_leaves_no_trace(wire: Wire) -> None:
    """Neither in the bucket that refuses nor in the others."""
    rules = [Rule(name, name, "key", capacity, 0.001) for name, capacity in (("wide", 100.0), ("narrow", 2.0))]
    demands = [Demand(each, "s", 1.0) for each in rules]
    assert [take(wire, *demands).allowed for _ in range(4)] == [True, True, False, False]
    state = {key: wire.run("GET", key) for key in wire.run("KEYS", "*")}
    take(wire, *demands)
    assert {key: wire.run("GET", key) for key in wire.run("KEYS", "*")} == state
    assert struct.unpack("<2d", state[bucket_key("wide", "s")])[0] == pytest.approx(98, abs=0.01)


def test_the_clock_is_that_of_redis(wire: Wire) -> None:
    """Ten tokens per second come back, in real time."""
    limit = Rule("r", "r", "key", 5.0, 1000.0)
    demand = Demand(limit, "s", 5.0)
    assert take(wire, demand).allowed
    wait = take(wire, demand).waits[0]
    assert 0 < wait <= 0.005
    while not take(wire, demand).allowed:
        pass


def test_every_key_expires_when_it_would_be_full(wire: Wire) -> None:
    """And its window empty; one that never fills goes in a month."""
    for each, life_ms in (
        (Rule("a", "a", "key", 10.0, 1.0), 1_000),
        (Rule("b", "b", "key", 10.0, 1.0, window=(60.0, 100.0)), 121_000),
        (Rule("c", "c", "key", 10.0, 0.0), 2_592_000_000),
    ):
        take(wire, Demand(each, "s", 1.0), fair=Fair(fair_key(each.id, "t"), 0, 1.0, 0.1, 0.0))
        assert life_ms - 500 < wire.run("PTTL", bucket_key(each.id, "s")) <= life_ms + 1
        assert 9_500 < wire.run("PTTL", fair_key(each.id, "t")) <= 10_001


@pytest.mark.parametrize("window", [None, (60.0, 100.0)])
def test_a_bucket_weighs_at_most_250_bytes(wire: Wire, window: tuple[float, float] | None) -> None:
    """Key, value and expiry, with ids of rows for rule and subject; over ten thousand of them."""
    limit = Rule("0197f3a0-7c1e-7000-8000-000000000001", "r", "key", 100.0, 0.1, window=window)
    before = int(wire.run("INFO", "memory").split(b"used_memory:")[1].split(b"\r\n")[0])
    for number in range(10_000):
        take(wire, Demand(limit, f"0197f3a0-7c1e-7000-8000-{number:012d}", 1.0))
    after = int(wire.run("INFO", "memory").split(b"used_memory:")[1].split(b"\r\n")[0])
    assert wire.run("DBSIZE") == 10_000
    usage = wire.run("MEMORY", "USAGE", bucket_key(limit.id, "0197f3a0-7c1e-7000-8000-000000000007"))
    print(f"bytes per subject: MEMORY USAGE {usage}, used_memory {(after - before) / 10_000:.0f}")
    assert usage <= 250
    assert (after - before) / 10_000 <= 250


def test_long_subjects_are_short_in_keys() -> None:
    """Names come from clients; two of them are never the same bucket."""
    long, other = "tool" * 100, "tool" * 99 + "loot"
    assert len(bucket_key("rule", long)) < 64
    assert bucket_key("rule", long) != bucket_key("rule", other)
    assert bucket_key("rule", "\udcff") != bucket_key("rule", "\udcfe")


def test_a_rule_that_changes_counts_on(wire: Wire) -> None:
    """The same id with less capacity: what is left is cut to it; with a window: that begins unused."""
    take(wire, Demand(Rule("r", "r", "key", 100.0, 0.001), "s", 10.0))
    smaller = Rule("r", "r", "key", 5.0, 0.001, window=(60.0, 7.0))
    outcome = take(wire, Demand(smaller, "s", 1.0))
    assert outcome.allowed
    assert outcome.remaining[0] == pytest.approx(4.0)
    assert take(wire, Demand(Rule("r", "r", "key", 100.0, 0.001), "s", 0.0)).remaining[0] == pytest.approx(4.0, abs=0.1)


def test_a_bucket_that_is_given_to_redis_is_understood(wire: Wire) -> None:
    """As a worker does after an outage: so many tokens, and so much used in the window."""
    limit = Rule("r", "r", "key", 10.0, 0.001, window=(86_400.0, 100.0))
    seconds, micros = map(int, wire.run("TIME"))
    wire.run("SET", bucket_key("r", "s"), packed_bucket(3.0, seconds + micros / 1e6, limit.window, 98.0))
    assert take(wire, Demand(limit, "s", 0.0)).remaining[0] == pytest.approx(2.0, abs=0.01)
    assert [take(wire, Demand(limit, "s", 1.0)).allowed for _ in range(3)] == [True, True, False]


def test_limits_with_the_same_id_and_other_numbers_are_told_apart() -> None:
    """A key's own limits make rules of one id; the bytes of one are never used for the other."""
    one, other = (Rule("key:own", "key", "key", capacity, 1.0) for capacity in (5.0, 7.0))
    script = LimitScript(TEXT)
    commands = [script.command([Demand(each, "s", cost)], None)[0] for each in (one, other) for cost in (1.0, 2.0)]
    assert len(set(commands)) == 4
