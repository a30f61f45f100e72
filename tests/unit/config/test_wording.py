"""Sentences for pydantic's errors (most are in the corpus of the loader)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.config.models import Config
from proxy.config.wording import Guess, explain


def sentences(written: dict[str, Any]) -> dict[tuple[str | int, ...], str]:
    """Location to sentence."""
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(written)
    return dict(explain(caught.value))


def test_a_bound_is_written_like_the_value() -> None:
    """Sizes have units, counts have not."""
    found = sentences({"listen": {"limits": {"body": 1, "connections": -1}}, "servers": {"a": {"url": "http://x/"}}})
    assert found == {
        ("listen", "limits", "body"): "must be 1KiB or more",
        ("listen", "limits", "connections"): "must be 0 or more",
    }


@pytest.mark.parametrize(
    ("place", "written", "known"),
    [
        ("servers", {"servers": {"a": {"url": "http://x/", "keepalives": 1}}}, "url, transport"),
        ("pool", {"servers": {"a": {"url": "http://x/", "pool": {"keepalives": 1}}}}, "did you mean 'keepalive'?"),
        ("tls", {"listen": {"tls": {"certificat": "x"}}}, "did you mean 'certificate'?"),
        ("route", {"routes": [{"name": "r", "path": "/", "servers": "a", "mirrors": 1}]}, "did you mean 'mirror'?"),
        ("server", {"routes": [{"servers": [{"nam": "a"}]}]}, "did you mean 'name'?"),
        ("affinity", {"routes": [{"affinity": {"headr": "a"}}]}, "did you mean 'header'?"),
    ],
)
def test_an_unknown_key_is_compared_with_those_of_its_place(place: str, written: dict[str, Any], known: str) -> None:
    """Through lists, names and optional sections."""
    unknown = [text for text in sentences(written).values() if text.startswith("unknown key")]
    assert len(unknown) == 1
    assert known in unknown[0], place


def test_guesses_run_out() -> None:
    """Twenty-five are enough for anybody."""
    guess = Guess()
    answers = [guess("gitub", ["github"]) for _ in range(26)]
    assert set(answers[:25]) == {"; did you mean 'github'?"}
    assert answers[25] == ""
    assert Guess()("x", ["github"]) == ""


def test_a_guess_cannot_break_the_line() -> None:
    """Names in a file that is wrong may hold anything."""
    assert Guess()("github", ["git\nhub"]) == ""
