"""The comparison of two runs of the conformance suite: it sees every difference and invents none."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.conformance.run import ALLOWED, EVERYTHING
from tests.conformance.suite import Difference, compare, count, read_run

STATUS = st.sampled_from(["SUCCESS", "FAILURE", "WARNING", "INFO", "SKIPPED"])
CHECKS = st.lists(st.tuples(st.sampled_from("abc"), STATUS), max_size=6).map(tuple)
RUNS = st.dictionaries(st.sampled_from(["ping", "tools-list", "caching"]), CHECKS.filter(bool), max_size=3)


@given(RUNS, RUNS)
def test_two_runs_compare_as_equal_exactly_when_they_are_equal(direct, proxied):
    """No difference is reported if and only if scenarios, checks, order and statuses are all the same."""
    assert (compare(direct, proxied) == []) == (direct == proxied)


def test_a_check_that_fails_behind_the_proxy_is_named_with_both_statuses():
    """The report says where, and what it was on either side."""
    direct = {"ping": (("ping", "SUCCESS"), ("wire-schema-valid", "SUCCESS"))}
    proxied = {"ping": (("ping", "SUCCESS"), ("wire-schema-valid", "FAILURE"))}

    (difference,) = compare(direct, proxied)

    assert str(difference) == "ping / wire-schema-valid: SUCCESS -> FAILURE"
    assert not difference.improves


def test_checks_in_another_order_are_a_difference_even_with_equal_counts():
    """Order carries meaning: the suite lists events as they arrived."""
    direct = {"server-sse-polling": (("event", "INFO"), ("closed", "INFO"))}
    proxied = {"server-sse-polling": (("closed", "INFO"), ("event", "INFO"))}

    assert [difference.check for difference in compare(direct, proxied)] == ["order of checks"]


def test_a_scenario_that_vanishes_is_reported_check_by_check():
    """A proxy that makes the suite skip a scenario does not pass by silence."""
    found = compare({"caching": (("a", "SUCCESS"), ("b", "SUCCESS"))}, {})

    assert found == [Difference("caching", "a", "SUCCESS", ""), Difference("caching", "b", "SUCCESS", "")]


def test_results_are_read_from_the_directories_the_suite_writes(tmp_path: Path):
    """The scenario's name is the directory's without its prefix and time stamp; other files are ignored."""
    scenario = tmp_path / "server-server-sse-polling-2026-11-22T03-03-48-044Z"
    scenario.mkdir()
    checks = [{"id": "one", "status": "SUCCESS", "timestamp": "now"}, {"id": "two", "status": "FAILURE"}]
    (scenario / "checks.json").write_text(json.dumps(checks))
    (tmp_path / "fixture.log").write_text("")

    run = read_run(tmp_path)

    assert run == {"server-sse-polling": (("one", "SUCCESS"), ("two", "FAILURE"))}
    assert count(run) == (1, 1)


def test_every_revision_is_run_and_every_allowed_improvement_has_a_reason():
    """The four revisions with a streamable transport are covered, and nothing is excused without a word."""
    assert [selection.title for selection in EVERYTHING] == ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"]
    assert all(reason for reason in ALLOWED.values())
