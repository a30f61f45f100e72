"""Whom an overloaded process refuses: the classes from the named one down, and never who asks whether it is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.shedding import EVERYONE, NOBODY, Load, check_load, refusal
from proxy.errors import Shed

CLASSES = st.integers(0, 2)


@given(CLASSES)
def test_at_first_nobody_is_refused(priority: int) -> None:
    """Until the watch says otherwise."""
    load = Load()
    check_load(load, priority, "tools/call")
    assert load.shed == [0, 0, 0]
    assert load.refused_from == NOBODY


@given(st.integers(EVERYONE, NOBODY), CLASSES)
def test_a_class_is_refused_from_its_own_level_on(refused_from: int, priority: int) -> None:
    """It and all below it, each counted under its class."""
    load = Load()
    load.refused_from = refused_from
    if priority < refused_from:
        check_load(load, priority, "tools/call")
    else:
        with pytest.raises(Shed):
            check_load(load, priority, "tools/call")
    assert load.shed[priority] == (priority >= refused_from)
    assert sum(load.shed) == load.shed[priority]


@given(CLASSES)
def test_who_asks_whether_it_is_there_is_never_refused(priority: int) -> None:
    """A refused `server/discover` would look like a server that is gone, or that speaks an older protocol."""
    load = Load()
    load.refused_from = EVERYONE
    check_load(load, priority, "server/discover")
    with pytest.raises(Shed):
        check_load(load, priority, "server/discover/")


def test_a_refusal_says_when_to_come_back() -> None:
    """503 with Retry-After in whole seconds."""
    load = Load()
    load.retry_after_s = 6.1
    shed = refusal(load)
    assert (shed.status, shed.reason, shed.headers) == (503, "shed", (("Retry-After", "7"),))
