"""Only heads that were signed count, and each names the segment before it."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from proxy.audit.heads import believed, orphans, unended
from proxy.audit.signing import Signer
from proxy.audit.verify import Report
from tests.unit.audit.trails import KEYS, SIGNER, record, trail_of

_, (HEAD,) = trail_of([record(number) for number in range(4)])
DAY_US = 86_400_000_000


def test_a_head_is_believed_when_its_signature_is_right() -> None:
    """And nothing is said of it."""
    report = Report()
    assert list(believed([(HEAD, SIGNER.key_id, SIGNER.sign(HEAD.text()))], KEYS, report)) == [HEAD]
    assert report.complete


def test_every_part_of_a_head_is_signed() -> None:
    """A signature is of one head only."""
    signature = SIGNER.sign(HEAD.text())
    for other in (
        replace(HEAD, rows=3), replace(HEAD, is_final=False), replace(HEAD, digest=b"x" * 32),
        replace(HEAD, segment="one/2"), replace(HEAD, first_us=1), replace(HEAD, last_us=1),
        replace(HEAD, previous="one/0"), replace(HEAD, tenant="x"),
    ):  # fmt: skip
        report = Report()
        assert list(believed([(other, SIGNER.key_id, signature)], KEYS, report)) == []
        assert [(each.kind, each.first) for each in report.findings] == [("forged", other.rows)]


def test_a_head_without_a_signature_or_by_a_stranger_is_told_so() -> None:
    """The id of the key is named, as it may just not have been given."""
    stranger = Signer(b"11" * 32)
    report = Report()
    heads = [(HEAD, None, None), (HEAD, stranger.key_id, stranger.sign(HEAD.text()))]
    assert list(believed(heads, KEYS, report)) == []
    assert [each.detail for each in report.findings] == [
        "it is not signed", f"the public key {stranger.key_id} was not given"
    ]  # fmt: skip


def test_a_segment_names_the_one_before_it() -> None:
    """It has to be there and ended, unless everything from before this day is gone."""
    first = replace(HEAD, segment="one/1")
    next_day = {"first_us": HEAD.first_us + DAY_US, "last_us": HEAD.last_us + DAY_US}
    later = replace(HEAD, segment="one/2", previous="one/1", **next_day)
    other = replace(HEAD, segment="two/1")
    assert list(orphans([first, later, other])) == []
    assert [(each.kind, each.segment, each.detail) for each in orphans([later, other])] == [
        ("orphaned", "one/2", "one/1")
    ]
    assert len(list(orphans([replace(first, is_final=False), later]))) == 1
    assert list(orphans([later])) == []
    assert list(orphans([later, replace(other, tenant="x")])) == []


def test_an_act_names_the_one_before_it_however_old_that_is() -> None:
    """It has to be there unless it is older than everything that there is: dropped, or of a time that nobody asked."""
    weeks_later = {"first_us": HEAD.first_us + 30 * DAY_US, "last_us": HEAD.last_us + 30 * DAY_US}
    made_ms = HEAD.last_us // 1000
    earlier, later = (f"direct/{UUID(int=(ms << 80) | (7 << 76) | (1 << 63))}" for ms in (made_ms - 1, made_ms + 1))
    act = replace(HEAD, segment="direct/x", **weeks_later)
    assert list(orphans([HEAD, replace(act, previous=earlier)])) == []
    assert [each.detail for each in orphans([HEAD, replace(act, previous=later)])] == [later]
    assert [each.detail for each in orphans([HEAD, replace(act, previous="direct/nobody")])] == ["direct/nobody"]


def test_a_segment_is_ended_by_the_one_that_names_it_and_by_the_end_of_its_day() -> None:
    """An older head, put back in the place of the last one, shows itself: the one in use has neither behind it."""
    open_, next_day_us = replace(HEAD, segment="one/1", is_final=False), HEAD.last_us - HEAD.last_us % DAY_US + DAY_US
    later = replace(HEAD, segment="one/2", previous="one/1")
    assert list(unended([open_], next_day_us)) == []
    for heads, settled_us in (([open_], next_day_us + 1), ([open_, later], 0), ([later, open_], 0)):
        assert [(each.kind, each.segment, each.first) for each in unended(heads, settled_us)] == [
            ("unended", "one/1", HEAD.rows)
        ]
    assert list(unended([open_, replace(HEAD, segment="one/1"), later], next_day_us + DAY_US)) == []
    assert list(unended([open_, replace(later, tenant="x")], 0)) == []
