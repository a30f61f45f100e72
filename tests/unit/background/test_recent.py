"""How things went, by tenant and server: sums of slots, later of minutes, never more than fit."""

from __future__ import annotations

import pytest

from proxy.background import recent as module
from proxy.background.recent import Recent
from proxy.background.sums import Sum


def requests(count: int) -> Sum:
    """So many, of one length."""
    total = Sum()
    total.requests = total.timed = count
    total.bins = {100: count}
    return total


def age(recent: Recent, slot: int) -> int:
    """All that is to do; returns in how many pieces."""
    pieces = 1
    while recent.age(slot, 3):
        pieces += 1
    return pieces


def count(recent: Recent, since: int, until: int, tenant: str = "", server: str = "") -> int:
    """Requests of a series."""
    return recent.total(tenant, server, since, until).requests


def test_every_series_that_a_request_belongs_to_has_it() -> None:
    """Its tenant, its server, both, and everything; nothing else."""
    recent = Recent()
    recent.add(1200, "acme", "files", requests(2))
    recent.add(1201, "acme", "mail", requests(3))
    recent.add(1201, "zeta", "mail", requests(5))
    recent.add(1201, "zeta", "", requests(7))
    assert count(recent, 1200, 1201) == 17
    assert (count(recent, 1200, 1201, "acme"), count(recent, 1200, 1201, "zeta")) == (5, 12)
    assert (count(recent, 1200, 1201, "", "files"), count(recent, 1200, 1201, "", "mail")) == (2, 8)
    assert (count(recent, 1200, 1201, "acme", "mail"), count(recent, 1200, 1201, "zeta", "files")) == (3, 0)
    assert (count(recent, 1201, 1201), count(recent, 1200, 1200), count(recent, 1202, 1300)) == (15, 2, 0)


def test_a_request_without_a_server_is_no_series_twice() -> None:
    """The tenant's own is that of all its servers."""
    recent = Recent()
    recent.add(1200, "acme", "", requests(1))
    assert count(recent, 1200, 1200, "acme") == count(recent, 1200, 1200) == 1


def test_old_slots_become_minutes_in_pieces() -> None:
    """And nothing is lost or counted twice on the way."""
    recent = Recent()
    for slot in range(1200, 1224):
        recent.add(slot, "acme", "files", requests(1))
    assert age(recent, 1223 + 72) > 5
    assert count(recent, 1200, 1223) == count(recent, 1200, 1223, "acme", "files") == 24
    recent.add(1284, "acme", "files", requests(1))
    assert count(recent, 1212, 1284) == 13
    assert count(recent, 1207, 1284) == 13, "less than half of the first minute"
    assert count(recent, 1206, 1284) == 25


@pytest.mark.parametrize("later", range(12))
def test_five_minutes_are_exact_wherever_in_a_minute_they_begin(later: int) -> None:
    """Older slots of the minute that is only partly in them do not count with it."""
    recent, now = Recent(), 12_000 + later
    for slot in range(now - 100, now + 1):
        recent.add(slot, "acme", "files", requests(1))
        age(recent, slot)
    assert count(recent, now - 60, now) == count(recent, now - 60, now, "acme", "files") == 61


def test_half_moved_nothing_is_lost_or_counted_twice() -> None:
    """Whoever asks between two pieces."""
    recent = Recent()
    for slot in range(1200, 1212):
        recent.add(slot, "acme", "files", requests(1))
    while recent.age(1300, 1):
        for series in (("", ""), ("acme", ""), ("", "files"), ("acme", "files")):
            assert count(recent, 1200, 1300, *series) == 12


def test_after_an_hour_it_is_forgotten() -> None:
    """With its room."""
    recent = Recent()
    recent.add(1200, "acme", "files", requests(1))
    age(recent, 1300)
    assert count(recent, 0, 10_000) == 1
    age(recent, 1200 + 61 * 12 + 12)
    assert count(recent, 0, 10_000) == 0
    assert recent._size == 0


def test_when_the_clock_is_set_back_the_future_is_forgotten() -> None:
    """It would hold its room until it comes."""
    recent = Recent()
    for slot in (12_000, 12_100):
        recent.add(slot, "acme", "files", requests(1))
    age(recent, 12_061)
    age(recent, 1200)
    assert recent._size == 0
    recent.add(1200, "acme", "files", requests(1))
    assert count(recent, 1200, 1200) == 1


def test_without_room_only_everything_together_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not kept is counted; series that are there already go on."""
    monkeypatch.setattr(module, "MAX_SUMS", 4)
    recent = Recent()
    recent.add(1200, "acme", "files", requests(1))
    recent.add(1200, "zeta", "mail", requests(1))
    recent.add(1200, "acme", "files", requests(1))
    recent.add(1201, "acme", "files", requests(1))
    assert count(recent, 1200, 1201) == 4
    assert (count(recent, 1200, 1201, "acme", "files"), count(recent, 1200, 1201, "zeta")) == (2, 0)
    assert recent.crowded == 6
