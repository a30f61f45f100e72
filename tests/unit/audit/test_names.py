"""Which names hold secrets, and what beside them is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit import names
from proxy.audit.names import entropy, is_template, kind_of, looks_random
from tests.unit.audit.corpus import ALNUM, Draw


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("password", "password"),
        ("DB_PASSWORD_1", "password"),
        ("newPassword", "password"),
        ("userpasswd", "password"),
        ("client-secret", "secret"),
        ("X-Api-Key", "api_key"),
        ("apikey", "api_key"),
        ("AccountKey", "api_key"),
        ("private_key", "private_key"),
        ("access_token", "token"),
        ("X-Amz-Signature", "token"),
        ("Set-Cookie", "cookie"),
        ("card_number", "card"),
        ("session_id", "session"),
        ("MAILJET_KEY", "key"),
        ("recoveryCodes", "recovery"),
    ],
)
def test_a_name_says_what_it_holds(name: str, kind: str) -> None:
    """However its words are joined."""
    found = kind_of(name)
    assert found is not None
    assert found.name == kind


@pytest.mark.parametrize(
    "name",
    [
        "token_type",
        "password_policy",
        "next_page_token",
        "maxTokens",
        "public_key",
        "secretName",
        "author",
        "keyboard",
        "passenger",
        "tokenizer",
        "",
        "-",
        "api_key_id",
        "credentials_file",
    ],
)
def test_a_name_that_speaks_about_a_secret_holds_none(name: str) -> None:
    """Its kind, its rules, where it is."""
    assert kind_of(name) is None


def test_what_must_be_random_beside_a_weak_name() -> None:
    """`key` is nearly always something else."""
    kind = kind_of("key")
    assert kind is not None
    assert kind.holds(Draw(1).of(ALNUM, 40))
    for text in ("name", "user:1234:profile", "9b2f8c1e-58cf-4372-a567-0e02b2c3d479", "CertificatePublicKeyTypesOfAll"):
        assert not kind.holds(text)


@pytest.mark.parametrize("text", ["", "  ", "${X}", "$X", "<token>", "{{ x }}", "****", "null", "[redacted:x]", "xxxx"])
def test_a_template_is_no_secret(text: str) -> None:
    """The value is somewhere else."""
    assert is_template(text)


@given(st.integers(0, 100_000))
def test_what_is_drawn_by_lot_looks_random(seed: int) -> None:
    """Forty letters and digits."""
    assert looks_random(Draw(seed).of(ALNUM, 40))


def test_entropy_is_that_of_shannon() -> None:
    """Bits per character."""
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2


@given(st.text(max_size=200))
def test_any_name_is_judged_the_same_again(name: str) -> None:
    """Whether it is remembered or not."""
    assert kind_of(name) == kind_of(name)


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come from clients."""
    monkeypatch.setattr(names, "_MOST", 10)
    for number in range(100):
        kind_of(f"name{number}")
        kind_of("n" * 1000 + str(number))
    assert len(names._known) <= 10
