"""Secrets that the proxy makes for itself and keeps in a file of `state_dir`: keys, peppers.

Owns making such a file exactly once, however many processes start together, and refusing one that everyone on the
machine may read. What a secret is for is known where it is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

#: File of `state_dir` with the secret key that heads of the audit trail are signed with.
AUDIT_KEY: Final = "audit.key"
#: Others may pass through the directory: an embedded server of a proxy that runs as root is another user.
_DIRECTORY_MODE: Final = 0o711
_RANDOM_BYTES: Final = 32
#: Characters of a file that are read, and that a secret has at least.
_LONGEST: Final = 4096
_SHORTEST: Final = 16


def random_secret() -> str:
    """A new secret of 256 bits, as 64 hexadecimal digits."""
    return os.urandom(_RANDOM_BYTES).hex()


def load_or_create(path: Path, make: Callable[[], str] = random_secret) -> bytes:
    """The secret kept in `path`; `make` gives it on first use. All processes that share the file get the same one.

    Raises OSError when the file cannot be made or read, and PermissionError when everyone on the machine may read it.
    """
    if not path.exists():
        path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        _create(path, make())
    return _read(path)


def _create(path: Path, text: str) -> None:
    """Write the secret aside and link it to its name: the first process wins, and no one ever sees half a secret."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()


def _read(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IRWXO:
            raise PermissionError(f"{path} is open to everyone on this machine; run chmod 600 on it")
        secret = file.read(_LONGEST).strip()
    if len(secret) < _SHORTEST:
        raise OSError(f"{path} does not hold a secret; remove it to have a new one made")
    return secret
