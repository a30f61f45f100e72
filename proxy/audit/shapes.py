"""Secrets in running text: private keys, passwords in URLs, header values, assignments, options of commands.

Owns how they are written. What stands beside a name that holds secrets (`names.py`) is taken for one only where it is
written like a value: people also write *about* passwords. Tokens and card numbers are known by themselves (`tokens.py`,
`numbers.py`). All of it takes time linear in the text.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from string import ascii_letters, digits
from typing import Final

from proxy.audit import commands, layouts, prose
from proxy.audit.commands import redact_places
from proxy.audit.layouts import redact_layouts
from proxy.audit.names import Kind, is_template, is_word, kind_of, looks_random
from proxy.audit.numbers import redact_numbers
from proxy.audit.prose import redact_sentences
from proxy.audit.tokens import RUN, redact_tokens
from proxy.audit.wrapped import redact_wrapped

#: Shorter texts hold nothing that could be told from a word.
_SHORTEST: Final = 6
#: Characters of one value, and of the part of a URL that may hold a password.
_LONGEST: Final = 4096
_AUTHORITY: Final = 256

_BLOCK: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12}[ -]){0,4}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d:")
_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,60}-----|Private-MAC: ?[0-9a-f]{0,128}")
_KEY_END: Final = re.compile(r"-----END (?:[A-Z0-9]{1,12}[ -]){0,4}PRIVATE KEY(?: BLOCK)?-----")
_ARMOUR: Final = f"{ascii_letters}{digits}+/=\r\n\\ \t"
_WEB: Final = ("http", "https", "ws", "wss", "ftp", "git")
_OF_SCHEME: Final = f"{ascii_letters}{digits}+.-"
_STRICT: Final = re.compile(r"[^\s/?#\"'<>`\\]*+")
_LOOSE: Final = re.compile(r"[^\s\"'<>`\\]*+")
#: A name and what sets it: `name = `, `"name": `, `name:=`, `$name => `.
_SET: Final = re.compile(
    r"([A-Za-z_\u00aa-\uffff](?<![\w.].)[\w.-]{0,80}+)(\\{0,3}[\"'`]?[\])]?[ \t]{0,40}+(?:(?<=[ \t])"
    r"\([^()\n]{1,20}+\)[ \t]?)?"
    r"(?::=|=>|->|==|=|(?<!env):[ \t]?&?[A-Za-z]\w{0,20}[ \t]?=(?=[ \t]?[\"'])|:(?!:)|\uff1a|is |was |"
    r"\((?=[\"'])|,(?=[ \t]?(?:<<)?[\"']))[ \t]{0,40}+(?:<<)?)(\\{0,3}[\"'`])?"
)
#: Words that may stand before a name, with a blank between.
_BEFORE: Final = frozenset(
    "api access secret private public signing auth primary foreign account routing security de".split()  # noqa: SIM905
)
_BARE: Final = re.compile(r"[^\s\"'`,;&<>|\\]{1,4096}+")
#: A value of ODBC that holds a semicolon.
_BRACED: Final = re.compile(r"\{(?:[^{}\r\n\"',$]|\}\}){1,128}+\}(?=[;\"'\s]|$)")
_CALL: Final = re.compile(r"[A-Za-z_][\w.]*[(\[]")
#: A name in a program with its owner: `self._token`.
_DOTTED: Final = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+){1,8}")
_OWNED: Final = re.compile(r"[A-Za-z_]\w{0,24}(?:\.[A-Za-z_]\w{0,24}){1,8}")
_SCHEMES: Final = frozenset(("bearer", "basic", "token", "key", "digest"))
#: Values of an Authorization field (RFC 9110 section 11, and what vendors made of it).
_CREDENTIAL: Final = re.compile(
    r"(?<![A-Za-z0-9])(bearer|basic|token|apikey|ssws|negotiate|digest)[ \t]{1,4}+"
    r"([A-Za-z0-9._~+/-]{8,4096}+={0,2})(?![\w@])",
    re.IGNORECASE,
)
#: A whole header line, alone or as the option of a command.
_HEADER: Final = re.compile(
    r"(?<![\w-])((?:proxy-)?authorization|(?:set-)?cookie)([\"']?[ \t]{0,4}+:[ \t]{0,4}+[\"']?)"
    r"(digest [^\r\n]{8,4096}+|[^\r\n\"'\\]{8,4096}+)",
    re.IGNORECASE,
)
#: What speaks of a secret, and what may be one if it was drawn by lot; at most so many characters later.
_MENTION: Final = re.compile(
    r"passw|passphrase|secret|token|credential|bearer|api[ _-]?key|(?:deploy|access|signing|private)[ _-]?key",
    re.IGNORECASE,
)
_MENTIONS: Final = frozenset(("pass", "secret", "token", "credential", "bearer", "key"))
#: What is worth looking for in a text in lower case before anything else is.
_OWN: Final = (*_SCHEMES, *_MENTIONS, "cookie", "pin")
_STEMS: Final = tuple(dict.fromkeys((*commands.STEMS, *layouts.STEMS, *prose.STEMS, *_OWN)))
_ALL_STEMS: Final = (*_STEMS, *prose.STEMS_ABROAD)
_LOT: Final = re.compile(r"[A-Za-z0-9+/_-]{20,512}+={0,2}+")
#: A link that lets in whoever has it.
_PATH: Final = re.compile(
    r"(/(?:[\w-]{0,40}(?:passw|token|secret|magic|invit|verif|confirm|activat|share|login|auth|hook|key)[\w-]{0,40}+)/)([\w-]{16,512}+)",
    re.I,
)
_JOINT: Final = ("=", ".", ":")
#: A code that is worth a token (RFC 6749 section 4.1.2).
_QUERY: Final = re.compile(r"([?&](?:[\w-]{0,20}_)?code=)([\w./~%-]{16,2048}+)")
_HEX: Final = re.compile(r"[0-9a-f-]+|[0-9A-F-]+|0x[0-9a-fA-F]+")
#: What stands between a name and its value; without blanks between words nothing does.
_SEPARATED: Final = re.compile(r"[ :=<(\n\t\u0e00-\uffff]")
_NEAR: Final = 40


def redact(text: str) -> str:
    """The text without the secrets that are known by how they are written."""
    if len(text) < _SHORTEST:
        return text
    has_run = RUN.search(text) is not None
    return redact_wrapped(_bare(text, has_run), _bare, has_run)


def _bare(text: str, has_run: bool = True) -> str:
    """`has_run`: whether a token can be in it."""
    if "-----" in text or "PuTTY" in text:
        text = _without_blocks(text)
    if has_run:
        text = redact_tokens(text)
    if "://" in text:
        text = _without_passwords(text)
    if _SEPARATED.search(text) is not None:
        text = _without_named(text)
    return redact_numbers(text)


def _without_named(text: str) -> str:
    """What is a secret because of the words around it. Words are looked for first, which takes 1 ns a character."""
    low = text.lower()
    said = {stem for stem in (_STEMS if text.isascii() else _ALL_STEMS) if stem in low}
    if said:
        if not _SCHEMES.isdisjoint(said):
            text = _CREDENTIAL.sub(_without_credential, text)
        if "auth" in said or "cookie" in said:
            text = _HEADER.sub(_without_header, text)
    text = _without_values(redact_places(text, said))
    text = redact_sentences(redact_layouts(text, said), said)
    if "code" in said:
        text = _QUERY.sub(_without_segment, text)
    if _MENTIONS.isdisjoint(said):
        return text
    return _PATH.sub(_without_segment, _LOT.sub(_without_lot, text))


def _without_segment(match: re.Match[str]) -> str:
    return f"{match[1]}[redacted:token]" if looks_random(match[2]) else match[0]


def _without_lot(match: re.Match[str]) -> str:
    """Hashes and identities in hex are everywhere, and paths are long: neither is taken for a secret here."""
    found, start = match[0], match.start()
    if _HEX.fullmatch(found) or found.count("/") > 2:
        return found
    if match.string[start - 1 : start] in _JOINT or match.string[match.end() : match.end() + 1] in _JOINT:
        return found
    is_near = _MENTION.search(match.string, max(0, start - _NEAR), start) is not None
    return "[redacted:secret]" if is_near and looks_random(found) else found


def _without_blocks(text: str) -> str:
    """Private keys in armour (RFC 7468, OpenPGP, PuTTY); of one that is cut off, all that is there."""
    pieces: list[str] = []
    at = 0
    while (begin := _BLOCK.search(text, at)) is not None:
        pieces += (text[at : begin.start()], "[redacted:private_key]")
        end = _END.search(text, begin.end())
        at = end.end() if end is not None else len(text)
    return _without_tails("".join((*pieces, text[at:])))


def _without_tails(text: str) -> str:
    """Ends of private keys that began before what is shown."""
    pieces: list[str] = []
    at = 0
    for end in _KEY_END.finditer(text):
        pieces += (text[at : end.start()].rstrip(_ARMOUR), "[redacted:private_key]")
        at = end.end()
    return "".join((*pieces, text[at:])) if pieces else text


def _without_passwords(text: str) -> str:
    """`scheme://user:password@host`; those of databases hold what a URL should not (RFC 3986 section 3.2)."""
    pieces: list[str] = []
    at, found = 0, text.find("://")
    while found >= 0:
        before = text[max(at, found - 31) : found]
        scheme = before[len(before.rstrip(_OF_SCHEME)) :].lower()
        form = _STRICT if not scheme or scheme in _WEB else _LOOSE
        authority = form.match(text, found + 3, found + 3 + _AUTHORITY)
        known, mark, _ = authority[0].rpartition("@") if authority is not None else ("", "", "")
        user, colon, password = known.partition(":")
        if mark and (not is_template(password) if colon else looks_random(user)):
            kept = f"{user}:" if colon else ""
            pieces += (text[at : found + 3], kept, "[redacted:password]")
            at = found + 3 + len(known)
        found = text.find("://", max(at, found + 3))
    return "".join((*pieces, text[at:])) if pieces else text


def _without_credential(match: re.Match[str]) -> str:
    scheme, value = match[1].lower(), match[2]
    if scheme == "basic":
        secret = _is_basic(value)
    elif len(value) < 20 and _HEX.fullmatch(value):  # of an assembly, a row or a picture
        secret = False
    else:
        secret = looks_random(value) or (len(value) >= 8 and any(map(str.isdigit, value)) and "/" not in value)
    return f"{match[1]} [redacted:{scheme}]" if secret else match[0]


def _is_basic(value: str) -> bool:
    """User and password (RFC 7617)."""
    try:
        return b":" in b64decode(value + "=" * (-len(value) % 4), validate=True)
    except Error:
        return False


def _without_header(match: re.Match[str]) -> str:
    value = match[3]
    if "[redacted" in value and "=" not in value.partition("]")[2]:
        return match[0]
    words = value.split()
    given = len(words) == 2 and len(words[1]) >= 8 and any(map(str.isdigit, words[1])) and not is_template(words[1])
    if not (given or "=" in value or looks_random(words[-1])):
        return match[0]
    return f"{match[1]}{match[2]}[redacted:{'cookie' if 'ookie' in match[1].lower() else 'authorization'}]"


# --- names and values ------------------------------------------------------------------------------------------------


def _without_values(text: str) -> str:
    pieces: list[str] = []
    at = start = 0
    while (match := _SET.search(text, start)) is not None:
        start = match.end()
        kind = _kind_at(text, match)
        if kind is None:
            start = match.end(2)
            continue
        value, behind = _value_at(text, match)
        if value and _is_written(kind, value, match, text[behind : behind + 2].strip(" \t")):
            pieces += (text[at : match.end()], f"[redacted:{kind.name}]")
            at = behind
        start = max(behind, start)
    return "".join((*pieces, text[at:])) if pieces else text


def _kind_at(text: str, match: re.Match[str]) -> Kind | None:
    """What the name promises: alone, or together with the word before it."""
    name, start = match[1], match.start()
    if text[start - 1 : start] == " ":
        before = text[max(0, start - 12) : start - 1].rpartition(" ")[2]
        if before.lower() in _BEFORE:
            name = f"{before} {name}" if before != "de" else f"mot de {name}"
    return kind_of(name)


def _value_at(text: str, match: re.Match[str]) -> tuple[str, int]:
    """What stands behind a name, and where it ends: up to the quote that it began with, or to the end of the word."""
    start = match.end()
    if match[3]:
        end = text.find(match[3], start, start + _LONGEST)
        end = end if end >= 0 else min(len(text), start + _LONGEST)
        return text[start:end], end
    bare = _BRACED.match(text, start) or _BARE.match(text, start)
    value = bare[0].rstrip(")].:" if bare[0][0] == "{" else ")]}.:") if bare is not None else ""
    return value, start + len(value)


def _is_written(kind: Kind, value: str, match: re.Match[str], behind: str) -> bool:
    """Whether it is a value, and not code or prose about one."""
    if not kind.holds(value):
        return False
    setter = match[2].strip(" \t")
    if match[3]:  # or the quote ended what the name stands in: `input("Password: ")`
        is_given = setter[-1:] not in "(," or any(map(str.isdigit, value))  # `get_password("db")`
        return is_given and value[0] not in ")],;}"
    named = kind.name != "password"
    if setter == "==" or _CALL.match(value) or _is_owned(value, named) or (value[0] in "([{" and not _is_braced(value)):
        return False
    if named and "_" in value and is_word(value):  # a name in a program
        return False
    if setter == ":" and match.string[match.start() - 1 : match.start()] == ":":  # part of an ARN
        return False
    if setter in ("=", ":=") and match[2] == setter:
        return value != match[1]
    if is_word(value):  # `password: hunter`, a line of a file
        return setter == ":" and kind.name == "password" and behind[:1] in ("", "\n", "\r") and _begins_line(match)
    return setter in (":", "=>") or any(map(str.isdigit, value)) or not behind.strip()


def _is_owned(value: str, named: bool) -> bool:
    """Whether it is what a program calls by its owner, as in `self._token`; one of a password has no digits."""
    if not named:
        return _DOTTED.fullmatch(value) is not None
    return _OWNED.fullmatch(value) is not None and not looks_random(value.rpartition(".")[2])


def _is_braced(value: str) -> bool:
    """`{a;b}` in ODBC; `{password}` is a place where one will be."""
    return value[-1] == "}" and not is_word(value[1:-1]) and not value[1:-1].isidentifier()


def _begins_line(match: re.Match[str]) -> bool:
    start = match.start()
    before = match.string[max(0, start - 12) : start].strip(" \t-\"'")
    return before[-1:] in ("", "\n", "\r")
