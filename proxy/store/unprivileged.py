"""How a program is run that refuses to run as root.

Owns the choice. Whoever is not root runs it as himself. Root runs it as an unprivileged user, who is given its files;
where that user cannot even get to them (a folder above is closed, as `/root` is), in a user namespace, in which root is
that user by name and keeps the rights of his files (user_namespaces(7)).
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

#: Who runs what root must not: the first of these who exists.
_UNPRIVILEGED: Final = ("postgres", "nobody")
#: The longest that trying a user namespace may take, seconds.
_TRIED_S: Final = 5.0


class NobodyToRunAs(Exception):
    """Root has nobody who could run it; the text is for people."""


@dataclass(frozen=True, slots=True)
class Standing:
    """As whom a program runs."""

    user: pwd.struct_passwd | None = None
    """None: as ourselves."""
    in_namespace: bool = False
    """`user` is but a name for us."""

    def command(self, command: Sequence[str]) -> Sequence[str]:
        """The command line that runs `command`."""
        if self.user is None or not self.in_namespace:
            return command
        return (*_unshare(self.user), *command)

    def options(self) -> dict[str, Any]:
        """What `subprocess.Popen` is told."""
        if self.user is None or self.in_namespace:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Make `path` belong to whoever runs the program. Raises PermissionError when somebody else would lose it."""
        if self.user is not None and not self.in_namespace:
            if path.lstat().st_uid not in (0, self.user.pw_uid):
                raise PermissionError(f"{path} belongs to another user; run this as that user")
            os.chown(path, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)


def standing_for(*paths: Path) -> Standing:
    """As whom to run a program that has to get to these paths. Raises NobodyToRunAs."""
    if os.geteuid() != 0:
        return Standing()
    user = _unprivileged()
    closed = next((path for path in paths if not _open_to(user, path)), None)
    if closed is None:
        return Standing(user)
    if _namespaces_work(user):
        return Standing(user, in_namespace=True)
    raise NobodyToRunAs(f"as root, it runs as user {user.pw_name!r}, who may not enter a folder above {closed}")


def _unprivileged() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise NobodyToRunAs(f"root cannot run it, and there is no user named {' or '.join(_UNPRIVILEGED)}")


def _open_to(user: pwd.struct_passwd, path: Path) -> bool:
    """Whether a user may enter every folder above a path that is there."""
    for folder in path.absolute().parents:
        with suppress(FileNotFoundError):
            found = folder.stat()
            if not (found.st_mode & stat.S_IXOTH or (found.st_uid == user.pw_uid and found.st_mode & stat.S_IXUSR)):
                return False
    return True


def _unshare(user: pwd.struct_passwd) -> tuple[str, ...]:
    return ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--")


@cache
def _namespaces_work(user: pwd.struct_passwd) -> bool:
    """Whether this kernel lets us, which container engines often forbid."""
    try:
        done = subprocess.run([*_unshare(user), "true"], capture_output=True, timeout=_TRIED_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
