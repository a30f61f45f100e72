"""What the sets that were written unseen are made of: random bodies, tokens, keys and numbers with right checks."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.unit.audit.corpus import ALNUM, BASE32, DIGITS, HEX, LOWER, UPPER, Case, Draw


class Made(Draw):
    """Short names, as there are many uses. Holds the cases that were made, each with its number."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.secrets: list[Case] = []
        self.plain: list[Case] = []

    def secret(self, label: str, value: Any, *planted: str) -> None:
        """One more of which `planted` must not be kept."""
        self.secrets.append(Case(f"{len(self.secrets)} {label}", value, planted))

    def harmless(self, label: str, value: Any) -> None:
        """One more that must be kept whole."""
        self.plain.append(Case(f"{len(self.plain)} {label}", value))

    @staticmethod
    def text(said: str) -> dict[str, Any]:
        """The result of a tool that says this."""
        return {"content": [{"type": "text", "text": said}]}

    def an(self, size: int) -> str:
        return self.of(ALNUM, size)

    def hx(self, size: int) -> str:
        return self.of(HEX, size)

    def up(self, size: int) -> str:
        return self.of(UPPER + DIGITS, size)

    def b32(self, size: int) -> str:
        return self.of(BASE32, size).upper()

    def lo(self, size: int) -> str:
        return self.of(LOWER + DIGITS, size)

    def dg(self, size: int) -> str:
        return self.of("123456789", 1) + self.of(DIGITS, size - 1)

    def b64(self, size: int) -> str:
        return self.base64(size)

    def b64u(self, size: int) -> str:
        return self.base64(size).translate(str.maketrans("+/", "-_")).rstrip("=")

    def enc(self, value: Any) -> str:
        """A value as a part of a JWT."""
        return self.url64(json.dumps(value))

    def e64(self, text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    def iban(self, country: str, account: str) -> str:
        """With its check digits (ISO 13616)."""
        number = int("".join(str(int(character, 36)) for character in f"{account}{country}00"))
        return f"{country}{98 - number % 97:02d}{account}"

    def group(self, text: str, size: int, mark: str = " ") -> str:
        return mark.join(text[at : at + size] for at in range(0, len(text), size))

    def jwt(self) -> str:
        claims = {"sub": self.dg(6), "exp": 1790000000, "iss": "https://id.example"}
        return f"{self.enc({'alg': 'RS256', 'typ': 'JWT'})}.{self.enc(claims)}.{self.b64u(128)}"

    def pem(self, kind: str, size: int, end: str = "\n") -> str:
        """A key of so many bytes in armour (RFC 7468)."""
        lines = self.group(self.b64(size), 64, "\n").split("\n")
        return end.join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----"])
