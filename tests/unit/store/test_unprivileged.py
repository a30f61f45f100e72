"""What refuses to run as root runs as somebody else, wherever its files are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from proxy.store import unprivileged
from proxy.store.unprivileged import NobodyToRunAs, Standing, standing_for
from tests.unit.store.engine import folder

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root is in need of it")


def ran(standing: Standing, *command: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        standing.command(command), capture_output=True, text=True, check=False, timeout=10, **standing.options()
    )
    return done.stdout.strip()


def file_below(parent: Path, mode: int) -> Path:
    """A file that its owner alone can read, in a folder of this mode."""
    below = parent / f"mode-{mode:o}"
    below.mkdir()
    path = below / "file"
    path.write_text("content")
    path.chmod(0o600)
    below.chmod(mode)
    return path


@root_only
def test_root_runs_it_as_an_unprivileged_user_who_is_given_the_files() -> None:
    """Where that user can get to them."""
    path = file_below(folder(), 0o711)
    standing = standing_for(path)
    assert standing.user is not None
    assert not standing.in_namespace
    standing.give(path)
    assert ran(standing, "id", "-u") == str(standing.user.pw_uid)
    assert ran(standing, "cat", str(path)) == "content"


@root_only
def test_where_nobody_else_may_enter_root_goes_by_another_name() -> None:
    """In a user namespace, if the kernel allows them; the files stay root's."""
    path = file_below(folder(), 0o700)
    try:
        standing = standing_for(path)
    except NobodyToRunAs as error:
        assert "may not enter a folder above" in str(error)
        return
    assert standing.user is not None
    assert standing.in_namespace
    standing.give(path)
    assert path.stat().st_uid == 0
    assert ran(standing, "id", "-u") == str(standing.user.pw_uid) != "0"
    assert ran(standing, "cat", str(path)) == "content"


@root_only
def test_without_namespaces_it_says_which_folder_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As container engines forbid them."""
    path = file_below(folder(), 0o700)
    monkeypatch.setattr(unprivileged, "_namespaces_work", lambda user: False)
    with pytest.raises(NobodyToRunAs, match="may not enter a folder above") as caught:
        standing_for(path)
    assert str(path) in str(caught.value)


def test_anybody_else_runs_it_as_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing changed."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    standing = standing_for(Path("/nowhere/at/all"))
    assert (standing.command(["x"]), standing.options()) == (["x"], {})
    standing.give(Path("/nowhere/at/all"))


def test_a_file_of_a_third_user_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would be lost to whoever it belongs to."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    user = unprivileged._unprivileged()
    path = tmp_path / "file"
    path.touch()
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user"):
        Standing(user).give(path)


def test_without_any_unprivileged_user_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has neither."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(unprivileged, "_UNPRIVILEGED", ("nobody-of-this-name",))
    with pytest.raises(NobodyToRunAs, match="no user named"):
        standing_for(Path("/"))
