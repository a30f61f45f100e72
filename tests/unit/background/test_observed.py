"""What is seen of a server: its breaker, pool, queue and health as they are, as rows."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

import pytest

from proxy.background.observed import breaker_row, found, look, pool_row, queue_row, share_used, status_of
from proxy.config.resilience import Queue
from proxy.dataplane.probe import Result
from proxy.identity.access import Server as Place
from tests.unit.background.seen import Server, Slots
from tests.unit.dataplane.fakes import Time

OFFSET_S = 1_800_000_000.0 - 1000.0


def server(queue: Queue | None = None) -> Server:
    """A server of the configuration file, at second 1000."""
    return Server("search", Place("search", "7"), Time(), queue)


def test_a_server_at_rest_is_healthy_to_nobody_yet() -> None:
    """Closed, idle, unknown; without a queue there is no row of one."""
    sight = look(server(), 0.0)
    assert breaker_row("7", sight, OFFSET_S) == ("7", "closed", 0, 0, None, None, None)
    assert pool_row("7", sight) == ("7", 10, 0, 0, 0, 0.0, None)
    assert queue_row("7", sight) is None
    assert sight.status == "UNKNOWN"
    assert look(server(), 0.0) == sight


def test_an_open_breaker_says_since_when_and_until_when() -> None:
    """Monotonic times become wall clock; one that an operator keeps open does not try again."""
    each = server()
    each.fail()
    row = breaker_row("7", look(each, 0.0), OFFSET_S)
    assert (row.state, row.failure_count, row.open_count, row.last_failure) == ("open", 2, 1, "connect")
    assert row.opened_at == datetime.fromtimestamp(1_800_000_000, UTC)
    assert row.next_attempt_at == datetime.fromtimestamp(1_800_000_005, UTC)
    each.breaker.force("open")
    assert breaker_row("7", look(each, 0.0), OFFSET_S).next_attempt_at is None
    each.breaker.next_attempt_at = inf
    assert breaker_row("7", look(each, 0.0), OFFSET_S).next_attempt_at is None


def test_a_pool_is_what_its_places_are() -> None:
    """With the size that is recommended."""
    each = server()
    each.client.slots = Slots(limit=8, used=6, waiting=2)
    each.client.idle = 1
    assert pool_row("7", look(each, 0.756, 12)) == ("7", 8, 6, 1, 2, 0.76, 12)


def test_the_use_of_a_pool_is_averaged() -> None:
    """The first look counts whole, later ones a fifth; more than all is all, and a pool without places is unused."""
    each = server()
    each.client.slots = Slots(limit=8, used=4)
    assert share_used(each, None) == 0.5
    each.client.slots = Slots(limit=8, used=9)
    assert share_used(each, 0.5) == pytest.approx(0.6)
    each.client.slots = Slots(limit=0, used=1)
    assert share_used(each, None) == 0.0


def test_a_queue_is_what_it_holds_and_did() -> None:
    """Those who left count with those who waited too long."""
    each = server(Queue(max_concurrent=2, max_pending=3))
    assert each.queue is not None
    assert each.queue.try_enter()
    each.queue.expired, each.queue.abandoned, each.queue.rejected = 3, 4, 5
    assert queue_row("7", look(each, 0.0)) == ("7", 2, 3, 1, 0, 0.0, 1, 5, 7)


@pytest.mark.parametrize(
    ("checked", "window", "status", "of_check"),
    [
        ((), None, "UNKNOWN", "HEALTHY"),
        ((True,), None, "HEALTHY", "HEALTHY"),
        ((False,), None, "UNHEALTHY", "HEALTHY"),
        ((True,), object(), "MAINTENANCE", "MAINTENANCE"),
        ((False,), object(), "MAINTENANCE", "MAINTENANCE"),
    ],
)
def test_the_status_is_that_of_its_health_but_under_maintenance(
    checked: tuple[bool, ...], window: object, status: str, of_check: str
) -> None:
    """The last argument is what a good check finds besides."""
    each = server()
    for ok in checked:
        each.health.checked(ok, 0.01)
    each.window = window
    assert status_of(each) == status
    assert found(each, Result(True, 0.01)) == of_check
    assert found(each, Result(False, 0.01)) == ("UNHEALTHY" if window is None else "MAINTENANCE")


def test_a_good_check_of_a_slow_server_finds_it_degraded() -> None:
    """Slow against its own usual time."""
    each = server()
    for seconds in (*[0.01] * 10, *[2.0] * 10):
        each.health.checked(True, seconds)
    assert status_of(each) == found(each, Result(True, 2.0)) == "DEGRADED"
