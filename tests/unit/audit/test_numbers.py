"""Numbers of cards and accounts are found as they are written; others of the same length pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.numbers import is_card, is_iban, luhn, redact_numbers
from tests.unit.audit.corpus import DIGITS, Draw
from tests.unit.audit.corpus.secrets import CARDS


@given(st.text(DIGITS, min_size=1, max_size=30))
def test_exactly_one_check_digit_is_right(body: str) -> None:
    """As ISO/IEC 7812-1 has it."""
    assert sum(luhn(body + digit) for digit in DIGITS) == 1


@given(st.integers(0, 10_000), st.sampled_from(CARDS))
def test_a_card_is_one_only_with_its_check_digit(seed: int, card: tuple[str, str, int]) -> None:
    """And with a length of its issuer."""
    _, beginning, length = card
    draw = Draw(seed)
    assert is_card(draw.luhn(beginning, length))
    assert not is_card(draw.luhn(beginning, length, right=False))
    assert not is_card(draw.luhn(beginning, 20))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("4111111111111111", "[redacted:card]"),
        ("4111 1111 1111 1111", "[redacted:card]"),
        ("4111-1111-1111-1111.", "[redacted:card]."),
        ("378282246310005", "[redacted:card]"),
        ("3782 822463 10005", "[redacted:card]"),
        ("(4111111111111111)", "([redacted:card])"),
        ("4111 1111-1111 1111", "4111 1111-1111 1111"),
        ("+4111111111111111", "+4111111111111111"),
        ("a4111111111111111", "a4111111111111111"),
        ("4111111111111111.5", "4111111111111111.5"),
        ("DE89370400440532013000", "[redacted:iban]"),
        ("DE89 3704 0044 0532 0130 00", "[redacted:iban]"),
        ("DE88370400440532013000", "DE88370400440532013000"),
        ("no digits", "no digits"),
    ],
)
def test_a_number_stands_alone_or_in_its_groups(text: str, kept: str) -> None:
    """What is part of something longer is something else."""
    assert redact_numbers(text) == kept


def test_an_account_has_the_length_of_its_country() -> None:
    """Examples of the registry of ISO 13616."""
    assert is_iban("GB29NWBK60161331926819")
    assert is_iban("NO9386011117947")
    assert not is_iban("GB29NWBK6016133192681")
    assert not is_iban("QQ29NWBK60161331926819")
