"""Secrets whose name stands elsewhere: over a table, on the line before, in the member beside, around a block.

Owns these layouts; which names hold secrets is known by `names.py`. All of it takes time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Final

from proxy.audit.commands import looks_chosen, redact_marked
from proxy.audit.names import ABROAD, Kind, kind_of

#: Cells of a line, and columns of a list, that are looked at.
_MOST: Final = 64
_ELEMENT: Final = re.compile(r"(<([A-Za-z_][\w.:-]{0,80}+)(?: [^<>]{0,200}+)?>)([^<>]{1,4096}+)(?=</)")
#: `name: X` and `value: Y`, as members, elements, attributes or lines.
_BESIDE: Final = re.compile(
    r"((?:[Nn]ame|[Kk]ey|variable)\\?[\"']?(?:: ?|>|=)\\?[\"']?([A-Za-z_][\w.-]{1,80}+)\\?[\"']?(?:</\w{1,16}>)?"
    r"[\s,]{0,40}+[<\"'\\]{0,2}(?:[Pp]arameter)?[Vv]alue(?: \w+=\S{1,40}?)?\\?[\"']?(?:: ?|>|=)\\?[\"']?)"
    r"([^\"'<>\\\r\n]{1,4096}+)"
)
_VARIABLE: Final = re.compile(
    r"(\bvariable[ \t]{1,4}\"([\w-]{1,80}+)\"[ \t]{0,4}\{[^{}\"]{0,400}?\bdefault[ \t]{0,8}=[ \t]{0,8}\")"
    r"([^\"\r\n]{1,512}+)"
)
_KUBERNETES: Final = re.compile(
    r"^([ \t]{0,16}+)((?:data|stringData|binaryData):[ \t]{0,4}+\r?\n)((?:\1[ \t]{1,16}+\S[^\n]{0,8192}+(?:\n|$))+)",
    re.MULTILINE,
)
_MEMBER: Final = re.compile(r"^([ \t]{1,32}+[\w.-]{1,253}+:[ \t]{1,4}+)(\S[^\n]*+)", re.MULTILINE)
_JWK: Final = re.compile(r"(\\{0,3}\"(?:d|p|q|dp|dq|qi|k)\\{0,3}\"\s{0,4}:\s{0,4}\\{0,3}\")([\w-]{16,})")
#: A name alone on a line, and on the next what it means.
_NEXT: Final = re.compile(
    r"^([ \t>*-]{0,16}+[\"'*]{0,3}([^\W\d][\w .-]{1,60}?)"
    r"[\"'*]{0,3}:[ \t*]{0,4}(?:[|>][+-]?)?[ \t]{0,4}\r?\n[ \t>]{0,16}+`{0,3})"
    r"([^\s`:]{4,512}+)(?=`{0,3}[ \t]{0,4}\r?$)",
    re.MULTILINE,
)
STEMS: Final = ("value", "into ")
#: A row of a name and its value, in Markdown and HTML.
_ROW: Final = re.compile(
    r"((?:\||<t[dh]>|<dt>)[ \t*]{0,4}([A-Za-z_][\w -]{1,40}?)[ \t*:]{0,4}(?:\||</t[dh]>\s{0,8}<td>|"
    r"</dt>\s{0,8}<dd>)[ \t]{0,4}`?)"
    r"([^\s`|<>]{4,512}+)(?=`?[ \t]{0,4}(?:\||<))"
)
#: What is taken if no other is given.
_INSTEAD: Final = re.compile(
    r"((?:\b(?:process\.env\.|ENV\[.)|[\"']--)([\w-]{2,60}+)(?:[\"'\]]{0,2} ?(?:\|\||\?\?) ?|"
    r"[\"'][^()\n]{0,60}?\bdefault=)[\"'])"
    r"([^\"'\r\n]{4,256}+)"
)
#: What a browser is told to write into a field for a password.
_TYPED: Final = re.compile(
    r"((?:[Pp]assw|PASSW|pwd|[Ss]ecret|[Pp]asscode)[^\n\"']{0,40}+(?:[\"'][\])]{1,3}[^\n\"']{0,20}?"
    r"(?:fill|type|send_?[kK]eys|set_?[vV]alue|press_?[sS]equentially)\(|[\"'], ?)[\"'])([^\"'\r\n]{3,256}+)(?=[\"']\))"
)
_HEADED: Final = frozenset(("pass", "pw", "secret", "token", "key", "cvv", "cvc", "pin", *ABROAD))
_CELL: Final = re.compile(r"[ \t]*[*`\"']{0,2}[A-Za-z][\w-]{0,40}+(?: [\w-]{1,20}+)?[*`\"']{0,2}\s*")
_INSERT: Final = re.compile(
    r"\binto[ \t]{1,4}[^\s(]{1,128}+\s{0,8}\(([^()]{1,2000}+)\)\s{0,8}values\s{0,8}(?=\()", re.IGNORECASE
)
_LITERAL: Final = re.compile(r"N?'(?:[^']|'')*+'|\"[^\"]*+\"|[^\s,()'\";]++|(;)")


def redact_layouts(text: str, said: Set[str]) -> str:
    """The text without what has its name elsewhere. `said`: which of `STEMS` it holds, and of names."""
    text = redact_marked(text, _MARKED)
    if not _HEADED.isdisjoint(said):
        text = _of_names(text)
    if "into " in said and "value" in said:
        text = _without_inserted(text)
    return _KUBERNETES.sub(_without_members, text) if "kind: Secret" in text else text


def _of_names(text: str) -> str:
    """What stands beside names on a page."""
    if "(" in text:
        text = _TYPED.sub(r"\1[redacted:password]", text)
    if "|" in text or "<" in text:
        text = _ROW.sub(_without_row, text)
    return _without_cells(_NEXT.sub(_without_next, text)) if "\n" in text else text


def _without_part(match: re.Match[str]) -> str:
    kind = kind_of(match[2])
    return f"{match[1]}[redacted:{kind.name}]" if kind is not None and kind.holds(match[3].strip()) else match[0]


def _without_row(match: re.Match[str]) -> str:
    kind = _strict(match[2])
    return f"{match[1]}[redacted:{kind.name}]" if kind is not None and looks_chosen(match[3]) else match[0]


def _without_members(match: re.Match[str]) -> str:
    return match[1] + match[2] + _MEMBER.sub(r"\1[redacted:secret]", match[3])


def _without_next(match: re.Match[str]) -> str:
    kind, value = kind_of(match[2]), match[3]
    if kind is None or not kind.holds(value) or not looks_chosen(value):
        return match[0]
    return f"{match[1]}[redacted:{kind.name}]"


def _strict(name: str) -> Kind | None:
    """Only names of something that is always secret: tables are about everything."""
    kind = kind_of(name)
    return kind if kind is not None and kind.name in ("password", "secret", "api_key", "token", "cvv", "pin") else None


# --- tables ----------------------------------------------------------------------------------------------------------


def _without_cells(text: str) -> str:
    """A line of names, and lines with as many cells: CSV, columns of a terminal, Markdown."""
    lines = text.split("\n")
    mark, width, secret = "", 0, dict[int, Kind]()
    for at, line in enumerate(lines):
        if secret and line and not line.strip("-+=:| \t\r"):
            continue
        if secret and line.count(mark) == width:
            lines[at] = _of_row(line, mark, secret, mark == "," and lines[0].count(",") == width)
        else:
            mark = next((each for each in ("|", "\t", ";", ",") if each in line), "")
            width = line.count(mark) if mark else 0
            secret = _secret_cells(line, mark) if 0 < width < _MOST else {}
    return "\n".join(lines)


def _secret_cells(line: str, mark: str) -> dict[int, Kind]:
    cells = line.split(mark)
    if any(
        _CELL.fullmatch(cell) is None
        for at, cell in enumerate(cells)
        if cell.strip() or mark != "|" or 0 < at < len(cells) - 1
    ):
        return {}
    kinds = ((at, _strict(cell.strip(" \t\r\"'*`"))) for at, cell in enumerate(cells))
    return {at: kind for at, kind in kinds if kind is not None}


def _of_row(line: str, mark: str, secret: dict[int, Kind], words: bool) -> str:
    """`words`: whether a word may be a secret here."""
    cells = line.split(mark)
    for at, kind in secret.items():
        value = cells[at].strip(" \t\r\"'`")
        if (
            len(value) >= 3
            and " " not in value
            and kind.holds(value)
            and (words or looks_chosen(value) or value.isdigit())
        ):
            cells[at] = cells[at].replace(value, f"[redacted:{kind.name}]", 1)
    return mark.join(cells)


def _without_inserted(text: str) -> str:
    """`INSERT INTO t (a, b) VALUES (1, 2)`: each value has the name of its column."""
    pieces: list[str] = []
    at = 0
    while (match := _INSERT.search(text, at)) is not None:
        kinds = [_strict(name.strip(" \t\r\n\"'`[]")) for name in match[1].split(",")[:_MOST]]
        pieces.append(text[at : match.end()])
        at = match.end()
        for number, value in enumerate(_LITERAL.finditer(text, at)):
            kind = kinds[number % len(kinds)]
            if value[1]:
                break
            if kind is not None and kind.holds(value[0].strip("N'\"")):
                pieces += (text[at : value.start()], f"'[redacted:{kind.name}]'")
                at = value.end()
        else:
            return "".join((*pieces, text[at:]))
    return "".join((*pieces, text[at:]))


_MARKED: Final = (
    ("default", _INSTEAD, _without_part), ("process.env", _INSTEAD, _without_part), ("ENV[", _INSTEAD, _without_part),
    ("<", _ELEMENT, _without_part), ("alue", _BESIDE, _without_part), ("variable ", _VARIABLE, _without_part),
    ('"kty', _JWK, r"\1[redacted:private_key]"),
)  # fmt: skip
