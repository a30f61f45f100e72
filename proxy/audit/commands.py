"""Secrets at places that a language gives them: options and arguments of commands, protocols line by line, SQL, calls.

Owns these places; nothing names the secret there. A value that could be anything is taken only where the place is sure,
elsewhere it has to be written like a password. All of it takes time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set
from string import ascii_lowercase, ascii_uppercase
from typing import Final

from proxy.audit.names import is_template, is_word, kind_of, looks_random

Put = str | Callable[[re.Match[str]], str]
"""What is put in the place of a match, as `re.sub` takes it."""

_USER: Final = re.compile(
    r"(-(?<!\S-)(?:(?:u|-user|-proxy-user|U)[ =]?[\"']?[^\s:\"']{1,128}+:|U ?[\"']?[^\s%\"']{1,128}+%|"
    r"u [\w.-]{1,64}+,))([^\s\"']{1,256}+)"
)
_OPTION: Final = re.compile(r"(-(?<![\w-]-)-?[A-Za-z][\w-]{1,40}+)([ \t]{1,4}+)([\"']?)([^\s\"'-][^\s\"']{0,512}+)")
#: Options of Windows, and of others that follow it.
_SLASHED: Final = re.compile(r"(/(?<!\S/)(?:p|pw|password|rp|pass)(?::| (?=\S*\d)))([^\s\"'/=]{3,128}+)(?![=/])")
_SHORT_ONE: Final = re.compile(r"-(?<!\S-)(?:[pPwakcb]|-cookie|-auth)")
#: Which short options of which commands take a password; those of the last only beside the name of a user.
_SHORT: Final = tuple(
    (re.compile(command), re.compile(rf"((?<!\S)-{letters} ?)(\"[^\"]{{1,128}}+|'[^']{{1,128}}+|"
    rf"[^\s\"'-][^\s\"']{{2,128}}+)"))
    for command, letters in (
        (r"\b(?:mysql\w*|mariadb[\w-]*)\b", "p(?! )"),
        (r"\b(?:sshpass|mongo\w*|cqlsh|influx|7z[ar]?|login|registry)\b", "p"),
        (r"\b(?:zip|unzip|sqlcmd|bcp|isql|tsql|ipmitool)\b", "P"),
        (r"\bldap\w{3,12}\b", "w"),
        (r"\b(?:redis|keydb|valkey)-cli\b", "a"),
        (r"\bopenssl\b", "k"),
        (r"\bsnmp\w{3,12}\b", "c"),
        (r"\bcurl\b", r"(?:b|-cookie) ?[\"']?[\w.-]{1,64}="),
        (r"\b(?:https?|xh)\b", r"(?:a|-auth)[ =][\"']?[^\s:\"']{1,64}:"),
        (r"(?<!\S)(?:-u|-U|-D|-l|--user(?:name)?|--login)[ =]?[^\s-]", "(?:p|P|pw|w)"),
    )
)  # fmt: skip
_PLAIN: Final = r"[^\s\"'|;]{1,256}+"
_LITERAL: Final = r"[^\"'\r\n]{1,256}+"
_VALUE: Final = r"[^\s\"'|;,)]{4,256}+"
_PART: Final = r"[^\s@\"'/]{1,128}+"
#: Up to the second of two texts that are handed over.
_SECOND: Final = r"[\"'][^\"']{0,128}+[\"'], ?[\"']"
#: What follows the name of an option in a sentence.
_NO_VALUES: Final = frozenset(
    "option options flag flags argument arguments parameter is are to and or for in with".split()  # noqa: SIM905
)
_PORT: Final = re.compile(r"[\d.:/,-]*(?:/tcp|/udp)?")
#: What must be in a text, in lower case, for the forms to be looked for: a word, what follows it before a secret, and
#: what the secret is made of; where that is not said, it has to be written like a password.
_WORDS: Final = {
    "net use": (("net use", r"r? \S{1,128}+ (?:/user:\S{1,128}+ )?(?![/*])", _PLAIN),),
    "securestring": (("convertto-securestring", r"(?: -string)?[ (]{1,2}[\"']", _LITERAL),),
    "connect": (
        ("connect", r"(?:ion)?\((?:\w{1,40}, ?|[\"'][^\"']{0,200}+[\"'], ?){0,2}[\"'][^\"']{0,128}+[\"'], ?[\"']", ""),
        ("connect", r" \S{1,64} password ", _PLAIN),
    ),
    "pdo(": (("pdo(", rf"[\"'][^\"']{{0,200}}+[\"'], ?{_SECOND}", _LITERAL),),
    "psk ": (("psk ", "[\"']", _LITERAL),),
    "account": (("account(", r"\w{1,40}, ?[\"']", ""),),
    "sp_addlogin": (("sp_addlogin ", "N?'[^']{0,128}+', ?N?'", _LITERAL),),
    "identify": (("identify ", "", ""),),
    "literal": (("--from-literal", r"[= ][\"']?[\w.-]{1,128}+=", _PLAIN),),
    "sqlplus": (("sqlplus", r"(?: -\w+)? [\"']?[\w$#]{1,64}+/", rf"{_PART}(?=@|\s|$)"),),
    "thin:": (("thin:", r"[\w$#]{1,64}+/", f"{_PART}(?=@)"),),
    "community": (("community ", "", r"\S{3,64}+(?= R[OW]\b)"),),
    "identified": (
        ("identified ", r"(?:with \S{1,64}+ )?by (?:password |values )?", r"'[^'\r\n]{1,512}+'|\"[^\"\r\n]{1,512}+\""),
        ("identified ", r"by ", ""), ("identified ", r"(?-i:(?<=IDENTIFIED )BY )", _PLAIN),
    ),
    "crypt(": (("crypt(", "'", _LITERAL),),
    "pass": (
        ("htpasswd", r" -(?:n\w{0,8}b\w{0,8}|\w{0,8}b\w{0,8} \S{1,256}+) \S{1,128}+ [\"']?", _PLAIN),
        ("requirepass", r"[ \t]{1,4}+(?![A-Za-z]++ )", _PLAIN), ("password ", r"\d ", ""), ("password(", _SECOND, ""),
    ),
    "login": (
        ("login ", r"\S{1,128}+\s{1,8}+password[ \t]{1,4}+", r"\S{1,256}+"), ("login ", r"(?=[\w.-]{16})", ""),
        ("login(", _SECOND, ""),
    ),
    "auth": (
        ("masterauth", r"[ \t]{1,4}+(?![A-Za-z]++ )", _PLAIN), ("auth", rf" ?= ?\({_SECOND}", _LITERAL),
        ("basicauth(", _SECOND, _LITERAL), ("digestauth(", _SECOND, _LITERAL), ("authenticate(", _SECOND, ""),
        ("auth ", r"(?=[\w.-]{16})", ""), ("auth ", r"[\w.-]{1,64}+:", ""), ("basic_auth", rf" {_SECOND}", _LITERAL),
        ("authtoken ", r"(?=[\w.-]{16})", ""),
    ),
    "credential": (("credential", rf"s?\({_SECOND}", _LITERAL),),
    "secret": (("secret ", r"(?:\d )?", ""),),
    "key ": (("key ", r"\d ", ""),),
}  # fmt: skip
STEMS: Final = tuple(_WORDS)
"""What is worth looking for in a text in lower case before anything else is."""
_SPOKEN: Final = frozenset(("pass", "auth", "login"))
_FORMS: Final = tuple(
    (gate, tuple((word, bool(value), re.compile(rf"({re.escape(word)}{behind})({value or _VALUE})", re.IGNORECASE))
                 for word, behind, value in forms))
    for gate, forms in _WORDS.items()
)  # fmt: skip
#: Lines of protocols, by what must be in them.
_PROTOCOLS: Final = (
    ("PASS ", re.compile(r"(^(?:[-<>*CS]{1,5}:? ?)?PASS )(?!\S*[/.])(\S{3,128}+)(?=\r?$)", re.MULTILINE)),
    ("AUTH ", re.compile(
        r"(^(?:[-<>*CS]{1,5}:? ?|[0-9.:> ]{1,40})?AUTH (?:PLAIN |LOGIN |default )?)([^\s\"]{3,512}+)"
        r"(?=\r?$)", re.MULTILINE)),
    ('"AUTH" ', re.compile(r"(\"AUTH\" (?:\"[^\"]{1,64}+\" )?\")([^\"\r\n]{1,256}+)(?=\"[ \t]*+\r?$)", re.MULTILINE)),
    (" LOGIN ", re.compile(r"(^(?:[CS]: )?\w{1,12} LOGIN \S{1,128}+ \"?)([^\s\"]{1,128}+)(?=\"?\r?$)", re.MULTILINE)),
)  # fmt: skip
#: `ADMIN_PASSWORD hunter2`, as in a Dockerfile.
_SPACED: Final = re.compile(
    r"([A-Z](?<![\w$]{1}[A-Z])[A-Z0-9]{0,40}+_[A-Z0-9_]{2,80}+[ \t]{1,4}+[\"']?)([^\s\"'=]{4,512}+)"
)
_SQL: Final = re.compile(
    r"((?<![\w-])[A-Za-z]{0,20}password(?:[ \t]{1,4}+|[ \t]?=[ \t]?))(N?'[^'\r\n]{1,512}+'|\"[^\"\r\n]{1,512}+\")",
    re.IGNORECASE,
)
_PIPED: Final = re.compile(
    r"(\b(?:echo|printf)(?: -[ne]{1,3})? )(\"[^\"\n]{1,256}+\"|'[^'\n]{1,256}+'|[^\s|\"']{1,256}+)"
    r"(?=(?: -n)? ?\| ?(?:sudo [^|\n]{0,40}?-S|(?:sudo )?chpasswd|kinit|cryptsetup|[^|\n]{1,120}?stdin))"
)
#: Account and secret of one vendor, who gives the second no form.
_TWILIO: Final = re.compile(r"(\bAC[0-9a-f]{32}[\"']?[,:]? ?[\"']?)([0-9a-f]{32})(?![0-9a-f])")
#: User and password of a driver for Go: `user:password@tcp(host)`.
_DRIVER: Final = re.compile(r"([\w.-]{1,64}+:)([^\s@\"'/]{1,128}+)(?=@(?:tcp|unix)\()")
#: Lists of rights of Redis, users of RabbitMQ, what a phone reads to get into a net, keys of a vault.
_LISTED: Final = re.compile(
    r"([ArWUu](?:CL SETUSER [^\n>]{0,100}+>|abbitmqctl (?:add_user|change_password) \S{1,128}+ |"
    r"IFI:[^\n]{0,100}?;P:|nseal [Kk]ey \d{1,2}: ))([^\s;]{3,128}+)"
)
#: A store of keys and values, told to keep one.
_PUT: Final = re.compile(
    r"([ps](?<![\w-].)(?:ut|et)(?: --secret)? [\w./:-]{0,100}?(?:[Pp]assword|[Pp]asswd|[Ss]ecret|[Tt]oken) )"
    r"([^\s;]{4,128}+)"
)
_HOST_LINE: Final = re.compile(
    r"^([A-Za-z*][\w.-]{0,128}+:(?:\d{2,5}|\*):[\w*-]{1,64}+:[\w*.-]{1,64}+:)([^\s:]{1,128}+)$", re.MULTILINE
)


def redact_places(text: str, said: Set[str]) -> str:
    """The text without what stands where a secret has to. `said`: which of `STEMS` it holds."""
    if " -" in text or text.startswith("-"):
        text = "\n".join(_of_line(line) if " -" in line or line[:1] == "-" else line for line in text.split("\n"))
    if said:
        text = _without_words(text, said)
    text = redact_marked(text, _MARKED)
    return _HOST_LINE.sub(_without_host_line, text) if text.count(":") >= 4 else text


def redact_marked(text: str, forms: Iterable[tuple[str, re.Pattern[str], Put]]) -> str:
    """The text with each form replaced, looked for only where its mark is in the text: what has to be in it, the form,
    and what is put in its place."""
    for mark, form, put in forms:
        if mark in text:
            text = form.sub(put, text)
    return text


def _without_words(text: str, said: Set[str]) -> str:
    for gate, forms in _FORMS:
        if gate in said:
            for word, sure, form in forms:
                text = _behind(text, word, form, _is_given if sure else looks_chosen)
    if not _SPOKEN.isdisjoint(said):
        text = redact_marked(text, _LINES)
    return _SQL.sub(_without_literal, text) if "pass" in said else text


def looks_chosen(text: str) -> bool:
    """Whether a text is written like a password, and not like a word, a path or a name with a number."""
    if len(text) < 4 or is_template(text) or is_word(text) or _TECHNICAL.fullmatch(text):
        return False
    return _MIXED.match(text) is not None


_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_MIXED: Final = re.compile(r"(?=.{0,80}?[^\W\d_])(?=.{0,80}?[\d!#$%&*+@^~?])(?!.{0,80}?[()\[\]{}<>])")
_TECHNICAL: Final = re.compile(
    r"(?:oauth|pbkdf|sha|md|argon|base|utf|ip|ipv|python|py|http|aes|rsa|ed|bcrypt|log|win|p|v|rfc|s|h|x|es|mp|web|tls|"
    r"sso|db|user|step|part|item|id)[-_]?v?\d[\d._-]{0,8}[a-z]{0,4}\d{0,2}|[/.~].*|[^\W\d]+[!?*&]+|[\w.+-]+@[\w-]+\.[\w.-]+|[\d.]+\w{0,3}|\d+[-/]\w+|.*://.*|"
    r"\w+/[\w./-]*|1password|@.*|#.*|.*\.[a-z]{1,4}\d?|&\w+;?|\w+'\w+",
    re.IGNORECASE,
)


def lowered(text: str) -> str:
    """The text in lower case, each character where it was."""
    low = text.lower()
    return low if len(low) == len(text) else text.translate(_LOWER)


def _behind(text: str, word: str, form: re.Pattern[str], verdict: Callable[[str], bool]) -> str:
    """The text without what stands behind a word. Words are found faster than forms."""
    low = lowered(text)
    pieces: list[str] = []
    at, found = 0, low.find(word)
    while found >= 0:
        match = form.match(text, found)
        if match is not None and verdict(match[2]):
            pieces += (text[at : match.end(1)], "[redacted:password]")
            at = match.end()
        found = low.find(word, max(at, found + 1))
    return "".join((*pieces, text[at:])) if pieces else text


def _of_line(line: str) -> str:
    """`--password hunter2`, `curl -u user:password`, `mysql -psecret`."""
    line = _USER.sub(without_given, line)
    if _SHORT_ONE.search(line) is not None:
        for command, option in _SHORT:
            if option.search(line) is not None and command.search(line) is not None:
                line = option.sub(_without_short if command is not _SHORT[-1][0] else _without_beside_user, line)
    return _OPTION.sub(_without_option, line)


def _without_short(match: re.Match[str]) -> str:
    value = match[2].strip("\"'")
    return match[0] if is_template(value) or _PORT.fullmatch(value) else f"{match[1]}[redacted:password]"


def _without_beside_user(match: re.Match[str]) -> str:
    value = match[2].strip("\"'")
    return match[0] if is_word(value) or value[:1] in "/.~" else _without_short(match)


def _without_option(match: re.Match[str]) -> str:
    kind, value = kind_of(match[1]), match[4]
    if (
        kind is None
        or not kind.holds(value)
        or value in _NO_VALUES
        or (not match[3] and is_word(value) and kind.name != "password")
    ):
        return match[0]
    return f"{match[1]}{match[2]}{match[3]}[redacted:{kind.name}]"


def _is_given(value: str) -> bool:
    return not is_template(value.strip("\"'"))


def _without_listed(match: re.Match[str]) -> str:
    return without_given(match) if looks_chosen(match[2]) else match[0]


def without_given(match: re.Match[str]) -> str:
    """What stands before a password, the first group, and not the password, the second, unless that is a template."""
    return f"{match[1]}[redacted:password]" if _is_given(match[2]) else match[0]


def _without_spaced(match: re.Match[str]) -> str:
    kind, value = kind_of(match[1].rstrip(" \t\"'")), match[2]
    if kind is None or not kind.holds(value) or not (looks_chosen(value) or looks_random(value)):
        return match[0]
    return f"{match[1]}[redacted:{kind.name}]"


def _without_literal(match: re.Match[str]) -> str:
    """`PASSWORD 'tiger'` is SQL; `the password "field"` is not."""
    is_sql = match[1].isupper() or any(map(str.isdigit, match[2]))
    return f"{match[1]}[redacted:password]" if is_sql and not is_template(match[2].strip("N'\"")) else match[0]


def _without_host_line(match: re.Match[str]) -> str:
    return f"{match[1]}[redacted:password]" if any(map(str.isdigit, match[2])) else match[0]


_LINES: Final = tuple((mark, line, without_given) for mark, line in _PROTOCOLS)
_MARKED: Final = (
    (" /", _SLASHED, without_given), ("_", _SPACED, _without_spaced), ("@tcp(", _DRIVER, without_given),
    ("ACL ", _LISTED, without_given), ("rabbitmqctl ", _LISTED, without_given), ("WIFI:", _LISTED, without_given),
    ("nseal ", _LISTED, without_given), ("put ", _PUT, _without_listed), ("set ", _PUT, _without_listed),
    ("echo ", _PIPED, without_given), ("printf ", _PIPED, without_given), ("AC", _TWILIO, r"\1[redacted:twilio]"),
)  # fmt: skip
