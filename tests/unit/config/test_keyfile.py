"""Secrets in files: made once, for us alone, and never half."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from proxy.config.keyfile import load_or_create, random_secret


def test_a_secret_is_made_once_and_only_for_us(tmp_path: Path) -> None:
    """The file is readable by its owner alone, nobody else can list the directory, every later start reads the same."""
    path = tmp_path / "state" / "deep" / "some.key"
    secret = load_or_create(path)
    assert len(secret) == 64
    assert load_or_create(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711
    assert [entry.name for entry in path.parent.iterdir()] == ["some.key"]


def test_who_needs_a_secret_of_another_form_makes_it(tmp_path: Path) -> None:
    """On first use only."""
    path = tmp_path / "some.key"
    assert load_or_create(path, lambda: "a secret of its own form") == b"a secret of its own form"
    assert load_or_create(path, lambda: "another one, which is not used") == b"a secret of its own form"


def test_two_secrets_are_never_the_same() -> None:
    """256 random bits."""
    assert random_secret() != random_secret()


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    """However many race to make it, one wins and all of them use it."""
    secrets: list[bytes] = []
    start = threading.Barrier(16)

    def race() -> None:
        start.wait()
        secrets.append(load_or_create(tmp_path / "some.key"))

    racers = [threading.Thread(target=race) for _ in range(16)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(secrets) == 16
    assert len(set(secrets)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["some.key"]


def test_a_secret_that_everyone_can_read_is_refused(tmp_path: Path) -> None:
    """What any account on the machine knows protects nothing; the error says what to do and not the secret."""
    path = tmp_path / "some.key"
    secret = load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600") as refused:
        load_or_create(path)
    assert secret.decode() not in str(refused.value)


def test_a_file_without_a_secret_is_refused(tmp_path: Path) -> None:
    """An empty or truncated file is an error, not a weak secret."""
    path = tmp_path / "some.key"
    path.touch(0o600)
    with pytest.raises(OSError, match="does not hold"):
        load_or_create(path)


def test_a_mounted_secret_may_be_a_link(tmp_path: Path) -> None:
    """Orchestrators mount secrets as symbolic links to the real file."""
    real = tmp_path / "real"
    real.write_bytes(b"a mounted secret of the cluster\n")
    real.chmod(0o440)
    (tmp_path / "some.key").symlink_to(real)
    assert load_or_create(tmp_path / "some.key") == b"a mounted secret of the cluster"
