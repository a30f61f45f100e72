"""Signatures: known ones, and keys in the forms in which they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.audit.signing import BadKey, Signer, public_keys
from proxy.config.keyfile import load_or_create

SIGNER = Signer(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n")


def test_a_signature_is_that_of_rfc_8032() -> None:
    """Section 7.1, test 1."""
    signature = SIGNER.sign(b"")
    assert signature.hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e0652249015")
    assert SIGNER.public.is_signed(b"", signature)


def test_only_what_was_signed_passes() -> None:
    """Not another text, another signature, another key."""
    signature = SIGNER.sign(b"text")
    assert SIGNER.public.is_signed(b"text", signature)
    assert not SIGNER.public.is_signed(b"Text", signature)
    assert not SIGNER.public.is_signed(b"text", bytes(64))
    assert not SIGNER.public.is_signed(b"text", b"")
    assert not Signer(b"01" * 32).public.is_signed(b"text", signature)


def test_a_file_may_hold_the_keys_of_years() -> None:
    """Each is known by an id that is made of it."""
    older = Signer(b"01" * 32)
    found = public_keys(f"the present one\n{SIGNER.public.pem()}\nuntil 2025\n{older.public.pem()}".encode())
    assert set(found) == {SIGNER.key_id, older.key_id}
    assert found[older.key_id].is_signed(b"text", older.sign(b"text"))


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_a_file_without_a_key_is_refused(pem: bytes) -> None:
    """Nothing could be verified with it."""
    with pytest.raises(BadKey):
        public_keys(pem)


def test_a_key_of_another_kind_is_refused() -> None:
    """It has a form of its own, and signs nothing here."""
    key = generate_private_key(SECP256R1()).public_key()
    with pytest.raises(BadKey, match="Ed25519"):
        public_keys(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize("secret", [b"", b"0" * 63, b"g" * 64, b"0" * 66])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: bytes) -> None:
    """The text of the error is the same for all."""
    with pytest.raises(BadKey) as refusal:
        Signer(secret)
    assert not secret or secret.decode() not in str(refusal.value)


def test_the_secret_is_kept_as_other_secrets_are_and_shown_nowhere(tmp_path: Path) -> None:
    """Made once, in a file."""
    secret = load_or_create(tmp_path / "audit-key")
    signer = Signer(secret)
    assert Signer(load_or_create(tmp_path / "audit-key")).key_id == signer.key_id
    assert secret.decode() not in repr(signer)
    assert secret.decode() not in signer.public.pem()
