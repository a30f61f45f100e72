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

from proxy.audit.names import Kind, is_template, kind_of, looks_random
from proxy.audit.numbers import redact_numbers
from proxy.audit.tokens import redact_tokens

#: Shorter texts hold nothing that could be told from a word.
_SHORTEST: Final = 6
#: Characters of one value, and of the part of a URL that may hold a password.
_LONGEST: Final = 4096
_AUTHORITY: Final = 256

_BLOCK: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12}[ -]){0,4}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d:")
_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,60}-----|Private-MAC: ?[0-9a-f]{0,128}")
_WEB: Final = ("http", "https", "ws", "wss", "ftp", "git")
_OF_SCHEME: Final = f"{ascii_letters}{digits}+.-"
_STRICT: Final = re.compile(r"[^\s/?#\"'<>`\\]*+")
_LOOSE: Final = re.compile(r"[^\s\"'<>`\\]*+")
#: A name and what sets it: `name = `, `"name": `, `name:=`, `$name => `.
_SET: Final = re.compile(
    r"(?<![\w.])((?:(?:[Aa]pi|API|[Aa]ccess|[Ss]ecret|[Pp]rivate|[Pp]ublic|[Ss]igning|[Aa]uth|[Pp]rimary|[Ff]oreign) )?"
    r"[A-Za-z_][\w.-]{0,80}+)(\\{0,3}[\"'`]?[\])]?[ \t]{0,4}+"
    r"(?::=|=>|->|==|=|:(?!:)|is |was |\((?=[\"'])|,(?=[ \t]?[\"']))[ \t]{0,4}+)(\\{0,3}[\"'`])?"
)
_BARE: Final = re.compile(r"[^\s\"'`,;&<>|\\]{1,4096}+")
_CALL: Final = re.compile(r"[A-Za-z_][\w.]*[(\[]")
#: A name in a program with its owner: `self._token`.
_DOTTED: Final = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+){1,8}")
_PLACED: Final = ("<", "auth", "code", "word", "identified", "requirepass")
_SCHEMES: Final = ("bearer", "basic", "token", "apikey", "ssws", "negotiate", "digest")
#: Values of an Authorization field (RFC 9110 section 11, and what vendors made of it).
_CREDENTIAL: Final = re.compile(
    r"(?<![A-Za-z0-9])(bearer|basic|token|apikey|ssws|negotiate|digest)[ \t]{1,4}+"
    r"([A-Za-z0-9._~+/-]{8,4096}+={0,2})(?![\w@])",
    re.IGNORECASE,
)
#: A whole header line, alone or as the option of a command.
_HEADER: Final = re.compile(
    r"(?<![\w-])((?:proxy-)?authorization|(?:set-)?cookie)([\"']?[ \t]{0,4}+:[ \t]{0,4}+[\"']?)([^\r\n\"'\\]{8,4096}+)",
    re.IGNORECASE,
)
_OPTION: Final = re.compile(r"(?<![\w-])(--?[A-Za-z][\w-]{1,40}+)([ \t]{1,4}+)([\"']?)([^\s\"'-][^\s\"']{0,512}+)")
_USER: Final = re.compile(r"((?<!\S)(?:-u|--user|--proxy-user|-U)[ =]?[\"']?[^\s:\"']{1,128}+:)([^\s\"']{1,256}+)")
_SHORT: Final = re.compile(
    r"((?:(?:mysql|mysqldump|mariadb|sshpass|mysqladmin|az login)\b[^\n]{0,200}?\s-p ?|redis-cli\b[^\n]{0,200}?\s-a "
    r"|openssl\b[^\n]{0,200}?\s-k |sqlcmd\b[^\n]{0,200}?\s-P ?))([\"']?[^\s\"'-][^\s\"']{2,128}+)"
)
_ATTRIBUTES: Final = re.compile(
    r"((?:key|name)=[\"']([A-Za-z_][\w.-]{0,80}+)[\"'][ \t]{1,4}+value=[\"'])([^\"'\r\n]{1,4096}+)", re.IGNORECASE
)
_ELEMENT: Final = re.compile(r"(<([A-Za-z_][\w.:-]{0,80}+)>)([^<>]{1,4096}+)(?=</)")
_PAIR: Final = re.compile(r"(auth ?= ?\([\"'][^\"']{0,128}+[\"'], ?[\"'])([^\"']{1,256}+)")
_SQL: Final = re.compile(
    r"(\b(?:password|identified by)[ \t]{1,4}+)('[^'\r\n]{1,512}+'|\"[^\"\r\n]{1,512}+\")",
    re.IGNORECASE,
)
_CONF: Final = re.compile(r"^([ \t]{0,8}+(?:requirepass|masterauth)[ \t]{1,4}+)([^\s\"']{1,512}+)", re.MULTILINE)
_CODE: Final = re.compile(
    r"((?:one[- ]time|verification|security|login|2fa|mfa|otp)[ -](?:pass)?(?:code|word)(?: is)?:? )(\d{4,8}+)(?!\d)",
    re.IGNORECASE,
)
#: What speaks of a secret, and what may be one if it was drawn by lot; at most so many characters later.
_MENTION: Final = re.compile(
    r"passw|passphrase|secret|token|credential|bearer|api[ _-]?key|(?:deploy|access|signing|private)[ _-]?key",
    re.IGNORECASE,
)
_MENTIONS: Final = ("passw", "passphrase", "secret", "token", "credential", "bearer", "key")
_LOT: Final = re.compile(r"(?<![A-Za-z0-9+/_=.:-])[A-Za-z0-9+/_-]{20,512}+={0,2}(?![A-Za-z0-9+/_=.-])")
_HEX: Final = re.compile(r"[0-9a-f-]+|[0-9A-F-]+")
_NEAR: Final = 40
_NETRC: Final = re.compile(r"(login[ \t]{1,4}+\S{1,128}+\s{1,8}+password[ \t]{1,4}+)(\S{1,256}+)")


def redact(text: str) -> str:
    """The text without the secrets that are known by how they are written."""
    if len(text) < _SHORTEST:
        return text
    if "-----BEGIN" in text or "PuTTY" in text:
        text = _without_blocks(text)
    text = redact_tokens(text)
    if "://" in text:
        text = _without_passwords(text)
    if any(map(text.__contains__, " :=<(")):
        text = _without_named(text)
    return redact_numbers(text)


def _without_named(text: str) -> str:
    """What is a secret because of the words before it. Words are looked for first, which takes 1 ns a character."""
    low = text.lower()
    if any(map(low.__contains__, _SCHEMES)):
        text = _CREDENTIAL.sub(_without_credential, text)
    if "authorization" in low or "cookie" in low:
        text = _HEADER.sub(_without_header, text)
    if " -" in text or text.startswith("-"):
        text = _without_options(text)
    if "password" in text:
        text = _NETRC.sub(r"\1[redacted:password]", text)
    text = _without_values(text)
    if any(map(low.__contains__, _PLACED)):
        text = _without_placed(text)
    return _LOT.sub(_without_lot, text) if any(map(low.__contains__, _MENTIONS)) else text


def _without_placed(text: str) -> str:
    """Elements of XML, pairs, codes: places where a name comes first."""
    text = _ATTRIBUTES.sub(_without_part, text)
    text = _ELEMENT.sub(_without_part, text)
    text = _SQL.sub(_without_literal, text)
    for form in (_PAIR, _CONF):
        text = form.sub(r"\1[redacted:password]", text)
    return _CODE.sub(r"\1[redacted:otp]", text)


def _without_literal(match: re.Match[str]) -> str:
    """`PASSWORD 'tiger'` is SQL; `the password "field"` is not."""
    is_sql = match[1].isupper() or "by" in match[1].lower() or any(map(str.isdigit, match[2]))
    return f"{match[1]}[redacted:password]" if is_sql and not is_template(match[2].strip("'\"")) else match[0]


def _without_part(match: re.Match[str]) -> str:
    kind = kind_of(match[2])
    return f"{match[1]}[redacted:{kind.name}]" if kind is not None and kind.holds(match[3].strip()) else match[0]


def _without_lot(match: re.Match[str]) -> str:
    """Hashes and identities in hex are everywhere, and paths are long: neither is taken for a secret here."""
    found, start = match[0], match.start()
    if _HEX.fullmatch(found) or found.count("/") > 2 or not looks_random(found):
        return found
    near = _MENTION.search(match.string, max(0, start - _NEAR), start)
    return "[redacted:secret]" if near is not None else found


def _without_blocks(text: str) -> str:
    """Private keys in armour (RFC 7468, OpenPGP, PuTTY); of one that is cut off, all that is there."""
    pieces: list[str] = []
    at = 0
    while (begin := _BLOCK.search(text, at)) is not None:
        pieces += (text[at : begin.start()], "[redacted:private_key]")
        end = _END.search(text, begin.end())
        at = end.end() if end is not None else len(text)
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
    if not ("=" in value or looks_random(value.rpartition(" ")[2])):
        return match[0]
    return f"{match[1]}{match[2]}[redacted:{'cookie' if 'ookie' in match[1].lower() else 'authorization'}]"


def _without_options(text: str) -> str:
    """`--password hunter2`, `curl -u user:password`, `mysql -psecret`."""
    text = _USER.sub(lambda match: match[0] if is_template(match[2]) else f"{match[1]}[redacted:password]", text)
    text = _SHORT.sub(r"\1[redacted:password]", text)
    return _OPTION.sub(_without_option, text)


def _without_option(match: re.Match[str]) -> str:
    kind, value = kind_of(match[1]), match[4]
    if kind is None or not kind.holds(value) or (not match[3] and _is_word(value) and kind.name != "password"):
        return match[0]
    return f"{match[1]}{match[2]}{match[3]}[redacted:{kind.name}]"


# --- names and values ------------------------------------------------------------------------------------------------


def _without_values(text: str) -> str:
    pieces: list[str] = []
    at = start = 0
    while (match := _SET.search(text, start)) is not None:
        start = match.end()
        kind = kind_of(match[1])
        if kind is None:
            start = match.end(2)
            continue
        value, behind = _value_at(text, match)
        if value and _is_written(kind, value, match, text[behind : behind + 2].strip(" \t")):
            pieces += (text[at : match.end()], f"[redacted:{kind.name}]")
            at = behind
        start = max(behind, start)
    return "".join((*pieces, text[at:])) if pieces else text


def _value_at(text: str, match: re.Match[str]) -> tuple[str, int]:
    """What stands behind a name, and where it ends: up to the quote that it began with, or to the end of the word."""
    start = match.end()
    if match[3]:
        end = text.find(match[3], start, start + _LONGEST)
        end = end if end >= 0 else min(len(text), start + _LONGEST)
        return text[start:end], end
    bare = _BARE.match(text, start)
    value = bare[0].rstrip(")]}.:") if bare is not None else ""
    return value, start + len(value)


def _is_written(kind: Kind, value: str, match: re.Match[str], behind: str) -> bool:
    """Whether it is a value, and not code or prose about one."""
    if not kind.holds(value):
        return False
    setter = match[2].strip(" \t")
    if match[3]:  # or the quote ended what the name stands in: `input("Password: ")`
        is_given = setter[-1:] not in "(," or any(map(str.isdigit, value))  # `get_password("db")`
        return is_given and value[0] not in ")],;}"
    if setter == "==" or _CALL.match(value) or _DOTTED.fullmatch(value):
        return False
    if setter == ":" and match.string[match.start() - 1 : match.start()] == ":":  # part of an ARN
        return False
    if setter in ("=", ":=") and match[2] == setter:
        return True
    if _is_word(value):  # `password: hunter`, a line of a file
        return setter == ":" and kind.name == "password" and behind[:1] in ("", "\n", "\r") and _begins_line(match)
    return setter in (":", "=>") or any(map(str.isdigit, value)) or not behind.strip()


def _begins_line(match: re.Match[str]) -> bool:
    start = match.start()
    before = match.string[max(0, start - 12) : start].strip(" \t-\"'")
    return before[-1:] in ("", "\n", "\r")


def _is_word(value: str) -> bool:
    """A word of a language, or a name in a program: letters, with dots and the like between them."""
    return value.replace("_", "").replace("-", "").replace(".", "").replace("[]", "").isalpha() and not looks_random(
        value
    )
