"""Secrets of every published shape with random bodies, and harmless values that look like them.

No secret here was ever anybody's: each is drawn at random, anew for each seed.
"""

from __future__ import annotations

import base64
import random
import string
from dataclasses import dataclass
from typing import Any

LOWER = string.ascii_lowercase
UPPER = string.ascii_uppercase
DIGITS = string.digits
ALNUM = string.ascii_letters + DIGITS
BASE64 = ALNUM + "+/"
URL64 = ALNUM + "-_"
HEX = DIGITS + "abcdef"
BASE32 = LOWER + "234567"


@dataclass(frozen=True)
class Case:
    """One value. `planted`: what must not be in what is kept of it; empty: all of it must be kept."""

    name: str
    value: Any
    planted: tuple[str, ...] = ()


class Draw:
    """What generators draw from."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def of(self, alphabet: str, least: int, most: int = 0) -> str:
        """So many characters."""
        return "".join(self.rng.choices(alphabet, k=self.rng.randint(least, most or least)))

    def uuid(self) -> str:
        return "-".join(self.of(HEX, size) for size in (8, 4, 4, 4, 12))

    def base64(self, size: int) -> str:
        """Of so many random bytes."""
        return base64.b64encode(self.rng.randbytes(size)).decode()

    def url64(self, text: str) -> str:
        """base64url without padding, as in a JWT."""
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def password(self) -> str:
        """As people make them: a word, a digit, a sign."""
        word = self.rng.choice(("Sommer", "tiger", "Passat", "monday", "Qwertz", "dragon", "Winter", "blue"))
        return f"{word}{self.of(DIGITS, 2, 4)}{self.rng.choice('!?*+_.')}"

    def luhn(self, beginning: str, length: int, right: bool = True) -> str:
        """A number with this beginning, whose check digit is right or not."""
        body = beginning + self.of(DIGITS, length - len(beginning) - 1)
        total = sum(
            digit if place % 2 else digit * 2 - 9 * (digit > 4) for place, digit in enumerate(map(int, reversed(body)))
        )
        check = -total % 10
        return body + str(check if right else (check + self.rng.randint(1, 9)) % 10)


__all__ = ["ALNUM", "BASE32", "BASE64", "DIGITS", "HEX", "LOWER", "UPPER", "URL64", "Case", "Draw"]
