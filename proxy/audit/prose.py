"""Secrets in sentences: `the password for the key is ...`, in the languages of most people who write them.

Owns the words and how they join. People also write *about* passwords: what comes after the word is taken for one only
when it is written like one (`commands.py`), or is quoted behind the word for a phrase. All of it takes time linear in
the text.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Final

from proxy.audit.commands import looks_chosen, lowered, redact_marked, without_given
from proxy.audit.names import ABROAD

#: By their first letter, as what begins with one literal is found fast.
_LATIN: Final = (
    "assword",
    "assphrase",
    "asscode",
    "asswd",
    "wd",
    "w",
    "asse",
    "asswort",
    "assord",
    "assordet",
    "arola",
    "alavra-passe",
)
_WORDS: Final = (
    "mật khẩu", "kata sandi", "salasana on", "كلمة المرور", "كلمة السر", *(word for word in ABROAD if word[0] != "p"),
)  # fmt: skip
_ASCII: Final = tuple(word for word in _WORDS if word.isascii())
#: Scripts that put no blank between words.
_JOINED: Final = "|".join(word for word in _WORDS if ord(word[0]) > 0x2E00)
_SAID: Final = (
    "is|was|to|ist|war|lautet|auf|in|est|sera|es|era|será|é|è|sarà|jest|je|je to|är|er|blev|olarak|это|"
    "теперь|este|van|là|adalah|היא"
)
_SIGN: Final = r"[:=\uff1a—\u2013]|[-=]>|→|-(?= )"
_REST: Final = (
    r"[*_`\"'»”)\]]{0,3}+"
    rf"(?:(?:[ \t]{{1,2}}[^\W\d_](?:[^\W\d_]|-){{0,14}}+){{0,6}}?[ \t]{{0,2}}"
    rf"(?P<said>(?<![^\W\d_])(?:{_SAID})(?![^\W\d_])"
    rf"|{_SIGN})[ \t]{{0,2}}:?|(?P<joined>[是为為はがを은는이가을를]))?"
    r"[ \t*_]{0,4}(?:\r?\n[ \t]{1,16})?(?P<quote>[\"'`“„«»\u2018「『]?)(?P<value>(?<=[“„])[^”\r\n]{4,64}+|"
    r"[^\s\"'`”«»\u2019」』,;\uff0c。、]{4,128}+)"
)
_SENTENCE: Final = re.compile(rf"p(?:(?<![\w/.]p)(?:{'|'.join(_LATIN)})|(?<=[a-zäöü]p)asswort)(?![\w-]){_REST}")
_ABROAD: Final = re.compile(rf"(?:(?<![\w/.-])(?:{'|'.join(_WORDS)})(?![\w-])|(?:{_JOINED})){_REST}")
_QUOTED: Final = re.compile(
    r"([Pp]ass(?<![\w-]....)(?:phrase|code)\b(?: [a-z]{1,12}){0,4}? (?:is|was|to|=|:)? ?[\"“„«'])"
    r"([^\"”“»'\r\n]{4,256}+)"
)
STEMS: Final = ("pass", "pw", "parola", "code", "phrase", "seed", "pin", "puk", "cvc", "cvv", *_ASCII)
_TELL: Final = frozenset(("code", "pin", "puk", "cvc", "cvv"))
#: Looked for where not all is ASCII.
STEMS_ABROAD: Final = tuple(word for word in _WORDS if not word.isascii())
_LATIN_ONES: Final = frozenset(("pass", "pw", "parola"))
_SPARE: Final = frozenset(("code", "key", "phrase", "seed"))
_ABROAD_ONES: Final = frozenset(_WORDS)
_PIN: Final = re.compile(
    r"((?<![\w-])PIN(?:[- ]?code)?(?: [^\W\d_]{1,14}+){0,4}? ?(?:is|to|=|:|\uff1a|ist|lautet|es|est)?[ \t]{1,2})"
    r"(\d{4,8})(?!\w|[.:-]\d)"
)
_PAIR: Final = re.compile(
    r"((?<!\w)(?:log[ -]?in|sign[ -]?in|credentials?|creds|account|zugangsdaten|zugang|anmeldung|identifiants|acceso|"
    r"accesso|credenciales|credenziali|inloggen|логин|доступ|账号)(?!\w)[^\n/|]{0,40}? (?=\S))"
    r"([\w.@-]{1,64}+ ?/ )([^\s,;\"']{4,128}+)",
    re.IGNORECASE,
)
_SEED: Final = re.compile(
    r"([SsRrMmWw](?:eed|ecovery|nemonic|ecret|allet)[ _-]?(?:[Pp]hrase|[Ww]ords?|"
    r"[Kk]ey)?[\"']?(?: is)?[ :=]{1,3}\s{0,8}[\"'`]?)"
    r"((?:[a-z]{3,8}[ ,]{1,2}\s{0,2}){11,23}[a-z]{3,8})"
)
#: How somebody is told a code, in some languages.
_TOLD: Final = re.compile(
    r"(?:verification|vérification|verificación|verifica|bestätigungs?|sicherheits|security|login|access|door|alarm|"
    r"unlock|confirmation|use|your(?: \w{1,20})?|puk|tan|otp|cvc|cvv|pin)(?:[ -]{0,2}(?:code|kode|pin|tan))?"
    r"(?: is| lautet| ist| est| es| è|:){0,2}[ :]{1,3}(?:g-)?(?P<value>\d{3}-\d{3}|\d{3,8})(?![\w.:/-])"
)
_BEFORE: Final = re.compile(r"\d{4,8}+(?= is your [\w ]{0,40}code\b)")
_BOTH: Final = re.compile(r"(\b(?:u|user|usr|id): ?\S{1,64}+[ ,;/]{1,3}(?:p|pw|pwd|pass): ?)(\S{4,128}+)")
_CODE: Final = re.compile(
    r"([OoVvSsLl2MmCc](?<![A-Za-z0-9].)(?:ne[- ][Tt]ime|erification|ecurity|ogin|[Ff][Aa]|TP|tp|onfirmation)"
    r"[ -](?:[Pp]ass)?(?:[Cc]ode|[Ww]ord|PIN)(?: is)?:? )(\d{4,8}+)(?!\d)"
)
_CODES: Final = re.compile(
    r"([RrBbSsEe](?:ecovery|ackup|escue|cratch|mergency)[ _-]?(?:[Cc]odes?|[Kk]eys?)\b[^\n:]{0,40}+:[ \t]{0,4}\s{0,4})"
    r"((?:(?:[-*•]|\d{1,2}[.)])?[ \t]{0,4}(?=[\w-]{0,16}\d)[A-Za-z0-9][\w-]{5,40}+[, \t]{0,4}\r?\n?){1,24}+)"
)


def redact_sentences(text: str, said: Set[str]) -> str:
    """The text without secrets that sentences tell. `said`: which of `STEMS` it holds."""
    if not _LATIN_ONES.isdisjoint(said):
        text = _QUOTED.sub(without_given, _without_values(_SENTENCE, text))
    if not _ABROAD_ONES.isdisjoint(said):
        text = _without_values(_ABROAD, text)
    text = redact_marked(text, _MARKED)
    if not _TELL.isdisjoint(said):
        text = _without_told(_BEFORE.sub("[redacted:otp]", text))
    if not _SPARE.isdisjoint(said):
        for spare, kind in ((_SEED, "recovery"), (_CODE, "otp"), (_CODES, "recovery")):
            text = spare.sub(rf"\1[redacted:{kind}]", text)
    return text


def _without_told(text: str) -> str:
    spans = [match.span("value") for match in _TOLD.finditer(lowered(text))]
    ends = [0, *(end for _, end in spans)]
    kept = [text[at:start] for at, (start, _) in zip(ends, spans, strict=False)]
    return "[redacted:otp]".join((*kept, text[ends[-1] :]))


def _without_values(form: re.Pattern[str], text: str) -> str:
    pieces: list[str] = []
    at = 0
    for match in form.finditer(lowered(text)):
        start, end = match.span("value")
        value = text[start:end]
        bare = value.rstrip(".:)]*") if match["quote"] == "" else value
        if not match["said"] and not match["joined"] and not bare.isascii():
            continue
        if looks_chosen(bare) and (match["said"] or match["joined"] or _stands_alone(bare)):
            pieces += (text[at:start], "[redacted:password]")
            at = start + len(bare)
    return "".join((*pieces, text[at:])) if pieces else text


def _stands_alone(value: str) -> bool:
    """Whether a value needs no word that says that it is one."""
    return any(map(str.isdigit, value)) and "=" not in value


def _without_half(match: re.Match[str]) -> str:
    """Of user and password, in the last two groups or in the last."""
    chosen = looks_chosen(match[match.lastindex or 0].rstrip(".)"))
    return f"{match[0][: match.start(match.lastindex or 0) - match.start()]}[redacted:password]" if chosen else match[0]


_MARKED: Final = (("PIN", _PIN, r"\1[redacted:pin]"), (" / ", _PAIR, _without_half), ("p: ", _BOTH, _without_half))
