"""What configuration keys are made of: the strict base model, and names, paths, URLs, header fields, secrets.

Owns the grammar of single values; each check raises ValueError with one plain sentence that never repeats the value.
It reads no file: how a `file:` secret is read and where relative paths start comes from the validation context that
the loader passes in (`Context`); without one, as in code that builds models itself, values stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal, TypedDict, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,61}[a-z0-9])?")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")
_PATH: Final = re.compile(r"/[A-Za-z0-9\-._~!$&'()+,=:@/]*\*?")
#: What resolvers take for an IPv4 address, also as 127.1, 2130706433 or 0x7f.1 (WHATWG URL, section 3.5).
_NUMBER: Final = re.compile(r"(?:\A|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?\Z")
#: Fields that carry framing or that only the proxy may set; an operator's `headers:` cannot name them.
_RESERVED: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "expect",
     "mcp-session-id")
)  # fmt: skip
#: Characters of a secret that seals sessions: enough for 96 bits in base64.
_KEY_LENGTH: Final = 16


class Context(TypedDict):
    """What the loader gives to validation."""

    base: FilePath
    """Directory that relative paths start from."""
    read_secret: Callable[[str], str]
    """Content of the file that a `file:` reference names. Raises ValueError with a sentence."""


class Model(BaseModel):
    """Strict: unknown keys are errors, values are frozen once loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


def as_list(value: object) -> object:
    """A single value stands for a list of one."""
    return value if isinstance(value, list | tuple) or value is None else [value]


def _context(info: ValidationInfo) -> Context | None:
    return cast("Context | None", info.context)


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError(
            "a name has 1 to 63 lower-case letters, digits, '-', '_' or '.', with a letter or digit at both ends"
        )
    return value


def _path(value: str) -> str:
    if _PATH.fullmatch(value) is None or "//" in value or "/../" in f"{value}/" or "/./" in f"{value}/":
        raise ValueError("a path starts with '/', holds no encoded bytes or dot segments, and may end in one '*'")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("a server URL looks like https://host[:port]/path")
    if "@" in parts.netloc or "#" in value:
        raise ValueError("a server URL holds no user, password or fragment; put credentials into 'headers'")
    host = parts.hostname or ""
    if ":" not in host and _NUMBER.search(host) is not None:
        try:
            IPv4Address(host)
        except ValueError:
            raise ValueError("a host that ends in a number is an IPv4 address, such as 127.0.0.1") from None
    return value


def _public_url(value: str) -> str:
    try:
        valid = _url(value).startswith(("http://", "https://")) and "?" not in value
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("public_url looks like https://mcp.example.com or https://example.com/prefix")
    return value


def _header_name(value: str) -> str:
    if _TOKEN.fullmatch(value) is None:
        raise ValueError("a header name has letters, digits and '-'")
    return value


def _field_name(value: str) -> str:
    if _header_name(value).lower() in _RESERVED:
        raise ValueError("this header is the proxy's to set")
    return value


def _field_value(value: SecretStr) -> SecretStr:
    if _FIELD_VALUE.fullmatch(value.get_secret_value()) is None:
        raise ValueError("a header value is printable ASCII without blanks at its ends")
    return value


def _session_key(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _KEY_LENGTH:
        raise ValueError(f"a session key has {_KEY_LENGTH} or more characters")
    return value


def _reveal(value: object, info: ValidationInfo) -> object:
    """The content of the file when `value` is a `file:` reference."""
    context = _context(info)
    if context is None or not isinstance(value, str) or not value.startswith("file:"):
        return value
    return context["read_secret"](value.removeprefix("file:"))


def _from_base(value: str, info: ValidationInfo) -> str:
    """The path, made absolute where the loader says what relative paths start from."""
    context = _context(info)
    if "\0" in value:
        raise ValueError("a file path holds no NUL")
    return value if context is None else str(context["base"] / value)


def _network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("an address or network looks like 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32") from None


Text = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, AfterValidator(_name)]
Path = Annotated[str, AfterValidator(_path)]
Url = Annotated[str, AfterValidator(_url)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
FieldName = Annotated[str, AfterValidator(_field_name)]
#: A secret: as it is, or `file:PATH`. `${ENV}` is replaced before validation, as in every other value.
Secret = Annotated[SecretStr, BeforeValidator(_reveal, json_schema_input_type=str)]
FieldValue = Annotated[Secret, AfterValidator(_field_value)]
SessionKey = Annotated[Secret, AfterValidator(_session_key)]
#: A file or directory; relative to the configuration file.
File = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_from_base)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network, json_schema_input_type=str)]
Words = Annotated[tuple[Text, ...], BeforeValidator(as_list, json_schema_input_type=Text | tuple[Text, ...])]
Globs = Words
Networks = Annotated[tuple[Network, ...], BeforeValidator(as_list, json_schema_input_type=str | tuple[str, ...])]

Strategy = Literal[
    "round_robin", "weighted", "least_connections", "random", "power_of_two", "consistent_hash", "priority"
]


def once(names: Any, sentence: str) -> None:
    """Raise ValueError with `sentence` when two of `names` differ in nothing but case."""
    if len({name.lower() for name in names}) != len(names):
        raise ValueError(sentence)
