"""The text of a migration file: its two halves, and where each statement of a half begins.

Owns dbmate's file format (`-- migrate:up`, `-- migrate:down`, the option `transaction:false`) and just enough of
PostgreSQL's lexical rules to find the semicolons that end statements. Pure: no file, no connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_HALF: Final = re.compile(r"^--[ \t]*migrate:(up|down)[ \t]*(.*?)[ \t]*$", re.MULTILINE)
#: What a semicolon may hide in, and the semicolon itself (PostgreSQL manual, section 4.1).
_TOKEN: Final = re.compile(
    r"--[^\n]*|/\*|\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
    r"|(?<![\w$])\$(?:[A-Za-z_\u0080-\uffff][\w]*)?\$|;|(?i:\bbegin\s+atomic\b)|['\"]",
    re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")


class SqlTextError(ValueError):
    """The text cannot be a migration; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement without its semicolon."""

    text: str
    line: int
    """Of its first character, in the file, from 1."""


@dataclass(frozen=True, slots=True)
class Half:
    """The way up or the way down."""

    statements: tuple[Statement, ...]
    in_transaction: bool = True
    """False for what PostgreSQL refuses inside a transaction, such as CREATE INDEX CONCURRENTLY."""


def halves(text: str) -> tuple[Half, Half]:
    """The way up and the way down of a file. Raises SqlTextError."""
    marks = list(_HALF.finditer(text))
    if [mark[1] for mark in marks] != ["up", "down"]:
        raise SqlTextError(1, "a migration has one line '-- migrate:up' and after it one line '-- migrate:down'")
    if any(statement.text for statement in statements(text[: marks[0].start()], 1)):
        raise SqlTextError(1, "there is a statement before '-- migrate:up'")
    ends = (marks[1].start(), len(text))
    up, down = (_half(text, mark, end) for mark, end in zip(marks, ends, strict=True))
    return up, down


def _half(text: str, mark: re.Match[str], end: int) -> Half:
    line = text.count("\n", 0, mark.start()) + 1
    if mark[2] not in ("", "transaction:true", "transaction:false"):
        raise SqlTextError(line, "the only option is transaction:true or transaction:false")
    found = statements(text[mark.end() : end], line)
    return Half(tuple(found), mark[2] != "transaction:false")


def statements(text: str, line: int) -> list[Statement]:
    """The statements of `text`, whose first line is number `line`. Raises SqlTextError."""
    found: list[Statement] = []
    start = at = 0
    blank = True  # nothing but comments and white space since `start`
    while (token := _TOKEN.search(text, at)) is not None:
        blank = blank and not text[at : token.start()].strip()
        if blank and token[0].startswith(("--", "/*")):
            at = start = _token_end(text, token, line)
            continue
        at = _token_end(text, token, line)
        if token[0] == ";":
            if not blank:
                found.append(_statement(text, start, token.start(), line))
            start, blank = at, True
        elif not token[0].startswith(("--", "/*")):
            blank = False
    if not blank or text[at:].strip():
        found.append(_statement(text, start, len(text), line))
    return found


def _statement(text: str, start: int, end: int, line: int) -> Statement:
    start += len(text[start:end]) - len(text[start:end].lstrip())
    return Statement(text[start:end].rstrip(), line + text.count("\n", 0, start))


def _token_end(text: str, token: re.Match[str], line: int) -> int:
    """Where the text that `token` opens is over."""
    word = token[0]
    here = line + text.count("\n", 0, token.start())
    if word == "/*":
        return _comment_end(text, token.end(), here)
    if word.startswith("$"):
        end = text.find(word, token.end())
        if end < 0:
            raise SqlTextError(here, f"the text quoted with {word} does not end")
        return end + len(word)
    if word in ("'", '"'):
        raise SqlTextError(here, f"the text quoted with {word} does not end")
    if word[:5].lower() == "begin":
        raise SqlTextError(here, "write the body of a function between $$, not as BEGIN ATOMIC")
    return token.end()


def _comment_end(text: str, at: int, line: int) -> int:
    """The end of a block comment that is open at `at`; PostgreSQL's nest."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, at)
        if edge is None:
            raise SqlTextError(line, "the comment does not end")
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
    return at
