"""The last good registry as one sealed file, so that the proxy starts with PostgreSQL down.

Owns the file and its format. Rows hold what must not lie about (headers with credentials, hashes of keys), so it is
encrypted as well as authenticated, under a key that is only ours. Whatever is not exactly what was written is no file.
It starts no thread: writing blocks.

Format: a line with the version, authenticated with the rest; a nonce of 12 bytes; then, sealed with AES-256-GCM
(NIST SP 800-38D), a line of JSON that names tables and columns, and a line of JSON per some hundred rows of a table.
"""

from __future__ import annotations

import base64
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from math import isfinite
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from proxy.store.registry import Registry
from proxy.store.registry_tables import TABLES
from proxy.store.rows import Row

_VERSION: Final = b"mcp-manager registry 1\n"
_DERIVATION: Final = b"mcp-manager sealed registry, version 1"
_NONCE_BYTES: Final = 12
_LARGEST: Final = 1 << 30
#: Rows that are encoded at once: about a millisecond in which no other thread runs.
_CHUNK: Final = 500
#: What a process left behind that was killed while it wrote is removed after this, seconds.
_ABANDONED_S: Final = 60.0

Encode = Callable[[Any], object]
Decode = Callable[[Any], Any]


class RegistryFile:
    """One file. `write` and `read` may run in any thread, but not at the same time as each other."""

    def __init__(self, path: Path, secret: bytes) -> None:
        """`secret` is of any length; what is sealed with another one cannot be read."""
        self._path = path
        self._cipher = AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=_DERIVATION).derive(secret))

    def write(self, registry: Registry) -> None:
        """Replace the file in one step; its mode is 0600. Raises OSError, and leaves the old one then."""
        plain = b"\n".join(_lines(registry))
        nonce = os.urandom(_NONCE_BYTES)
        self._replace(_VERSION + nonce + self._cipher.encrypt(nonce, plain, _VERSION))

    def read(self) -> Registry | None:
        """What was written last; None without a file, and for one that is not ours, or of other columns."""
        content = self._content()
        if not content.startswith(_VERSION):
            return None
        begin = len(_VERSION) + _NONCE_BYTES
        try:
            plain = self._cipher.decrypt(content[len(_VERSION) : begin], content[begin:], _VERSION)
        except (InvalidTag, ValueError):
            return None
        return _registry(plain.split(b"\n"))

    def _content(self) -> bytes:
        """b'' when there is nothing to read."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with open(os.open(self._path, flags), "rb") as file:
                found = os.fstat(file.fileno())
                return file.read(_LARGEST) if stat.S_ISREG(found.st_mode) and found.st_size < _LARGEST else b""
        except OSError:
            return b""

    def _replace(self, content: bytes) -> None:
        self._tidy()
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        aside.unlink(missing_ok=True)
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self._path)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
        _sync_folder(self._path.parent)

    def _tidy(self) -> None:
        for left in self._path.parent.glob(f"{self._path.name}.*.new"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    left.unlink()


def _sync_folder(folder: Path) -> None:
    """So that the new name survives a power cut, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- rows as JSON ---------------------------------------------------------------------------------------------------


class _Codec:
    """How the rows of one table become lists of JSON values, and back."""

    def __init__(self, row: type[Row]) -> None:
        self._row = row
        self._values = attrgetter(*(column.name for column in fields(row)))
        kinds = [str(column.type).removesuffix(" | None") for column in fields(row)]
        #: Column names and types as they are in the source: a file of other ones is not read.
        self.shape = [f"{column.name}: {column.type}" for column in fields(row)]
        self._encoders = [(at, _ENCODERS[kind]) for at, kind in enumerate(kinds) if kind in _ENCODERS]
        self._decoders = [(at, _DECODERS[kind]) for at, kind in enumerate(kinds) if kind in _DECODERS]

    def encode(self, row: Row) -> list[object]:
        values = list(self._values(row))
        for at, encode in self._encoders:
            values[at] = None if values[at] is None else encode(values[at])
        return values

    def decode(self, values: list[Any]) -> Row:
        for at, decode in self._decoders:
            values[at] = None if values[at] is None else decode(values[at])
        return self._row(*values)


def _float(value: float) -> float | str:
    """JSON has no infinity."""
    return value if isfinite(value) else str(value)


#: Type as it is written in `rows.py` -> what orjson cannot do by itself: it writes datetimes, tuples and the rest.
_ENCODERS: Final[Mapping[str, Encode]] = {"bytes": lambda value: base64.b64encode(value).decode(), "float": _float}
_DECODERS: Final[Mapping[str, Decode]] = {
    "bytes": base64.b64decode,
    "datetime": datetime.fromisoformat,
    "float": float,
    "tuple[str, ...]": tuple,
    "tuple[int, ...]": tuple,
}
_CODECS: Final = {name: _Codec(table.row) for name, table in TABLES.items()}
_SHAPES: Final = orjson.dumps({name: codec.shape for name, codec in _CODECS.items()})


def _lines(registry: Registry) -> Iterator[bytes]:
    yield _SHAPES
    for name, codec in _CODECS.items():
        found = list(registry.get(name, {}).values())
        for at in range(0, len(found), _CHUNK):
            yield orjson.dumps([name, [codec.encode(row) for row in found[at : at + _CHUNK]]])


def _registry(lines: Sequence[bytes]) -> Registry | None:
    if lines[0] != _SHAPES:
        return None
    registry: dict[str, dict[str, Row]] = {name: {} for name in TABLES}
    for line in lines[1:]:
        name, encoded = orjson.loads(line)
        decode = _CODECS[name].decode
        registry[name].update((values[0], decode(values)) for values in encoded)
    return registry
