"""Signatures of the heads of chains: Ed25519 (RFC 8032), which gives the same signature for the same text.

Owns the form of keys: the secret one is 64 hexadecimal digits, in a file that only the proxy reads; the public one is
PEM, for whoever verifies. Owns no file. One of the importers of cryptography.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

_ID_CHARS: Final = 16
_SECRET: Final = re.compile(rb"\s*([0-9a-fA-F]{64})\s*")
_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class BadKey(ValueError):
    """What should be a key is none; the text shows nothing of it."""


class Verifier:
    """A public key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        #: Begin of the SHA-256 of the key's 32 bytes, hexadecimal.
        self.key_id = sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:_ID_CHARS]

    def is_signed(self, text: bytes, signature: bytes) -> bool:
        """Whether the holder of the secret key signed this. 60 µs."""
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    def pem(self) -> str:
        """The key, to be kept where the proxy cannot change it."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class Signer:
    """A secret key."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: what the key file holds, such as `config.keyfile.load_or_create` gives. Raises BadKey."""
        digits = _SECRET.fullmatch(secret)
        if digits is None:
            raise BadKey("the key to sign the audit trail with is not 64 hexadecimal digits")
        self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(digits[1].decode()))
        self.public = Verifier(self._key.public_key())
        self.key_id = self.public.key_id

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"

    def sign(self, text: bytes) -> bytes:
        """64 bytes. 60 µs."""
        return self._key.sign(text)


def public_keys(pem: bytes) -> dict[str, Verifier]:
    """The keys in a file, by their id: the present one and those before it. Raises BadKey for a file without any."""
    found = {}
    for block in _PEM.findall(pem):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm):
            raise BadKey("a public key of the file cannot be read") from None
        if not isinstance(key, Ed25519PublicKey):
            raise BadKey("a public key of the file is not for Ed25519")
        verifier = Verifier(key)
        found[verifier.key_id] = verifier
    if not found:
        raise BadKey("the file holds no public key in PEM")
    return found
