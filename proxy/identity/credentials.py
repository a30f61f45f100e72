"""The credential of a request: where it stands in the head, and how it is taken out again.

Owns `Authorization: Bearer`, `X-API-Key` and Better-Auth's signed session cookie. One request has one credential: two
that disagree are refused, one in the URL is never used (RFC 6750 sections 2 and 5.3: it would end in logs). What was
used here goes no further. It knows no table and no principal.

Better-Auth signs its session cookie as `token.signature`, the signature being the base64 of HMAC-SHA256 over the token
with BETTER_AUTH_SECRET, and URL-encodes the whole. Its bearer plugin takes the same text, or the bare token.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from hmac import compare_digest
from typing import Final
from urllib.parse import unquote

from proxy.errors import BadRequest, Unauthorized
from proxy.identity.keys import MAX_LENGTH, PREFIX, Hmac, digest_of, parse

AUTHORIZATION: Final = "authorization"
API_KEY: Final = "x-api-key"
COOKIE: Final = "cookie"

#: The same for every 401: it tells nothing about what was wrong (RFC 9110 section 11.6.1, RFC 6750 section 3).
CHALLENGE: Final = (("WWW-Authenticate", 'Bearer realm="mcp"'),)

_NO_FIELDS: Final = frozenset[str]()
_IN_AUTHORIZATION: Final = frozenset((AUTHORIZATION,))
_IN_API_KEY: Final = frozenset((API_KEY,))
_IN_COOKIE: Final = frozenset((COOKIE,))

#: Characters of a Bearer value. Wider than RFC 6750 section 2.1, since legacy keys are any text; no blank and no comma,
#: so that two joined fields are never one credential.
_TEXT: Final = re.compile(r"[!-+\--~]+")
#: Better-Auth's cookies that hold the session token or let a server act for the user, and pieces of large ones.
_PRIVATE_COOKIES: Final = r"(?:__(?:Secure|Host)-)?{prefix}\.(?:session_token|session_data|account_data)(?:[.-][0-9]+)?"
#: Query parameters that carry credentials elsewhere.
_QUERY_NAMES: Final = frozenset(("access_token", "api_key", "api-key", "apikey", "x-api-key"))
_SIGNATURE_LENGTH: Final = 44


class Kind(Enum):
    """How a credential is looked up."""

    KEY = "key"
    """By its id; the secret is compared."""
    OPAQUE = "opaque"
    """By digest: a legacy key, an API token or a bare session token."""
    SESSION = "session"
    """By digest among sessions only: the signature over the token was right."""


@dataclass(slots=True)
class Credential:
    """What a request showed. Holds no text but the secret of a key, which stays out of every repr."""

    kind: Kind
    name: str | bytes
    """Id of a key, or SHA-256 of the text: what the database may be asked about."""
    secret: str = field(default="", repr=False)
    carriers: frozenset[str] = _NO_FIELDS
    """Lower-case names of the fields that held it; they must not reach an upstream."""


def unauthorized(detail: str) -> Unauthorized:
    """The one 401: same status, body and header whatever `detail` (for the log) says."""
    return Unauthorized(detail, headers=CHALLENGE)


class CredentialReader:
    """Finds the credential of each request; made once per configuration. Has no repr of its own."""

    __slots__ = ("_cookie", "_cookie_mark", "_cookie_secret", "_private")

    def __init__(self, cookie_secret: str = "", *, cookie_prefix: str = "better-auth") -> None:
        """`cookie_secret`: BETTER_AUTH_SECRET; without it cookies are no credentials and pass untouched."""
        self._cookie_secret = Hmac(cookie_secret.encode()) if cookie_secret else None
        self._cookie_mark = f"{cookie_prefix}.session_token"
        self._cookie = frozenset((self._cookie_mark, f"__Secure-{self._cookie_mark}"))
        self._private = re.compile(_PRIVATE_COOKIES.format(prefix=re.escape(cookie_prefix)))

    def read(self, fields: Mapping[str, str], query: str = "") -> Credential | None:
        """The credential of a request, None when it shows none. `fields`: lower-case name to value.

        Raises Unauthorized for one that cannot be right (malformed, too long, wrong checksum, forged cookie, in the
        URL), BadRequest for two that disagree.
        """
        if query and _in_query(query):
            raise unauthorized("a credential in the URL")
        text, signed, carriers = "", False, _NO_FIELDS
        if AUTHORIZATION in fields and (shown := _bearer(fields[AUTHORIZATION])):
            text, signed = self._unsigned(shown)
            carriers = _IN_AUTHORIZATION
        if API_KEY in fields:
            text = _agreeing(text, _checked(fields[API_KEY]))
            carriers = carriers | _IN_API_KEY
        if self._cookie_secret and COOKIE in fields and (token := self._session_in(fields[COOKIE])):
            text, signed = _agreeing(text, token), True
            carriers = carriers | _IN_COOKIE
        return _credential(text, signed, carriers) if text else None

    def without(self, headers: list[tuple[str, str]], credential: Credential | None) -> list[tuple[str, str]]:
        """The fields that may go on: without those that held the credential, and without the session's cookies.

        Cookies go one by one, and always: a session's cookie is ours also where it was not needed.
        """
        carriers = credential.carriers if credential is not None else _NO_FIELDS
        passed = []
        for pair in headers:
            name = pair[0].lower()
            if name == COOKIE and self._cookie_secret:
                value = self.strip_cookies(pair[1])
                if value:
                    passed.append((pair[0], value))
            elif name not in carriers:
                passed.append(pair)
        return passed

    def strip_cookies(self, value: str) -> str:
        """A `Cookie` value without the session's cookies; '' when nothing is left."""
        if not self._cookie_secret or self._private.search(value) is None:
            return value
        kept = [piece for piece in value.split(";") if not self._private.fullmatch(_cookie_name(piece))]
        return ";".join(kept).strip(" \t")

    def _session_in(self, cookies: str) -> str:
        """The session token in the cookies, '' when there is none."""
        if self._cookie_mark not in cookies:
            return ""
        values = {value for name, value in _cookies(cookies) if name in self._cookie}
        if len(values) > 1:
            raise BadRequest("two session cookies that disagree")
        if not values:
            return ""
        token = self._verified(values.pop())
        if not token:
            raise unauthorized("a session cookie that we did not sign")
        return token

    def _unsigned(self, text: str) -> tuple[str, bool]:
        """A bearer text, or the token in it when it is one that Better-Auth signed."""
        if self._cookie_secret and ("." in text or "%" in text) and (token := self._verified(text)):
            return token, True
        return text, False

    def _verified(self, value: str) -> str:
        """The token of `token.signature` when the signature is right, else ''. Padding, URL alphabet and URL encoding
        differ by the version of Better-Auth that wrote it."""
        if len(value) > MAX_LENGTH or self._cookie_secret is None:
            return ""
        token, _, signature = unquote(value).rpartition(".")
        signature = signature.rstrip("=").replace("-", "+").replace("_", "/") + "="
        if not token or not signature.isascii() or len(signature) != _SIGNATURE_LENGTH:
            return ""
        expected = b2a_base64(self._cookie_secret.digest(token.encode()), newline=False)
        return token if compare_digest(signature.encode(), expected) else ""


def _agreeing(first: str, second: str) -> str:
    """The one credential that two fields show; `first`: '' for none."""
    if first and first != second:
        raise BadRequest("two credentials that disagree")
    return second


def _credential(text: str, signed: bool, carriers: frozenset[str]) -> Credential:
    if signed:
        return Credential(Kind.SESSION, digest_of(text), carriers=carriers)
    if not text.startswith(PREFIX):
        return Credential(Kind.OPAQUE, digest_of(text), carriers=carriers)
    key = parse(text)
    if key is None:
        raise unauthorized("a key with a wrong form or checksum")
    return Credential(Kind.KEY, key[0], key[1], carriers)


def _bearer(value: str) -> str | None:
    """The text behind `Bearer`, None for another scheme, which is the upstream's business."""
    if value.startswith("Bearer "):
        return _checked(value[7:])
    scheme, _, text = value.strip(" \t").replace("\t", " ", 1).partition(" ")
    if scheme.lower() == "bearer":
        return _checked(text)
    if PREFIX in value:
        raise unauthorized("a key without the scheme Bearer")
    if "," in value and "bearer" in value.lower():
        raise BadRequest("two values of Authorization")
    return None


def _checked(value: str) -> str:
    """A value that may be a credential."""
    text = value.strip(" \t")
    if len(text) > MAX_LENGTH:
        raise unauthorized("a credential that is too long")
    if _TEXT.fullmatch(text) is None:
        if "," in text:
            raise BadRequest("two credentials in one field")
        raise unauthorized("a credential with characters that none has")
    return text


def _in_query(query: str) -> bool:
    """Whether a query carries a key, or a parameter that is there to carry one."""
    plain = unquote(query) if "%" in query else query
    if PREFIX in plain:
        return True
    return any(piece.partition("=")[0].lower() in _QUERY_NAMES for piece in plain.replace(";", "&").split("&"))


def _cookie_name(piece: str) -> str:
    return piece.partition("=")[0].strip(" \t")


def _cookies(value: str) -> Iterator[tuple[str, str]]:
    """Name and value of each cookie (RFC 6265 section 4.2.1); quotes around a value are no part of it."""
    for piece in value.split(";"):
        text = piece.partition("=")[2].strip(" \t")
        yield _cookie_name(piece), text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
