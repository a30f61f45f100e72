"""API keys: minted, refused offline, compared with what is stored."""

from __future__ import annotations

import hmac
import string
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.keys import MAX_LENGTH, PREFIX, PepperRing, digest_of, mint, parse

OLD, NEW = b"old pepper of sixteen", b"new pepper of sixteen"
RING = PepperRing({2: NEW})
KEY = mint(RING)
ALPHABET = string.ascii_letters + string.digits


def test_a_new_key_is_read_back_and_matches_what_is_stored() -> None:
    """The text holds the stored id, and a secret with the stored hash."""
    key_id, secret = parse(KEY.text) or ("", "")
    assert key_id == KEY.id
    assert len(key_id) == 12
    assert len(secret) == 43
    assert RING.matches(secret, KEY.secret_hmac, KEY.pepper_version)


def test_no_two_keys_are_alike() -> None:
    """Id and secret are random."""
    minted = [mint(RING) for _ in range(200)]
    assert len({key.id for key in minted}) == len({key.secret_hmac for key in minted}) == 200


def test_a_scanner_can_find_a_key() -> None:
    """One word, a fixed prefix, letters and digits only."""
    assert KEY.text.startswith("mcpm_")
    assert KEY.text.replace("_", "").isalnum()
    assert KEY.text.isascii()
    assert len(KEY.text) <= MAX_LENGTH


def test_a_secret_is_in_no_repr() -> None:
    """Neither the text nor the hash shows."""
    assert KEY.text not in repr(KEY)
    assert "secret" not in repr(KEY)
    assert repr(NEW)[2:-1] not in repr(RING)


@given(st.integers(0, len(KEY.text) - 1), st.sampled_from(ALPHABET + "_-é\0"))
def test_one_wrong_character_is_refused_offline(at: int, character: str) -> None:
    """The checksum finds every change of one character."""
    text = KEY.text[:at] + character + KEY.text[at + 1 :]
    assert parse(text) is None or text == KEY.text


@given(st.text(max_size=300))
def test_any_other_text_is_no_key(text: str) -> None:
    """Reading never raises and never accepts."""
    assert parse(text) is None
    assert parse(PREFIX + text) is None


@pytest.mark.parametrize(
    "text",
    ["", PREFIX, KEY.text + "0", KEY.text[:-1], KEY.text + "\n", " " + KEY.text, KEY.text.upper(), "x" * 10_240],
    ids=["empty", "prefix", "longer", "shorter", "line end", "blank", "upper case", "10 KiB"],
)
def test_what_is_nearly_a_key_is_none(text: str) -> None:
    """Exactly one text is a key."""
    assert parse(text) is None


@given(st.binary(min_size=16, max_size=200), st.text())
def test_the_hash_is_hmac_sha256(pepper: bytes, secret: str) -> None:
    """The same as the standard library's, for short peppers and for those longer than a block."""
    assert PepperRing({7: pepper}).hash(secret) == (hmac.digest(pepper, secret.encode(), "sha256"), 7)


def test_an_old_pepper_still_recognises_its_keys() -> None:
    """New secrets are hashed with the newest pepper, whatever the order of the ring."""
    key = mint(PepperRing({1: OLD}))
    _, secret = parse(key.text) or ("", "")
    both = PepperRing({2: NEW, 1: OLD})
    assert both.matches(secret, key.secret_hmac, key.pepper_version)
    assert both.hash(secret) == RING.hash(secret)
    assert not both.matches(secret, key.secret_hmac, 2)


def test_what_is_not_stored_or_has_no_pepper_matches_nothing() -> None:
    """Not even a hash that the newest pepper would make."""
    _, secret = parse(KEY.text) or ("", "")
    assert RING.matches(secret, KEY.secret_hmac, 2)
    assert not RING.matches(secret, KEY.secret_hmac, 1)
    assert not RING.matches(secret)
    assert not RING.matches(secret, b"", 2)
    assert not RING.matches("other", KEY.secret_hmac, 2)


@pytest.mark.parametrize("peppers", [{}, {1: b"short"}, {1: NEW, 2: b"short"}])
def test_a_ring_needs_strong_peppers(peppers: dict[int, bytes]) -> None:
    """A missing or short pepper is an error of the operator, told at start."""
    with pytest.raises(ValueError, match="pepper"):
        PepperRing(peppers)


def test_opaque_texts_are_found_by_their_sha256() -> None:
    """32 bytes, as PostgreSQL's sha256() has them."""
    assert digest_of("é") == sha256("é".encode()).digest()
