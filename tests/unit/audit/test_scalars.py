"""Single values in the one form that PostgreSQL gives back; that it does is shown with all columns at once."""

from __future__ import annotations

import pytest

from proxy.audit.scalars import Unfit, address, identity, json_text, micros, millis, truth, uuid, uuid_or_none, whole

ID = "0198c0de-0000-7000-8000-00000000000a"


def test_json_keeps_its_text_but_for_nul() -> None:
    """Which PostgreSQL cannot turn into a text; a backslash before such letters is none."""
    assert json_text({"a\0": ["\0", 1.5, None]}) == '{"a\ufffd":["\ufffd",1.5,null]}'
    assert json_text({"a": "\\u0000"}) == '{"a":"\\\\u0000"}'
    assert json_text(None) is None


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("192.0.2.1", "192.0.2.1"), ("2001:DB8:0:0::1", "2001:db8::1"), ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ("::102:304", "::1.2.3.4"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1"), ("unix:", None), (None, None),
        ("01.2.3.4", None), ("256.1.1.1", None), ("1.2.3.4.", None), ("1.2.3.4\n", None), ("", None),
    ],
)  # fmt: skip
def test_an_address_is_written_as_postgresql_does(given: str | None, written: str | None) -> None:
    """What is none is left out."""
    assert address(given) == written


@pytest.mark.parametrize(
    ("given", "kept"), [(0.0004, 0.0), (-1, 0.0), (1e300, 1e12), (12, 12.0), (0.001, 0.001), (None, None)]
)
def test_a_duration_is_kept_within_bounds(given: float | None, kept: float | None) -> None:
    """In which a float has one text."""
    assert millis(given) == kept


def test_times_of_any_zone_and_precision_are_microseconds() -> None:
    """The form of the recorder is read fast, and as the others are."""
    assert micros("2026-11-22T12:00:00.000001Z") == 1_795_348_800_000_001
    assert micros("2026-11-22T13:00:00+01:00") == micros("2026-11-22T12:00:00Z") == 1_795_348_800_000_000
    assert micros("2026-11-22T12:00:00.000001+00:00") == 1_795_348_800_000_001


@pytest.mark.parametrize("given", ["2026-11-22T12:00:00", "1969-12-31T23:59:59.999999Z", "2300-01-01T00:00:00.000000Z"])
def test_a_time_without_zone_or_out_of_bounds_is_none(given: str) -> None:
    """PostgreSQL could not give it back to the microsecond."""
    with pytest.raises(Unfit):
        micros(given)


def test_an_id_has_one_form() -> None:
    """Small letters and hyphens."""
    for same in (ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}"):
        assert identity(same) == uuid(same) == uuid_or_none(same) == ID
    assert uuid_or_none("") is uuid_or_none(None) is None
    for read in (identity, uuid, uuid_or_none):
        with pytest.raises(Unfit):
            read("acme")


def test_numbers_and_truths_are_not_taken_for_each_other() -> None:
    """Their texts differ."""
    assert (whole(5), whole(None), truth(False), truth(None)) == (5, None, False, None)
    for value in (True, 1.0, "1"):
        with pytest.raises(Unfit):
            whole(value)
    for value in (1, "t"):
        with pytest.raises(Unfit):
            truth(value)
