"""`audit verify`: of the database, with the real tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from proxy.audit.signing import Signer
from proxy.audit.verify import Trail
from proxy.commands import audit_source, audit_verify
from tests.unit.audit.trails import ACME, SIGNER, ZETA, record, trail_of
from tests.unit.commands.auditor import DAY, Auditor, auditor
from tests.unit.commands.conftest import waited
from tests.unit.store.engine import owner_dsn
from tests.unit.store.recorded import add_lines, add_signed

__all__ = ["auditor"]

ROW = f"tenant_id = '{ACME}' AND seq = 5"


def told(report: dict[str, object]) -> list[tuple[object, ...]]:
    findings = report["findings"]
    assert isinstance(findings, list)
    return [(each["kind"], each["tenant"], each["first"]) for each in findings]


def test_an_untouched_trail_is_complete(auditor: Auditor) -> None:
    """Code 0, and how much was looked at."""
    code, out, err = auditor.run("verify", *DAY)
    assert (code, out) == (0, "")
    assert "40 rows in 2 segments, 2 signed heads" in err
    assert "complete and unchanged" in err
    report = auditor.verified(*DAY)
    assert (report["rows"], report["unsigned"], report["counts"], report["findings"]) == (40, 0, {}, [])
    assert auditor.verified(*DAY, "--tenant", "zeta")["rows"] == 14


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("changed", f"UPDATE audit_logs SET actor_id = 'key:mallory' WHERE {ROW}"),
        ("changed", f"UPDATE audit_logs SET chain = '\\x00' WHERE {ROW}"),
        ("missing", f"DELETE FROM audit_logs WHERE {ROW}"),
        ("missing", f"UPDATE audit_logs SET ts = ts - interval '1 year' WHERE {ROW}"),
        ("missing", f"UPDATE audit_logs SET segment = 'one/9' WHERE {ROW}"),
        (
            "inserted",
            "INSERT INTO audit_logs (tenant_id, ts, id, kind, segment, seq, chain, actor_type, action) SELECT"
            f" tenant_id, ts, gen_random_uuid(), kind, segment, seq, chain, actor_type, action"
            f" FROM audit_logs WHERE {ROW}",
        ),
    ],
)
def test_what_was_done_to_a_row_is_told(auditor: Auditor, kind: str, statement: str) -> None:
    """With its tenant and place; code 1."""
    auditor.change(statement)
    assert (kind, ACME, 5) in told(auditor.verified(*DAY))
    code, out, err = auditor.run("verify", *DAY)
    assert code == 1
    assert ACME in out
    assert "NOT as it was written" in err


def test_exchanged_rows_are_told(auditor: Auditor) -> None:
    """Both of them."""
    auditor.change(f"UPDATE audit_logs SET seq = 11 - seq WHERE tenant_id = '{ACME}' AND seq IN (5, 6)")
    assert told(auditor.verified(*DAY)) == [("reordered", ACME, 5), ("reordered", ACME, 6)]


def test_the_end_of_a_chain_cannot_be_cut_off(auditor: Auditor) -> None:
    """The head says how many rows there are."""
    auditor.change(f"DELETE FROM audit_logs WHERE tenant_id = '{ACME}' AND seq > 20")
    assert told(auditor.verified(*DAY)) == [("missing", ACME, 21)]


def test_all_rows_of_a_segment_are_missing(auditor: Auditor) -> None:
    """When only its heads are left."""
    auditor.change(f"DELETE FROM audit_logs WHERE tenant_id = '{ACME}'")
    assert auditor.verified(*DAY)["counts"] == {"missing": 26}


def test_heads_that_are_gone_or_forged_are_told(auditor: Auditor) -> None:
    """Of a chain without a head nothing is proved."""
    auditor.change(f"DELETE FROM audit_heads WHERE tenant_id = '{ACME}'")
    auditor.change(f"UPDATE audit_heads SET head = sha256('x') WHERE tenant_id = '{ZETA}'")
    assert told(auditor.verified(*DAY)) == [("forged", ZETA, 14), ("headless", ACME, 0)]


@pytest.mark.parametrize(
    "time", ["'-infinity', 'infinity'", "'2026-11-21', '2026-11-22 05:00Z'", "'2000-01-01', now()"]
)
def test_a_forged_head_hides_nothing(auditor: Auditor, time: str) -> None:
    """Wherever it says that the rows are: it is told, and so is what was done to them."""
    auditor.change(f"DELETE FROM audit_logs WHERE {ROW}")
    auditor.change(
        "INSERT INTO audit_heads (tenant_id, segment, row_count, is_final, head, first_ts, last_ts)"
        f" VALUES ('{ACME}', 'one/1', 1000, true, sha256('x'), {time})"
    )
    findings = told(auditor.verified(*DAY))
    assert ("forged", ACME, 1000) in findings
    assert ("missing", ACME, 5) in findings


@pytest.mark.parametrize("time", ["'2000-01-01', '2000-01-02'", "'-infinity', '-infinity'"])
def test_a_forged_end_does_not_stand_for_a_segment_that_is_gone(auditor: Auditor, time: str) -> None:
    """Not even from a time that nobody asked about."""
    rows = [record(number, ACME) for number in range(1000, 1010)]
    lines, (head,) = trail_of([row | {"timestamp": row["timestamp"].replace("-22T", "-24T")} for row in rows], "one/9")
    waited(lambda: add_lines(owner_dsn(auditor.database), lines))
    waited(lambda: add_signed(owner_dsn(auditor.database), [replace(head, previous="one/8")]))
    auditor.change(
        "INSERT INTO audit_heads (tenant_id, segment, row_count, is_final, head, first_ts, last_ts)"
        f" VALUES ('{ACME}', 'one/8', 10, true, sha256('x'), {time})"
    )
    report = auditor.verified("--since", "2026-11-24", "--until", "2026-11-25")
    assert told(report) == [("forged", ACME, 10), ("orphaned", ACME, 0)]


def test_a_row_without_a_chain_is_told(auditor: Auditor) -> None:
    """Somebody added it beside the proxy."""
    auditor.change(
        "INSERT INTO audit_logs (tenant_id, ts, id, kind, actor_type, action)"
        f" VALUES ('{ZETA}', '2026-11-22T12:00Z', gen_random_uuid(), 'intent', 'system', 'x')"
    )
    assert auditor.verified(*DAY)["counts"] == {"unchained": 1}


def test_segments_around_the_range_are_verified_whole(auditor: Auditor) -> None:
    """And those outside are left alone."""
    part = ("--since", "2026-11-22T12:00:00.030Z", "--until", "2026-11-22T12:00:00.031Z")
    assert auditor.verified(*part)["rows"] == 40
    auditor.change(f"DELETE FROM audit_logs WHERE {ROW}")
    assert not auditor.verified(*part)["complete"]
    assert auditor.verified("--since", "2026-11-22T12:01Z", "--until", "2026-11-22T13:00Z")["rows"] == 0


def test_rows_that_lie_far_from_their_order_are_read_again(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and what is wrong with them is found all the same."""
    rows = [record(number, ACME) for number in range(100, 140)]
    lines, heads = trail_of(rows, "two/1")
    waited(lambda: add_lines(owner_dsn(auditor.database), lines[::-2] + lines[::2]))
    waited(lambda: add_signed(owner_dsn(auditor.database), heads))
    monkeypatch.setattr(audit_verify, "Trail", lambda: Trail(5))
    assert auditor.verified(*DAY)["complete"]
    auditor.change("DELETE FROM audit_logs WHERE segment = 'two/1' AND seq = 7")
    report = auditor.verified(*DAY)
    assert told(report) == [("missing", ACME, 7)]
    assert report["rows"] == 79


def test_days_are_verified_one_after_the_other(auditor: Auditor) -> None:
    """A segment is of one of them; a segment that names one before it that is gone is told."""
    day_us = 86_400_000_000
    rows = [record(number, ACME) for number in range(1000, 1010)]
    lines, (head,) = trail_of([row | {"timestamp": row["timestamp"].replace("-22T", "-24T")} for row in rows], "one/2")
    waited(lambda: add_lines(owner_dsn(auditor.database), lines))
    waited(lambda: add_signed(owner_dsn(auditor.database), [replace(head, previous="one/1")]))
    assert head.first_us > day_us
    days = ("--since", "2026-11-20", "--until", "2026-11-26")
    report = auditor.verified(*days)
    assert (report["complete"], report["rows"], report["segments"]) == (True, 50, 3)
    auditor.change(f"DELETE FROM audit_logs WHERE segment = 'one/1' AND tenant_id = '{ACME}'")
    auditor.change(f"UPDATE audit_heads SET segment = 'x/1' WHERE segment = 'one/1' AND tenant_id = '{ACME}'")
    assert ("orphaned", ACME, 0) in told(auditor.verified(*days))


def test_a_day_of_many_segments_is_divided(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there are few enough in a portion; each is verified once."""
    for number in range(1, 9):
        rows = [record(number * 1_000 + each, ACME) for each in range(5)]
        lines, heads = trail_of(rows, f"two/{number}")
        waited(lambda lines=lines: add_lines(owner_dsn(auditor.database), lines))
        waited(lambda heads=heads: add_signed(owner_dsn(auditor.database), heads))
    monkeypatch.setattr(audit_source, "_MOST_PLACES", 2)
    monkeypatch.setattr(audit_source, "_SHORTEST", timedelta(milliseconds=100))
    report = auditor.verified(*DAY)
    assert (report["complete"], report["rows"], report["segments"]) == (True, 80, 10)
    auditor.change("DELETE FROM audit_logs WHERE segment = 'two/4' AND seq = 2")
    assert told(auditor.verified(*DAY)) == [("missing", ACME, 2)]


@pytest.fixture
def on_that_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The day of the trail is not over, whatever day it is."""
    monkeypatch.setattr(audit_verify, "_SETTLED", timedelta(days=365_000))


@pytest.mark.usefixtures("on_that_day")
def test_a_segment_in_use_is_not_wrong(auditor: Auditor) -> None:
    """Its last rows are not signed yet, and belong to the same chain on the next day of the range, too."""
    lines, heads = trail_of([record(number, ZETA) for number in range(100, 130)], "two/1")
    waited(lambda: add_lines(owner_dsn(auditor.database), lines))
    at = bytes.fromhex(lines[9].rpartition(b"\t")[2].decode())
    early = replace(heads[0], rows=10, is_final=False, digest=at, last_us=int(lines[9].split(b"\t")[1]))
    waited(lambda: add_signed(owner_dsn(auditor.database), [early]))
    report = auditor.verified(*DAY)
    assert (report["complete"], report["rows"], report["unsigned"]) == (True, 70, 20)
    late = ("--since", "2026-11-22T12:00:00.115Z", "--until", "2026-11-22T13:00Z")
    assert (auditor.verified(*late)["complete"], auditor.verified(*late)["unsigned"]) == (True, 20)


def test_the_key_can_be_given(auditor: Auditor) -> None:
    """Without it that of this installation is used; another one does not do."""
    public = auditor.write_key()
    assert auditor.verified(*DAY, "--key", str(public))["complete"]
    other = public.with_name("other.pem")
    other.write_text(
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        "-----END PUBLIC KEY-----\n"
    )
    assert auditor.verified(*DAY, "--key", str(other))["counts"] == {"forged": 2}
    assert auditor.verified(*DAY, "--key", str(other), "--key", str(public))["complete"]


@pytest.mark.parametrize("content", [None, "", "-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----"])
def test_a_key_that_is_none_is_misuse(auditor: Auditor, content: str | None) -> None:
    """Code 2, not 1: nothing was verified."""
    path = auditor.config.parent / "key.pem"
    if content is not None:
        path.write_text(content)
    assert "key" in auditor.refused("verify", *DAY, "--key", str(path))


@pytest.mark.parametrize(("since", "until"), [("0001-01-01", "1970-01-03"), ("9998-12-28", "9999-12-31T23:59")])
def test_a_range_may_be_as_long_as_time(auditor: Auditor, since: str, until: str) -> None:
    """What comes before the first record and after the last one is nothing to stumble over."""
    assert auditor.verified("--since", since, "--until", until)["rows"] == 0


@pytest.mark.usefixtures("on_that_day")
def test_an_older_head_does_not_hide_what_was_cut_off_behind_it(auditor: Auditor) -> None:
    """It was signed while the segment was in use: once another followed, or its day is over, there has to be a last."""
    lines, heads = trail_of([record(number, ZETA) for number in range(100, 130)], "two/1")
    waited(lambda: add_lines(owner_dsn(auditor.database), lines[:10]))
    at = bytes.fromhex(lines[9].rpartition(b"\t")[2].decode())
    old = replace(heads[0], rows=10, is_final=False, digest=at, last_us=int(lines[9].split(b"\t")[1]))
    more, [later] = trail_of([record(number, ZETA) for number in range(130, 133)], "two/2")
    waited(lambda: add_signed(owner_dsn(auditor.database), [old]))
    assert auditor.verified(*DAY)["complete"]
    waited(lambda: add_lines(owner_dsn(auditor.database), more))
    waited(lambda: add_signed(owner_dsn(auditor.database), [replace(later, previous="two/1")]))
    assert told(auditor.verified(*DAY)) == [("unended", ZETA, 10)]
    export = auditor.export()
    files = ("--file", str(export), "--key", str(export.with_name("public.pem")))
    assert told(auditor.verified(*files)) == [("unended", ZETA, 10)]


def test_a_segment_is_not_in_use_when_its_day_is_over(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it can come any more, so its end has to be signed."""
    auditor.change("DELETE FROM audit_heads WHERE tenant_id = $1", ZETA)
    lines, [head] = trail_of([record(number, ZETA) for number in range(100, 103)], "two/1")
    waited(lambda: add_lines(owner_dsn(auditor.database), lines))
    waited(lambda: add_signed(owner_dsn(auditor.database), [replace(head, is_final=False)]))
    monkeypatch.setattr(audit_verify, "_SETTLED", timedelta(days=-2))
    assert ("unended", ZETA, 3) in told(auditor.verified(*DAY))


def test_a_finding_is_read_to_its_end(auditor: Auditor) -> None:
    """Which key was not given stands behind much else."""
    other = auditor.write_key().with_name("other.pem")
    other.write_text(Signer(b"11" * 32).public.pem())
    code, out, _ = auditor.run("verify", *DAY, "--key", str(other))
    assert code == 1
    assert f"(the public key {SIGNER.key_id} was not given)" in out


def test_nothing_is_not_called_complete(auditor: Auditor) -> None:
    """Of a time without rows nobody knows whether there were any."""
    code, _, err = auditor.run("verify", "--since", "2026-10-01", "--until", "2026-10-02")
    assert (code, "complete" in err, "gone" in err) == (0, False, True)
