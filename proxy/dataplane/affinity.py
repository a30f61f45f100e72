"""Sessions that the client carries itself: which server a request belongs to, sealed into the id that the client sees.

Owns the seal (AES-256-GCM), the ring of keys, the name of the key file, and the key for hash affinity. There is no
table of sessions: every worker and every replica that holds the keys opens every id. It must not know headers on the
wire (`rewrite.py`) or how a server is chosen (`balancer.py`). The only importer of cryptography.

A session belongs to the URL at which it began, not to a route's name: several routes may share one path, and their
conditions (a tool, a share of the requests) may match another one for every message of the same session.
"""

from __future__ import annotations

import binascii
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from proxy.config.keyfile import load_or_create
from proxy.dataplane.context import ANONYMOUS
from proxy.errors import SessionGone

if TYPE_CHECKING:
    from proxy.config.models import Config
    from proxy.dataplane.context import RequestContext

#: What a seal is for; authenticated with it, so that one kind never passes for the other.
SESSION: Final = b"mcp-session-id"
ENDPOINT: Final = b"legacy-sse-endpoint"

_VERSION: Final = "v1."
#: Longer text is not looked at; what would become longer is not sealed.
_LONGEST: Final = 4096
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_EXPIRY_BYTES: Final = 4
_LATEST_EXPIRY: Final = 0xFFFFFFFF
_SHORTEST_RAW: Final = 1 + _NONCE_BYTES + _EXPIRY_BYTES + _TAG_BYTES
_FIELDS: Final = 5
#: base64url to base64 and back (RFC 4648 section 5). The two characters of the other alphabet become invalid ones, so
#: that every seal has one spelling.
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_+/", b"+/  ")
_DERIVATION: Final = b"mcp-manager sealed sessions, version 1"

_KEY_FILE: Final = "session.key"


class Session:
    """Where a session lives and whose it is."""

    __slots__ = ("endpoint", "expires_at", "principal", "server", "tenant", "upstream_id")

    def __init__(
        self, server: str, upstream_id: str, tenant: str, principal: str, endpoint: str, expires_at: int
    ) -> None:
        self.server = server
        #: What the upstream calls it: its `Mcp-Session-Id`, or path and query of its legacy SSE endpoint.
        self.upstream_id = upstream_id
        self.tenant = tenant
        self.principal = principal
        #: Host and path under which the client reached the proxy.
        self.endpoint = endpoint
        #: Unix time in seconds.
        self.expires_at = expires_at

    def belongs_to(self, ctx: RequestContext) -> bool:
        """Whether it began for the same principal and tenant at the same URL."""
        principal = ctx.principal
        return (
            self.principal == principal.id
            and self.tenant == principal.tenant
            and self.endpoint == f"{ctx.host}{ctx.path}"
        )

    def __repr__(self) -> str:
        return f"Session(server={self.server!r}, endpoint={self.endpoint!r}, expires_at={self.expires_at})"


class Sealer:
    """Seals sessions into text and opens them again. `keys` are secrets of any length: the first seals, all open.

    `wall_clock` gives Unix time in seconds, `random_bytes` unpredictable bytes. Nonces are random, which is sound for
    2**32 seals under one key (NIST SP 800-38D section 8.3).
    """

    __slots__ = ("_encrypt", "_key_id", "_openers", "_random_bytes", "_ttl_s", "_wall_clock")

    def __init__(
        self,
        keys: Sequence[bytes],
        ttl_s: float,
        wall_clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        if not keys:
            raise ValueError("a sealer needs a key")
        ring = [_derive(key) for key in keys]
        self._key_id = ring[0][0]
        self._encrypt = ring[0][1].encrypt
        self._openers: dict[int, list[AESGCM]] = {}
        for key_id, cipher in ring:
            self._openers.setdefault(key_id[0], []).append(cipher)
        self._ttl_s = ttl_s
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes

    def begin(self, ctx: RequestContext, server: str, upstream_id: str) -> Session:
        """A session that starts now, for the client of `ctx` at the URL it used."""
        expires_at = min(int(self._wall_clock() + self._ttl_s), _LATEST_EXPIRY)
        principal = ctx.principal
        return Session(server, upstream_id, principal.tenant, principal.id, f"{ctx.host}{ctx.path}", expires_at)

    def seal(self, session: Session, purpose: bytes = SESSION) -> str:
        """Text of characters that fit a header and a query as they are. Raises ValueError when it would be too long."""
        fields = (session.server, session.upstream_id, session.tenant, session.principal, session.endpoint)
        plain = session.expires_at.to_bytes(_EXPIRY_BYTES, "big") + "\0".join(fields).encode()
        if plain.count(0, _EXPIRY_BYTES) != _FIELDS - 1:
            raise ValueError("a session field holds NUL")
        # a whole number of base64 groups: no padding, and no spare bits that could be changed unnoticed
        plain += b"\0" * (-(len(plain) + 1 + _NONCE_BYTES + _TAG_BYTES) % 3)
        nonce = self._random_bytes(_NONCE_BYTES)
        raw = self._key_id + nonce + self._encrypt(nonce, plain, purpose)
        text = _VERSION + binascii.b2a_base64(raw, newline=False).translate(_TO_URL).decode("ascii")
        if len(text) > _LONGEST:
            raise ValueError("too long to be sealed")
        return text

    def open(self, text: str, purpose: bytes = SESSION) -> Session | None:
        """The session sealed in `text`; None when it is malformed, forged, expired, or sealed for something else."""
        if len(text) > _LONGEST or text[:3] != _VERSION:
            return None
        try:
            raw = binascii.a2b_base64(text[3:].encode("ascii").translate(_FROM_URL), strict_mode=True)
        except ValueError:
            return None
        plain = self._decrypt(raw, purpose)
        if plain is None:
            return None
        expires_at = int.from_bytes(plain[:_EXPIRY_BYTES], "big")
        if expires_at <= self._wall_clock():
            return None
        server, upstream_id, tenant, principal, endpoint = plain[_EXPIRY_BYTES:].decode().split("\0")[:_FIELDS]
        return Session(server, upstream_id, tenant, principal, endpoint, expires_at)

    def _decrypt(self, raw: bytes, purpose: bytes) -> bytes | None:
        if len(raw) < _SHORTEST_RAW:
            return None
        nonce, sealed = raw[1 : 1 + _NONCE_BYTES], raw[1 + _NONCE_BYTES :]
        for cipher in self._openers.get(raw[0], ()):
            try:
                return cipher.decrypt(nonce, sealed, purpose)
            except InvalidTag:
                continue
        return None


def _derive(secret: bytes) -> tuple[bytes, AESGCM]:
    """One byte that names the key, and the cipher (HKDF with SHA-256, RFC 5869)."""
    okm = HKDF(algorithm=SHA256(), length=1 + 32, salt=None, info=_DERIVATION).derive(secret)
    return okm[:1], AESGCM(okm[1:])


def session_of(ctx: RequestContext) -> Session | None:
    """The session that the client names in `Mcp-Session-Id`, if the route seals them; raises SessionGone.

    Modern requests (2026-07-28) have no sessions: the field means nothing there and is forwarded as it is.
    """
    text = ctx.fields.get("mcp-session-id")
    if text is None or ctx.route is None or not ctx.route.sealed:
        return None
    if ctx.envelope is not None and ctx.envelope.modern:
        return None
    session = ctx.snapshot.sealer.open(text)
    if session is None:
        raise SessionGone("cannot be opened")
    if not session.belongs_to(ctx):
        raise SessionGone("belongs to another client or URL")
    return session


def affinity_key(ctx: RequestContext) -> str:
    """What requests of one kind have in common by the route's `affinity`; '' for nothing, then any server will do.

    The anonymous principal is everyone, so `by: principal` takes the client's address for it.
    """
    affinity = ctx.route.affinity if ctx.route is not None else None
    if affinity is None:
        return ""
    if affinity.by == "client_address":
        return ctx.client_ip
    if affinity.by == "principal":
        return f"{ctx.principal.tenant}\0{ctx.principal.id}" if ctx.principal is not ANONYMOUS else ctx.client_ip
    if affinity.by == "header":
        return ctx.fields.get((affinity.header or "").lower(), "")
    message = ctx.message
    return message.target if message is not None and message.target_kind == "task" else ""


def load_or_create_key(state_dir: str) -> bytes:
    """The key that seals where none is configured: made once and kept in `state_dir`. Raises as `load_or_create`."""
    return load_or_create(Path(state_dir) / _KEY_FILE)


def sealer_of(config: Config) -> Sealer:
    """With the configured keys, or the one that is kept in the state directory. Raises OSError."""
    keys = [key.get_secret_value().encode() for key in config.sessions.keys] or [load_or_create_key(config.state_dir)]
    return Sealer(keys, config.sessions.ttl, time.time, os.urandom)
