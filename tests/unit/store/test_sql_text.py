"""Migration files: their halves, their statements and the lines these begin on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store.sql_text import SqlTextError, Statement, halves, statements

TWO_HALVES = """\
-- What it is for.

-- migrate:up
CREATE TABLE a (
  x text DEFAULT ';'
);

-- an index; with a reason
CREATE INDEX i ON a (x);

-- migrate:down transaction:false
DROP TABLE a;
"""


def texts(text: str) -> list[str]:
    """The statements without their places."""
    return [statement.text for statement in statements(text, 1)]


def test_a_file_has_two_halves_with_statements_at_their_lines() -> None:
    """Comments before a statement are not part of it; options are read."""
    up, down = halves(TWO_HALVES)
    assert [(statement.line, statement.text.split()[1]) for statement in up.statements] == [(4, "TABLE"), (9, "INDEX")]
    assert up.in_transaction
    assert down.statements == (Statement("DROP TABLE a", 12),)
    assert not down.in_transaction


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ';'", "SELECT 'it''s; fine'", r"SELECT E'\';'", 'SELECT 1 AS "a;""b"', "SELECT $$;$$",
        "SELECT $a$ $$ ; $a$",
        "SELECT 1 /* ; /* nested ; */ ; */ + 1", "SELECT 1 -- ;\n + 1", "SELECT $1", "SELECT a$b$c FROM t",
        "SELECT '\\'",
        "DO $do$ BEGIN PERFORM 1; END $do$", "SELECT 'a' -- it's",
    ],
)  # fmt: skip
def test_a_semicolon_inside_something_ends_nothing(text: str) -> None:
    """Literals, names, bodies and comments hide it, as they do from PostgreSQL."""
    assert texts(f"{text};SELECT 2") == [text, "SELECT 2"] or texts(f"{text}\n;SELECT 2") == [text, "SELECT 2"]


def test_what_holds_no_statement_gives_none() -> None:
    """Blank text, comments and lone semicolons."""
    assert texts("") == texts(" ;; -- a;\n /* b; */ ;") == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("SELECT 1", 1, "one line '-- migrate:up'"),
        ("-- migrate:down\n-- migrate:up\n", 1, "after it"),
        ("-- migrate:up\n-- migrate:up\n-- migrate:down\n", 1, "one line"),
        ("SELECT 1;\n-- migrate:up\n-- migrate:down\n", 1, "before"),
        ("-- migrate:up\n-- migrate:down fast:true\n", 2, "only option"),
        ("-- migrate:up\n\nSELECT 'a;\n-- migrate:down\n", 3, "does not end"),
        ("-- migrate:up\nSELECT $x$;\n-- migrate:down\n", 2, "$x$ does not end"),
        ("-- migrate:up\n/* /* */\n-- migrate:down\n", 2, "comment does not end"),
        ("-- migrate:up\nCREATE FUNCTION f() BEGIN\nATOMIC SELECT 1; END;\n-- migrate:down\n", 2, "between $$"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    """The sentence says what to write instead."""
    with pytest.raises(SqlTextError, match=words.replace("$", r"\$")) as refused:
        halves(text)
    assert refused.value.line == line


PIECES = st.lists(
    st.sampled_from(
        ["SELECT", "1", "';'", "''", '"a;b"', "$$;$$", "$t$;$$;$t$", "/* ; */", "-- ;\n", "E'\\';'", "\n", "x$1"]
    ),
    min_size=1,
    max_size=8,
).map(lambda words: " ".join(["DO", *words]).rstrip())  # fmt: skip


@given(st.lists(PIECES, max_size=5))
def test_statements_that_are_joined_come_apart_again(written: list[str]) -> None:
    """Every statement is found once, in order, beginning on its line."""
    text = "".join(f"{statement}\n;\n" for statement in written)
    found = statements(text, 1)
    assert [statement.text for statement in found] == [statement.rstrip() for statement in written]
    lines = text.split("\n")
    assert all(lines[statement.line - 1].startswith("DO") for statement in found)
