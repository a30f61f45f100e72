"""API keys: how they are made, recognised without any look-up, and checked against what is stored.

Owns the text `mcpm_<id>_<secret>_<checksum>` and the keyed hash of its secret. The prefix and the checksum let secret
scanners find a leaked key and let us refuse a mistyped one offline. It knows no table and no principal.

A secret of 256 random bits cannot be guessed, so a slow hash would protect nothing and cost 25 ms per request; HMAC
with a pepper (kept outside the database) makes the stored hashes useless to whoever reads the table.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Final
from zlib import crc32

PREFIX: Final = "mcpm_"
#: Characters of any credential that is looked at: longer ones are refused before anything is computed.
MAX_LENGTH: Final = 256
ID_LENGTH: Final = 12
#: 43 characters of 62 are 256 bits.
SECRET_LENGTH: Final = 43
#: Bytes of a pepper, at least: the strength of the hash.
MIN_PEPPER: Final = 16

#: No `-` and no `_`: a double click selects the whole key, and its parts cannot be confused.
_ALPHABET: Final = string.ascii_letters + string.digits
_KEY: Final = re.compile(
    rf"({PREFIX}([A-Za-z0-9]{{{ID_LENGTH}}})_([A-Za-z0-9]{{{SECRET_LENGTH}}}))_([0-9a-f]{{8}})", re.ASCII
)
_TEXT_LENGTH: Final = len(PREFIX) + ID_LENGTH + 1 + SECRET_LENGTH + 1 + 8
#: Bytes that SHA-256 hashes at once.
_BLOCK: Final = 64
_NOTHING: Final = bytes(32)
"""Compared with where nothing is stored; no HMAC is all zeros."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key. `text` is shown once and kept nowhere; the rest is stored (columns of `enhanced_api_keys`)."""

    id: str
    secret_hmac: bytes = field(repr=False)
    pepper_version: int
    text: str = field(repr=False)


class PepperRing:
    """The peppers by version: the newest one hashes new secrets. Has no repr of its own."""

    __slots__ = ("_newest", "_peppers", "_spare")

    def __init__(self, peppers: Mapping[int, bytes]) -> None:
        """Raises ValueError without peppers, or for one that is too short."""
        if not peppers or any(len(pepper) < MIN_PEPPER for pepper in peppers.values()):
            raise ValueError(f"a pepper has {MIN_PEPPER} bytes or more, and there is at least one")
        self._newest = max(peppers)
        self._peppers = {version: Hmac(pepper) for version, pepper in peppers.items()}
        self._spare = self._peppers[self._newest]

    def hash(self, secret: str) -> tuple[bytes, int]:
        """What is stored of a secret: 32 bytes, and the version of the pepper."""
        return self._spare.digest(secret.encode()), self._newest

    def matches(self, secret: str, stored: bytes = _NOTHING, version: int = 0) -> bool:
        """Whether a secret is the stored one. Takes as long for a wrong secret as for the right one, and as long when
        nothing is stored or the pepper is gone."""
        pepper = self._peppers.get(version)
        digest = (pepper or self._spare).digest(secret.encode())
        return compare_digest(digest, stored) and pepper is not None


class Hmac:
    """HMAC-SHA256 (RFC 2104) with one key, whose two pads are hashed once: 1.7 µs instead of 3.8 µs per digest."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        """A key of any length."""
        block = (key if len(key) <= _BLOCK else sha256(key).digest()).ljust(_BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def digest(self, message: bytes) -> bytes:
        """32 bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


def mint(ring: PepperRing) -> Minted:
    """A new key."""
    key_id, secret = _random_text(ID_LENGTH), _random_text(SECRET_LENGTH)
    body = f"{PREFIX}{key_id}_{secret}"
    return Minted(key_id, *ring.hash(secret), f"{body}_{crc32(body.encode()):08x}")


def parse(text: str) -> tuple[str, str] | None:
    """Id and secret of a key whose checksum is right, else None. Costs about 1 µs and asks nobody."""
    if len(text) != _TEXT_LENGTH or (match := _KEY.fullmatch(text)) is None:
        return None
    body, key_id, secret, checksum = match.groups()
    return (key_id, secret) if crc32(body.encode()) == int(checksum, 16) else None


def digest_of(text: str) -> bytes:
    """SHA-256: how legacy keys, API tokens and session tokens are looked up."""
    return sha256(text.encode()).digest()


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
