"""Secrets in other clothes: in Base64, or with escapes of URLs, HTML or JSON between a name and its value.

Owns what is taken off, once: a text that is wrapped twice is kept as it is. Whether there is a secret under it others
know. All of it takes time linear in the text.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error
from collections.abc import Callable
from html import unescape
from typing import Final
from urllib.parse import unquote

#: A word in Base64 (RFC 4648), of both alphabets; lines of it that were folded as one.
_WORD: Final = re.compile(
    r"[A-Za-z0-9]{16}[A-Za-z0-9+/_-]*+(?:(?<=[\w+/-]{60})\r?\n[ \t]{0,16}[A-Za-z0-9+/_-]{1,76}+){0,120}+={0,2}"
)
_ORDINARY: Final = str.maketrans("+/", "-_", "\r\n\t ")
#: What is looked at of a word before it is decoded as a whole, characters.
_PROBE: Final = 16
_PRINTED: Final = frozenset(range(32, 127)) | {0, 9, 10, 13}
_ESCAPE: Final = re.compile(r"\\{1,4}u00([2-7][0-9a-fA-F])|\\{1,4}x([2-7][0-9a-fA-F])")
_URL: Final = ("%22", "%3D", "%3A", "%3d", "%3a", "%26")
_HTML: Final = ("&quot;", "&lt;", "&#34;", "&#39;", "&#x27;", "&#x22;")
_JSON: Final = ("\\u002", "\\u003", "\\x22", "\\x27", "\\x3d", "\\x3a")

Clean = Callable[[str], str]


def redact_wrapped(text: str, clean: Clean, has_run: bool = True) -> str:
    """The text without what `clean` finds under its clothes. `has_run`: whether a word can be long enough."""
    if has_run:
        text = _WORD.sub(lambda match: _without_word(match[0], clean), text)
    if "%" in text and any(map(text.__contains__, _URL)):
        text = _undressed(text, unquote(text), clean)
    if "&" in text and any(map(text.__contains__, _HTML)):
        text = _undressed(text, unescape(text), clean)
    if "\\" in text and any(map(text.__contains__, _JSON)):
        text = _undressed(text, _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text), clean)
    return text


def _undressed(text: str, bare: str, clean: Clean) -> str:
    """Without its clothes, if there was a secret under them."""
    kept = clean(bare)
    return text if kept == bare else kept


def _without_word(word: str, clean: Clean) -> str:
    probe = word[:_PROBE]
    head = None if probe.islower() or probe.isupper() else _decoded(probe)
    if head is None or not _PRINTED.issuperset(head):
        return word
    body = _decoded(word)
    text = body.decode("utf-8", "replace") if body is not None else ""
    return "[redacted:base64]" if clean(text) != text else word


def _decoded(word: str) -> bytes | None:
    plain = word.translate(_ORDINARY).rstrip("=")
    try:
        return urlsafe_b64decode(
            plain[: len(plain) // 4 * 4] + (plain[len(plain) // 4 * 4 :] + "==")[:4] * (len(plain) % 4 > 1)
        )
    except Error:
        return None
