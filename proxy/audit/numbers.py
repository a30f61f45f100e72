"""Numbers that pay: payment cards and bank accounts, told from order numbers, phone numbers and the like.

Owns their forms. A card has a length and a beginning that its issuer uses (ISO/IEC 7812) and a Luhn check digit, and
stands alone or in the groups that are printed on cards. An account number is an IBAN (ISO 13616) of the length of its
country whose check digits hold. What only looks like one passes.
"""

from __future__ import annotations

import re
from typing import Final

#: Digits that stand alone, or in groups with the same separator all through.
_CARD: Final = re.compile(
    r"\d(?<![\w.+-]\d)(?:\d{11,18}|\d{3}([ .-])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{3}([ .-])\d{6}\2\d{4,5})"
    r"(?![\w-]|\.\d)",
    re.ASCII,
)
_IBAN: Final = re.compile(
    r"[A-Z](?<![A-Za-z0-9][A-Z])[A-Z]\d{2}(?:[A-Z0-9]{11,30}|(?:[ -][A-Z0-9]{4}){2,7}(?:[ -][A-Z0-9]{1,3})?)"
    r"(?![A-Za-z0-9])"
)
_DIGIT: Final = re.compile("[0-9]")
_DIGITS: Final = re.compile(r"\D", re.ASCII)

#: Beginnings of card numbers from, to (inclusive), and the lengths that are issued with them.
_ISSUERS: Final = (
    (4, 4, (16, 19)),  # Visa
    (51, 55, (16,)), (2221, 2720, (16,)),  # Mastercard
    (34, 34, (15,)), (37, 37, (15,)),  # American Express
    (6011, 6011, (16, 19)), (644, 649, (16, 19)), (65, 65, (16, 19)),  # Discover
    (300, 305, (14,)), (309, 309, (14,)), (36, 36, (14,)), (38, 39, (14,)),  # Diners Club
    (3528, 3589, (16,)),  # JCB
    (62, 62, (16, 19)),  # UnionPay
    (5018, 5018, range(12, 20)), (5020, 5020, range(12, 20)), (5038, 5038, range(12, 20)),  # Maestro
    (5893, 5893, range(12, 20)), (6304, 6304, range(12, 20)), (6759, 6759, range(12, 20)),
    (6761, 6763, range(12, 20)),
    (2200, 2204, (16,)),  # Mir
)  # fmt: skip
#: Country -> characters of its IBAN (ISO 13616 registry).
_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18,
    "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23,
    "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MT": 31, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29,
    "VA": 22, "XK": 20,
}  # fmt: skip
#: Each digit doubled, and its digits added up.
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def redact_numbers(text: str) -> str:
    """The text without numbers of cards and accounts."""
    if _DIGIT.search(text) is None:
        return text
    text = _CARD.sub(_without_card, text)
    return _IBAN.sub(_without_iban, text)


def is_card(digits: str) -> bool:
    """Whether digits, without separators, are the number of a card."""
    return 12 <= len(digits) <= 19 and _is_issued(digits) and luhn(digits)


def is_iban(text: str) -> bool:
    """Whether a text without blanks is an IBAN."""
    if len(text) != _IBAN_LENGTHS.get(text[:2]):
        return False
    return int("".join(str(int(character, 36)) for character in text[4:] + text[:4])) % 97 == 1


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    numbers = [ord(digit) - 48 for digit in reversed(digits)]
    return (sum(numbers[::2]) + sum(_DOUBLED[number] for number in numbers[1::2])) % 10 == 0


def _is_issued(digits: str) -> bool:
    for first, last, lengths in _ISSUERS:
        if len(digits) in lengths and first <= int(digits[: len(str(first))]) <= last:
            return True
    return False


def _without_card(match: re.Match[str]) -> str:
    return "[redacted:card]" if is_card(_DIGITS.sub("", match[0])) else match[0]


def _without_iban(match: re.Match[str]) -> str:
    return "[redacted:iban]" if is_iban(match[0].replace(" ", "").replace("-", "")) else match[0]
