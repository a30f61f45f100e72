"""What waits in memory, and what is only counted."""

from __future__ import annotations

from proxy.spool.ring import Ring, Tallies


def test_records_come_out_in_their_order_and_give_their_room_back() -> None:
    """First come, first written."""
    ring = Ring(10_000)
    for number in range(3):
        assert ring.put(f"{number}", b"record %d" % number)
    for number in range(3):
        assert ring.first == (f"{number}", b"record %d" % number)
        ring.drop_first()
    assert (len(ring), ring.size) == (0, 0)


def test_ends_of_requests_find_room_where_beginnings_no_longer_do() -> None:
    """Up to twice the size; then they too are refused."""
    ring = Ring(10_000)
    while ring.put("key", bytes(500)):
        pass
    assert not ring.has_room
    assert ring.size <= 10_000
    while ring.put("", bytes(500), end=True):
        pass
    assert 19_000 < ring.size <= 20_000


def test_counts_are_by_tenant_and_minute() -> None:
    """A minute begins with its first second."""
    tallies = Tallies()
    for tenant, now in (("a", 59.9), ("a", 60.0), ("a", 119.9), ("", 60.0)):
        tallies.count(tenant, now)
    assert list(tallies.each()) == [("a", 0, 1), ("a", 60, 2), ("", 60, 1)]
    tallies.drop("a", 60)
    assert len(tallies) == 2


def test_a_count_is_due_when_its_minute_is_over() -> None:
    """Or when the clock was set back, or nobody will ask again."""
    tallies = Tallies()
    assert not tallies.due(0.0, last=True)
    tallies.count("a", 60.0)
    assert [tallies.due(now) for now in (60.0, 119.9, 120.0, 59.9)] == [False, False, True, True]
    assert tallies.due(60.0, last=True)


def test_counts_are_bounded_and_none_is_lost() -> None:
    """What cannot be told apart any more is still counted."""
    tallies = Tallies()
    for number in range(10_000):
        tallies.count(f"tenant {number}", 0.0)
    assert len(tallies) <= 4097
    assert sum(count for _, _, count in tallies.each()) == 10_000
