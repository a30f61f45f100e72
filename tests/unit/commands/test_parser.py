"""What is said of mistakes on the command line, and what help looks like."""

from __future__ import annotations

import pytest

from proxy import cli


def said(capsys: pytest.CaptureFixture[str], arguments: str) -> str:
    """What a mistake is answered with, on standard error alone."""
    try:
        code: object = cli.main(arguments.split())
    except SystemExit as stop:
        code = stop.code
    written = capsys.readouterr()
    assert (code, written.out) == (2, "")
    return written.err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("check-confg", "check-config"),
        ("keys lst", "list"),
        ("keys list --jsn", "--json"),
        ("servers import x --shared --dryrun=1", "--dry-run"),
        ("alerts list --frring --json", "--firing"),
    ],
)
def test_what_is_almost_right_is_answered_with_what_is_right(
    arguments: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command, an action, an option."""
    assert said(capsys, arguments).endswith(f"; did you mean '{meant}'?\n")


@pytest.mark.parametrize("arguments", ["zzz", "keys list --zzz", "keys list zzz", "migrate up zzz"])
def test_what_is_like_nothing_is_answered_with_no_guess(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is a word one of the options."""
    assert "did you mean" not in said(capsys, arguments)


def test_the_usage_is_that_of_the_command_with_the_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """Not that of all commands."""
    lines = said(capsys, "migrate up --to 3").splitlines()
    assert lines[0].startswith("usage: mcp-manager migrate up [-h]")
    assert lines[-1] == "mcp-manager migrate up: error: unrecognized arguments: --to 3"


@pytest.mark.parametrize(
    ("arguments", "last"),
    [("", "mcp-manager: error: COMMAND is missing"), ("keys", "mcp-manager keys: error: ACTION is missing")],
)
def test_a_group_alone_shows_what_there_is(arguments: str, last: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help, where errors go."""
    lines = said(capsys, arguments).splitlines()
    assert any(line.startswith(("    serve ", "    rotate ")) for line in lines)
    assert lines[-1] == last


@pytest.mark.parametrize("group", ["", "keys", "spool"])
def test_each_command_stands_on_the_line_of_its_words(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The longest, too."""
    with pytest.raises(SystemExit):
        cli.main([*group.split(), "--help"])
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ") and line[4] != " "]
    assert len(listed) >= 3 and all(len(line.split()) > 1 for line in listed)
