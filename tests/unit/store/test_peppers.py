"""Where the peppers come from, so that the server knows the keys that the command line made."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Config
from proxy.identity.keys import mint, parse
from proxy.store.peppers import pepper_ring


def config(state_dir: Path, peppers: dict[int, str] | None = None) -> Config:
    """With a state directory and peppers."""
    return Config.model_validate(
        {
            "servers": {"a": {"url": "http://x/"}},
            "state_dir": str(state_dir),
            "auth": {"peppers": peppers or {}},
        }
    )


def secret_of(text: str) -> str:
    """The secret part of a key."""
    parsed = parse(text)
    assert parsed is not None
    return parsed[1]


def test_without_configured_peppers_one_is_made_and_kept(tmp_path: Path) -> None:
    """A key that one process made is good in the next, which reads the same file."""
    minted = mint(pepper_ring(config(tmp_path / "state")))
    assert minted.pepper_version == 1
    assert pepper_ring(config(tmp_path / "state")).matches(secret_of(minted.text), minted.secret_hmac, 1)
    assert not pepper_ring(config(tmp_path / "other")).matches(secret_of(minted.text), minted.secret_hmac, 1)


def test_configured_peppers_need_no_file(tmp_path: Path) -> None:
    """The highest version hashes, the others keep older keys good."""
    older = mint(pepper_ring(config(tmp_path, {3: "an older pepper !"})))
    ring = pepper_ring(config(tmp_path, {3: "an older pepper !", 12: "a newer pepper !!"}))
    assert mint(ring).pepper_version == 12
    assert ring.matches(secret_of(older.text), older.secret_hmac, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_pepper_that_everyone_can_read_is_refused(tmp_path: Path) -> None:
    """Whoever reads the table as well could check guesses with it."""
    pepper_ring(config(tmp_path))
    (tmp_path / "pepper.key").chmod(0o644)
    with pytest.raises(PermissionError, match=r"pepper\.key"):
        pepper_ring(config(tmp_path))


def test_the_file_of_the_state_directory_can_move_into_the_configuration(tmp_path: Path) -> None:
    """As version 1, for when there are several replicas."""
    minted = mint(pepper_ring(config(tmp_path)))
    text = (tmp_path / "pepper.key").read_text().strip()
    assert pepper_ring(config(tmp_path, {1: text})).matches(secret_of(minted.text), minted.secret_hmac, 1)
