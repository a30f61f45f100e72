"""Commands, their output and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import cli
from proxy.client_config import CLIENTS
from tests.unit.store.engine import aside, execute, owner_dsn

ROOT = Path(__file__).parents[2]
GOOD = "servers:\n  a: {url: http://x/mcp}\n  b: {url: ws://x/, transport: websocket}\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good configuration in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MCP_MANAGER_CONFIG", raising=False)
    (tmp_path / "config.yaml").write_text(GOOD)
    return tmp_path / "config.yaml"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        code = stop.code
    written = capsys.readouterr()
    return code, written.out, written.err


@pytest.mark.usefixtures("file")
def test_a_good_configuration_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard output, exit code 0."""
    assert run(capsys, "check-config") == (0, "ok: 2 servers, 0 routes\n", "")


def test_singular_and_plural_are_right(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people."""
    file.write_text("servers: {a: {url: 'http://x/'}}\nroutes: [{name: r, path: /r, servers: a}]\n")
    assert run(capsys, "check-config")[1] == "ok: 1 server, 1 route\n"


def test_every_problem_is_a_line_on_standard_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, nothing on standard output."""
    file.write_text("servers:\n  a: {}\nlistn: {}\n")
    code, out, err = run(capsys, "check-config", "-c", "config.yaml")
    assert (code, out) == (2, "")
    assert [line.split(":")[1] for line in err.splitlines()] == ["2", "3"]


def test_the_file_is_named_by_option_variable_or_habit(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order."""
    other = file.with_name("other.yaml")
    other.write_text("servers: {a: {url: 'http://x/'}}\n")
    assert run(capsys, "check-config")[1].startswith("ok: 2")
    monkeypatch.setenv("MCP_MANAGER_CONFIG", "other.yaml")
    assert run(capsys, "check-config")[1].startswith("ok: 1")
    assert run(capsys, "check-config", "--config", "config.yaml")[1].startswith("ok: 2")


@pytest.mark.parametrize(
    "arguments", ["-c o.yaml check-config", "check-config -c o.yaml", "-c x check-config -c o.yaml"]
)
def test_the_option_for_the_file_stands_anywhere(
    arguments: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last word counts, and the variable only where there is none."""
    file.with_name("o.yaml").write_text("servers: {a: {url: 'http://x/'}}\n")
    monkeypatch.setenv("MCP_MANAGER_CONFIG", "nowhere.yaml")
    assert run(capsys, *arguments.split())[1].startswith("ok: 1")


@pytest.mark.parametrize("arguments", ["-c x.yaml tenants list", "tenants -c x.yaml list", "tenants list -c x.yaml"])
@pytest.mark.usefixtures("file")
def test_the_option_stands_before_and_behind_a_group(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A person need not know which word it belongs to."""
    assert run(capsys, *arguments.split()) == (2, "", "x.yaml: cannot be read: No such file or directory\n")


@pytest.mark.parametrize("command", [["check-config"], ["client-config", "a"], ["serve"]])
@pytest.mark.parametrize("path", ["no/such.yaml", ".", "", "/dev/zero", "x" * 5000, "config.yaml/x"])
@pytest.mark.usefixtures("file")
def test_an_unreadable_file_is_one_line_and_code_2(
    command: list[str], path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a traceback."""
    serving = types.ModuleType("proxy.serving")
    serving.serve = lambda path: cli._check_config(types.SimpleNamespace(config=path))  # type: ignore[attr-defined, arg-type]
    monkeypatch.setitem(sys.modules, "proxy.serving", serving)
    code, out, err = run(capsys, *command, "-c", path)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "cannot be read" in err


def test_serve_returns_what_the_proxy_returns(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the path and blocks until the end."""
    asked: list[Path] = []
    serving = types.ModuleType("proxy.serving")
    serving.serve = lambda path: asked.append(path) or 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "proxy.serving", serving)
    assert cli.main(["serve", "-c", str(file)]) == 7
    assert asked == [file]


def test_an_interrupt_is_not_a_traceback(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code 130, as shells have it."""

    def interrupted(path: Path) -> int:
        raise KeyboardInterrupt

    serving = types.ModuleType("proxy.serving")
    serving.serve = interrupted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "proxy.serving", serving)
    assert cli.main(["serve"]) == 130


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """For editors; or tables for the manual."""
    code, out, _ = run(capsys, "config-schema")
    assert code == 0
    assert json.loads(out)["title"] == "MCP Manager configuration"
    code, out, _ = run(capsys, "config-schema", "--markdown")
    assert code == 0
    assert out.startswith("### listen\n")


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_that_of_the_package(
    word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout that was never installed has none, and says so."""
    import importlib.metadata as metadata

    monkeypatch.setattr(metadata, "version", lambda name: {"mcp-manager-proxy": "1.2.3"}[name])
    assert run(capsys, word) == (0, "1.2.3\n", "")

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert run(capsys, word)[0] == 2


@pytest.mark.usefixtures("file")
def test_client_config_prints_one_snippet_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Pure JSON for one client, headings for all."""
    assert run(capsys, "client-config", "a")[1].count("\n# ") == 3
    code, out, _ = run(capsys, "client-config", "a", "--client", "vscode")
    assert code == 0
    assert json.loads(out) == {"servers": {"a": {"type": "http", "url": "http://127.0.0.1:8080/a/mcp"}}}


def test_client_config_says_what_it_cannot_do(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown server, a client that lacks the transport, a port not known."""
    assert run(capsys, "client-config", "c") == (
        2,
        "",
        "no server of this name in the configuration file; there are: a, b\n",
    )
    assert run(capsys, "client-config", "b", "--client", "cursor") == (2, "", "this client does not speak WebSocket\n")
    file.write_text("listen: {port: 0}\n" + GOOD)
    assert "set listen.public_url" in run(capsys, "client-config", "a")[2]
    file.write_text("servers:\n" + "".join(f"  s{number}: {{url: http://x/}}\n" for number in range(30)))
    assert run(capsys, "client-config", "c")[2].endswith("s19 and 10 more\n")


def test_the_clients_of_the_option_are_those_with_a_snippet() -> None:
    """The command line does not load the snippets to know their names."""
    assert tuple(CLIENTS) == cli._CLIENTS


def test_an_interrupt_before_the_first_word_is_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments take a tenth of a second to read."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_parser", interrupted)
    assert cli.main(["tenants", "list"]) == 130


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["check-config", "x"], ["client-config"], ["client-config", "a", "--client", "x"]]
)
def test_misuse_is_a_usage_line_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What argparse says."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: mcp-manager")


def test_a_reader_that_leaves_is_not_a_traceback() -> None:
    """`mcp-manager config-schema | head -1`."""
    shown = subprocess.run(
        f"{sys.executable} -m proxy config-schema | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert shown.stdout in ("{\n0\n", "{\n141\n")
    assert shown.stderr == ""


@pytest.mark.parametrize("word", ["config-schema", "--help"])
def test_a_reader_that_was_never_there_is_not_a_traceback(word: str) -> None:
    """The pipe is closed before the first byte."""
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        [sys.executable, "-m", "proxy", word], cwd=ROOT, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.parametrize(
    ("redirected", "said"),
    [
        (">/dev/full", "the output cannot be written: No space left on device\n"),
        (">&-", "standard output is closed: redirect it to /dev/null\n"),
    ],
)
def test_output_that_goes_nowhere_is_one_line_and_code_2(redirected: str, said: str) -> None:
    """Code 1 means something else to `audit verify`."""
    done = subprocess.run(
        f"{sys.executable} -m proxy config-schema {redirected}",
        shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, said)


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database that DATABASE_URL names."""
    aside(lambda: execute_all(owner_dsn("postgres"), "CREATE DATABASE cli"))
    monkeypatch.setenv("DATABASE_URL", owner_dsn("cli"))
    yield owner_dsn("cli")
    aside(lambda: execute_all(owner_dsn("postgres"), "DROP DATABASE cli WITH (FORCE)"))


async def execute_all(dsn: str, *statements: str) -> None:
    """Run statements."""
    for statement in statements:
        await execute(dsn, statement)


@pytest.mark.usefixtures("empty")
def test_migrations_go_up_and_down(capsys: pytest.CaptureFixture[str]) -> None:
    """Each file that ran is a line; status lists them all."""
    pending = run(capsys, "migrate", "status")[1].splitlines()
    assert len(pending) > 10 and all(line.startswith("pending  20") for line in pending)
    code, out, err = run(capsys, "migrate", "up")
    assert (code, err) == (0, "")
    assert out.splitlines() == [line.replace("pending ", "applied") for line in pending]
    assert run(capsys, "migrate", "up")[1] == "up to date\n"
    assert run(capsys, "migrate", "down")[1] == f"took back {pending[-1].split()[1]}\n"
    version = pending[2].split()[1].split("_")[0]
    assert len(run(capsys, "migrate", "down", "--to", version)[1].splitlines()) == len(pending) - 4
    assert len(run(capsys, "migrate", "down", "--all")[1].splitlines()) == 3
    assert run(capsys, "migrate", "down")[1] == "nothing to take back\n"


def test_migrations_without_a_database_are_misuse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is named, none is there, or it is none; the password is not repeated."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert run(capsys, "migrate", "up")[0] == 2
    for dsn in ("postgresql://u:planted@127.0.0.1:1/x", "planted"):
        monkeypatch.setenv("DATABASE_URL", dsn)
        code, out, err = run(capsys, "migrate", "status")
        assert (code, out) == (2, "")
        assert "planted" not in err and "PostgreSQL cannot be used" in err
    assert run(capsys, "migrate", "down", "--to", "1", "--all")[0] == 2
