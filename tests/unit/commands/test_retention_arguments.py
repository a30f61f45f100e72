"""What `retention ...` takes."""

from __future__ import annotations

import argparse

import pytest

from proxy.background.retention_plan import FOR_EVER_DAYS
from proxy.commands import retention_arguments
from proxy.commands.retention_arguments import FOR_EVER, kept_days
from proxy.config.retention import DEFAULTS


def test_days_are_whole_or_for_ever() -> None:
    """Not none, not a part of one."""
    assert (kept_days("90d"), kept_days("48h"), kept_days("forever")) == (90, 2, FOR_EVER)
    assert FOR_EVER == FOR_EVER_DAYS
    for text in ("0", "0d", "36h", "ever", "30", "4000d"):
        with pytest.raises(argparse.ArgumentTypeError, match="whole days, such as 90d"):
            kept_days(text)


def test_the_tables_are_those_that_there_are() -> None:
    """They are written twice, so that help loads nothing."""
    assert list(DEFAULTS) == list(retention_arguments._TABLES)


def test_every_action_can_be_given() -> None:
    """With its defaults."""
    parser = argparse.ArgumentParser()
    retention_arguments.add(parser.add_subparsers(dest="action"))
    given = parser.parse_args(["set", "audit_logs", "--keep", "7d"])
    assert (given.table, given.keep, given.archive, given.batch, given.tenant) == ("audit_logs", 7, None, None, None)
    assert parser.parse_args(["run"]).dry_run is False
    assert parser.parse_args(["runs"]).last == 20
    assert parser.parse_args(["unset", "audit_logs", "--tenant", "acme"]).tenant == "acme"
    assert parser.parse_args(["list"]).json is False
