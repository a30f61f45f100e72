"""Ready means that every check is well."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.readiness import Readiness


def test_what_is_required_must_report_first() -> None:
    """A check that nobody has spoken for yet is not well."""
    readiness = Readiness("config", "listener")
    readiness.set("config", True)
    assert readiness.ready() == (False, {"config": {"ok": True}, "listener": {"ok": False, "detail": "starting"}})
    readiness.set("listener", True)
    assert readiness.ready() == (True, {"config": {"ok": True}, "listener": {"ok": True}})


def test_a_check_can_turn_and_turn_back() -> None:
    """The last report counts, and its detail is shown."""
    readiness = Readiness()
    readiness.set("listener", False, "draining")
    assert readiness.ready() == (False, {"listener": {"ok": False, "detail": "draining"}})
    readiness.set("listener", True, "port 8080")
    assert readiness.ready() == (True, {"listener": {"ok": True, "detail": "port 8080"}})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_ready_is_the_conjunction_of_the_last_reports(reports: list[tuple[str, bool]]) -> None:
    """After any reports, ready is true exactly when the last one of each check was."""
    readiness = Readiness("a")
    expected = {"a": False}
    for name, ok in reports:
        readiness.set(name, ok)
        expected[name] = ok
    ready, checks = readiness.ready()
    assert ready == all(expected.values())
    assert {name: check["ok"] for name, check in checks.items()} == expected
