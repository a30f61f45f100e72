"""Single arguments of the command line as the values they stand for.

Owns their forms. Each function is a `type` of argparse: it takes the text and raises ArgumentTypeError with a sentence
that does not repeat it. The libraries that know the grammars are loaded when a value is given, not before.
"""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Final

_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KEY_ID: Final = re.compile(r"[0-9A-Za-z]{12}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.\-]*://[!-~]+(?<!/)")
_INTEGER: Final = re.compile(r"-?[0-9]{1,9}")
_BOOLEANS: Final = {"true": True, "false": False}
_LONGEST_NAME: Final = 200
_MOST: Final = 1_000_000_000


def slug(text: str) -> str:
    """The short name of a tenant."""
    if _SLUG.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("1 to 63 lower-case letters, digits and '-', with no '-' at either end")
    return text


def text(given: str) -> str:
    """Anything, if it is text in the first place: other bytes cannot be kept."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("UTF-8 text") from None
    return given


def name(text: str) -> str:
    """A name for people."""
    if not text.strip() or not text.isprintable() or len(text) > _LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"1 to {_LONGEST_NAME} printable characters")
    return text


def count(text: str) -> int:
    """How many: 0 or more."""
    if not text.isascii() or not text.isdecimal() or int(text[:12]) > _MOST or len(text) > len(str(_MOST)):
        raise argparse.ArgumentTypeError("a whole number, 0 or more, a billion at most")
    return int(text)


def positive(text: str) -> int:
    """How many: 1 or more."""
    if re.fullmatch(r"[0-9]{1,10}", text) is None or not 0 < int(text) <= _MOST:
        raise argparse.ArgumentTypeError("a whole number, 1 or more, a billion at most")
    return int(text)


def duration(text: str) -> timedelta:
    """`30d`, `24h`, `15m`, or 0."""
    from proxy.config.units import duration_s

    try:
        return timedelta(seconds=duration_s(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def moment(text: str) -> datetime:
    """`30d` from now, or an ISO time such as 2027-01-31T12:00+01:00; without an offset it is in UTC."""
    if text[:1].isdecimal() and text[-1:].isalpha() and "-" not in text:
        return datetime.now(UTC) + duration(text)
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("a duration such as 30d, or a time such as 2027-01-31T12:00+01:00") from None


def key_id(text: str) -> str:
    """The id of a key. From a whole key the id is taken: one that leaked is at hand as it leaked."""
    from proxy.identity.keys import parse

    parsed = parse(text)
    if parsed is not None:
        return parsed[0]
    if _KEY_ID.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("the id of a key: the 12 characters behind 'mcpm_', or that of a legacy key")
    return text


def network(text: str) -> str:
    """An address or a network."""
    from proxy.identity.addresses import read_network

    try:
        return str(read_network(text))
    except ValueError:
        raise argparse.ArgumentTypeError("an address or network: 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32") from None


def address(text: str) -> str:
    """What the address of a client counts as: itself, or its /64."""
    from proxy.limits.scores import subject_of

    subject = subject_of(text.removesuffix("/64"))
    if subject is None or ("/" in text and "/" not in subject):
        raise argparse.ArgumentTypeError("an address: 192.0.2.1, 2001:db8::1 or 2001:db8::/64")
    return subject


def banned(text: str) -> tuple[str, str]:
    """An address as it is written, and what it counts as: of a /64 that is blocked one address may be spared."""
    return text.removesuffix("/64"), address(text)


def origin(text: str) -> str:
    """A value of `Origin`."""
    if _ORIGIN.fullmatch(text) is None or text.count("/") > len("//"):
        raise argparse.ArgumentTypeError("an origin: https://app.example.com, without a path")
    return text


def pattern(given: str) -> str:
    """A name, or the beginning of one and a `*`."""
    from proxy.identity.patterns import is_pattern

    if not is_pattern(given):
        raise argparse.ArgumentTypeError("a name, or the beginning of one and a '*'")
    return text(given)


def header(text: str) -> tuple[str, str]:
    """`Name: value`."""
    key, colon, value = text.partition(":")
    if not colon or not key.strip():
        raise argparse.ArgumentTypeError("a header is written 'Name: value'")
    return key.strip(), value.strip()


def option(text: str) -> tuple[tuple[str, ...], str | int | bool]:
    """`timeouts.connect=5s`: the keys on the way to the value, and the value."""
    path, equals, value = text.partition("=")
    keys = tuple(path.split("."))
    if not equals or not all(keys):
        raise argparse.ArgumentTypeError("an option is written as in the configuration file: timeouts.connect=5s")
    if _INTEGER.fullmatch(value):
        return keys, int(value)
    return keys, _BOOLEANS.get(value, value)
