"""Tokens of every provider are known by themselves, and named."""

from __future__ import annotations

import re

import pytest

from proxy.audit.tokens import FORMATS, redact_tokens
from tests.unit.audit.corpus import Draw
from tests.unit.audit.corpus.secrets import TOKENS
from tests.unit.audit.corpus.unseen_first import first_unseen
from tests.unit.audit.corpus.unseen_second import second_unseen


@pytest.mark.parametrize("name", TOKENS)
def test_every_token_is_found_alone_and_in_a_text(name: str) -> None:
    """With thirty different bodies each."""
    for seed in range(30):
        token = TOKENS[name](Draw(seed))
        for text in (token, f"x={token}", f'"{token}"', f"\\n{token}", f"use {token}, please"):
            clean = redact_tokens(text)
            assert token not in clean
            assert "[redacted:" in clean


@pytest.mark.parametrize(
    ("name", "issuer"),
    [
        ("github personal", "github"),
        ("anthropic", "anthropic"),
        ("openai project", "openai"),
        ("jwt hs256", "jwt"),
        ("our key", "mcpm"),
        ("aws access key", "aws"),
        ("stripe live", "stripe"),
        ("elevenlabs", "elevenlabs"),
    ],
)
def test_a_token_is_named_by_its_issuer(name: str, issuer: str) -> None:
    """Not by the first format that its beginning fits."""
    assert redact_tokens(TOKENS[name](Draw(7))) == f"[redacted:{issuer}]"


def test_a_token_begins_where_a_word_does() -> None:
    """`task-...` is none of OpenAI's."""
    for text in ("task-" + "a1" * 20, "xAKIA" + "A" * 16, "pk_live_" + "a" * 24, "_key_identifier_from_public_key"):
        assert redact_tokens(text) == text


def test_every_format_is_used() -> None:
    """Each provider has a token in the corpus, or another of its formats has."""
    found = {redact_tokens(make(Draw(3))) for make in TOKENS.values()}
    vendors = [str(case.value) for unseen in (first_unseen, second_unseen) for case in unseen(3)[0]]
    shown = {text[10:-1] for text in found} | set(
        re.findall(r"\[redacted:(\w+)\]", " ".join(map(redact_tokens, vendors)))
    )
    unused = {issuer for issuer, _ in FORMATS} - shown
    assert unused == {"duffel", "langfuse", "maxmind", "teams"}
