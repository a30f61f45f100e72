"""From text to a configuration, or to every problem with its line."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.config import Config, ConfigError, Problem, load, parse
from proxy.config.files import CONFIG_BYTES
from tests.unit.config.broken import BROKEN, GOOD, KEY, route, server, top

HERE = Path("/nonexistent")
EXAMPLE = (Path(__file__).parents[3] / "config.example.yaml").read_text()


def problems(text: str, env: dict[str, str] | None = None) -> tuple[Problem, ...]:
    """What is wrong with `text`."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "config.yaml", env or {}, HERE)
    return caught.value.problems


def good(text: str, env: dict[str, str] | None = None) -> Config:
    """The configuration in `text`."""
    return parse(text, "config.yaml", env or {}, HERE)


@pytest.mark.parametrize(("text", "line", "fragment"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_configuration_is_refused_with_its_line(text: str, line: int, fragment: str) -> None:
    """One of the problems is on the line and says the thing; none repeats a secret."""
    found = problems(text)
    assert any(problem.line == line and fragment in problem.message for problem in found), "\n".join(map(str, found))
    assert all(KEY not in str(problem) and len(str(problem)) < 300 for problem in found)


def test_everything_wrong_is_reported_at_once_in_the_order_of_the_file() -> None:
    """Syntax of values, unknown keys, names that lead nowhere, missing variables and files come together."""
    text = (
        "listen: {prt: 1}\n"
        "servers:\n"
        "  a: {url: ftp://x/}\n"
        "  b:\n"
        "    url: http://x/\n"
        "    headers: {A: '${NO_SUCH}', B: file:nowhere}\n"
        "    timeouts: {connect: fast}\n"
        "routes:\n"
        "  - {name: r, path: /r, servers: [c, d]}\n"
        "  - {name: r, path: /s, servers: a}\n"
    )
    assert [(problem.line, problem.path) for problem in problems(text)] == [
        (1, "listen.prt"),
        (3, "servers.a.url"),
        (6, "servers.b.headers.A"),
        (6, "servers.b.headers.B"),
        (7, "servers.b.timeouts.connect"),
        (9, "routes[0].servers[0]"),
        (9, "routes[0].servers[1]"),
        (10, "routes[1].name"),
    ]


def test_a_problem_reads_as_file_line_path_and_sentence() -> None:
    """The form that editors and people jump to."""
    [problem] = problems(server("timeouts:", "  connect: 5"))
    assert str(problem).startswith("config.yaml:5: servers.a.timeouts.connect: a duration is a number and a unit")
    assert problem.column == 7


def test_one_mistake_is_one_problem() -> None:
    """What follows from a missing variable, a refused alias or a duplicate is not reported as well."""
    assert len(problems(server("timeouts: {connect: '${NO_SUCH}'}"))) == 1
    assert len(problems("servers:\n  a: !x\n    url: 5\n    pool: 7\n")) == 1
    assert len(problems(route("mirror: {server: '${NO_SUCH}'}"))) == 1


def test_numbers_and_booleans_are_read_as_in_yaml_1_2() -> None:
    """`no` is a name and `22:00` is text; leading zeros are decimal; a quoted number is a number where one is due."""
    config = good(
        "servers: {no: {url: http://x/}, 1.10: {url: http://x/}, 010: {url: http://x/}}\nadmin: {port: '0'}\n"
    )
    assert list(config.servers) == ["no", "1.10", "010"]
    assert config.admin.port == 0
    window = good(route("when: {between: 22:00-06:00, protocol: 2025-06-18}")).routes[0].when
    assert window.between is not None
    assert window.protocol is not None


def test_variables_are_replaced_after_the_yaml_is_read() -> None:
    """What a variable holds is one value of text, whatever it looks like."""
    env = {"TOKEN": "x, y: &z {a: b} #", "PORT": "1234", "FLAG": "false"}
    text = "listen: {port: '${PORT}'}\nlog: {access: '${FLAG}'}\n" + server("headers: {A: 'Bearer ${TOKEN}'}")
    config = good(text, env)
    assert config.listen.port == 1234
    assert config.log.access is False
    assert config.servers["a"].headers["A"].get_secret_value() == "Bearer x, y: &z {a: b} #"


def test_variables_are_not_replaced_in_keys() -> None:
    """A key is what is written."""
    assert "unknown key" in problems(top("${HOME}: 1"), {"HOME": "log"})[0].message


def test_the_value_of_a_variable_is_never_shown() -> None:
    """Not even when it is wrong."""
    assert KEY not in "".join(map(str, problems(server("transport: ${X}"), {"X": KEY})))


def test_the_number_of_problems_shown_is_bounded() -> None:
    """A thousand are shown, the others counted."""
    found = problems("servers:\n" + "".join(f"  s{number}: {{}}\n" for number in range(1500)))
    assert len(found) == 1001
    assert str(found[-1]) == "config.yaml: and 500 more problems"


def test_the_number_of_values_is_bounded() -> None:
    """Some megabytes of nothing are refused before they become objects by the million."""
    found = problems("servers: [" + "x," * 1_000_000 + "]")
    assert any("more than 1000000 values" in problem.message for problem in found)


def test_paths_start_from_the_configuration_file(tmp_path: Path) -> None:
    """`state_dir` and secret files are found next to the file, wherever the process runs."""
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "config.yaml").write_text(server("headers: {A: file:token}"))
    config = load(tmp_path / "config.yaml", {})
    assert config.servers["a"].headers["A"].get_secret_value() == "abc"
    assert config.state_dir == str(tmp_path / ".mcp-manager")
    assert config.files == (str(tmp_path / "token"),)


def test_files_are_named_even_when_the_configuration_is_refused(tmp_path: Path) -> None:
    """So that the watch sees the missing secret appear."""
    (tmp_path / "config.yaml").write_text(server("headers: {A: file:token}"))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "config.yaml", {})
    assert caught.value.files == (str(tmp_path / "token"),)


def test_an_unreadable_file_is_one_problem_without_a_line(tmp_path: Path) -> None:
    """Missing, a directory, a pipe that nobody writes to, too large."""
    import os

    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as stream:
        stream.truncate(CONFIG_BYTES + 1)
    for name, words in (
        ("none", "No such file"),
        (".", "not a regular"),
        ("pipe", "not a regular"),
        ("large", "larger"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / name, {})
        [problem] = caught.value.problems
        assert (problem.line, problem.path) == (0, "")
        assert words in problem.message


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(tmp_path: Path) -> None:
    """The line of the first byte that is wrong."""
    (tmp_path / "c.yaml").write_bytes(b"servers:\n  a: \xff\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2: not UTF-8 text"):
        load(tmp_path / "c.yaml", {})


def test_a_byte_order_mark_is_let_pass(tmp_path: Path) -> None:
    """Some editors write one."""
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert list(load(tmp_path / "c.yaml", {}).servers) == ["a"]


def test_without_the_c_parser_the_problems_have_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML may be built without libyaml; the corpus is refused all the same."""
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    for name, text, line, _ in BROKEN:
        if name not in ("unclosed quote", "unclosed bracket", "bottomless nesting"):  # the two end them elsewhere
            assert line in {problem.line for problem in problems(text)}, name


def test_ten_thousand_servers_and_routes_load_in_seconds() -> None:
    """Large registries are nothing special; the bound is ten times what it takes on an idle machine."""
    servers = "".join(
        f"  s{i}: {{url: 'https://h{i}.example/mcp', headers: {{A: 'x${{K}}'}}}}\n" for i in range(10_000)
    )
    routes = "".join(f"  - {{name: r{i}, path: /p{i}, when: {{tool: 'a_*'}}, servers: s{i}}}\n" for i in range(10_000))
    began = time.process_time()
    config = good(f"servers:\n{servers}routes:\n{routes}", {"K": "v"})
    assert time.process_time() - began < 15
    assert (len(config.servers), len(config.routes)) == (10_000, 10_000)


# --- whatever is thrown at it ----------------------------------------------------------------------------------------

FULL = re.sub(r"^( *)#~ ?", r"\1", EXAMPLE, flags=re.MULTILINE)
PIECES = [
    *(f"{line}\n" for line in FULL.splitlines()),
    "&a ", "*a", "!!x ", "? ", "- ", "[", "{", "}", "]", ": ", "${", "${X}", "$${", "file:", "file:/dev/zero", "\t",
    "'", '"', "|\n", ">-\n", "%YAML 9.9\n", "\ud800", "\u2028", "\ufeff", "1e999", "0x10", "~", "<<: ", "  ", "\r",
    "\0", "---\n",
]  # fmt: skip


def survives(text: str) -> None:
    """`text` gives a configuration or a ConfigError with at least one problem, never anything else."""
    try:
        parse(text, "config.yaml", {"X": "\udcff\0\n"}, HERE)
    except ConfigError as error:
        assert error.problems
        assert all(problem.message and "\n" not in str(problem) for problem in error.problems)


@given(st.text())
@example("\x85: \x85")
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text escapes as another exception."""
    survives(text)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@settings(max_examples=500, deadline=None)
def test_any_mixture_of_yaml_is_read_or_refused(text: str) -> None:
    """Neither does anything that looks like YAML."""
    survives(text)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage_to_the_example_is_read_or_refused(data: st.DataObject) -> None:
    """Neither does a good file with a few pieces cut out or put in."""
    text = FULL
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        text = text[:start] + data.draw(st.sampled_from(PIECES) | st.text(max_size=5)) + text[end:]
    survives(text)
