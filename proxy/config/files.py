"""What the configuration takes from outside: environment variables, secret files, and its own text.

Owns bounded reading of regular files and the `${NAME}` grammar. It knows no key and no YAML; every failure is a
ValueError with one sentence that holds no value.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: The configuration file: 10,000 servers and 10,000 routes with every key spelled out are about 15 MiB.
CONFIG_BYTES: Final = 32 << 20
#: One secret.
SECRET_BYTES: Final = 64 << 10
#: One PEM file: a bundle with every public authority is about 250 KiB.
PEM_BYTES: Final = 4 << 20

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{[^}]*\}?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; never waits for a pipe or device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("cannot be read: not a regular file")
            with open(descriptor, "rb", closefd=False) as stream:
                content = stream.read(limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise ValueError(f"cannot be read: larger than {limit >> 10} KiB")
    return content


class Files:
    """Secret and TLS files of one configuration, relative to its directory; remembers which were asked for."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._seen: dict[str, None] = {}

    @property
    def seen(self) -> tuple[str, ...]:
        """Absolute paths in the order first asked for, readable or not."""
        return tuple(self._seen)

    def read_secret(self, name: str) -> str:
        """Text of the file `name` without the newline at its end."""
        try:
            text = self._read(name, SECRET_BYTES).decode()
        except UnicodeDecodeError:
            raise ValueError("the secret file is not UTF-8 text") from None
        except ValueError as error:
            raise ValueError(f"the secret file {error}") from None
        return text.removesuffix("\n").removesuffix("\r")

    def read_pem(self, name: str) -> None:
        """Make sure that the PEM file `name` can be read."""
        self._read(name, PEM_BYTES)

    def _read(self, name: str, limit: int) -> bytes:
        if not name or "\0" in name:
            raise ValueError("cannot be read: no file is named")
        path = self.base / name
        self._seen[str(path)] = None
        return read_bounded(path, limit)


def substitute(text: str, env: Mapping[str, str]) -> str:
    """`text` with `${NAME}` and `${NAME:-default}` replaced and `$${` turned into `${`.

    What is put in is not looked at again. Raises ValueError for a variable that is not set and for other forms.
    """

    def value_of(match: re.Match[str]) -> str:
        written = match[0]
        if written == "$${":
            return "${"
        name, has_default, default = written[2:].removesuffix("}").partition(":-")
        if not written.endswith("}") or _VARIABLE.fullmatch(name) is None:
            raise ValueError("a variable looks like ${NAME} or ${NAME:-default}; write $${ for a literal ${")
        value = env.get(name)
        if has_default:
            return value or default
        if value is None:
            raise ValueError(f"the environment variable {name} is not set")
        return value

    return _REFERENCE.sub(value_of, text)
