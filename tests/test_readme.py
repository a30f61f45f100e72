"""What the pages say is true: their examples load, their commands exist, their links lead somewhere."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml

from proxy import cli, errors
from proxy.config.loader import load
from proxy.config.models import Listen, restart_keys

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text()
PAGES: Final = sorted(
    path for pattern in ("*.md", "docs/*.md", "deploy/*.md", "benchmarks/*.md") for path in ROOT.glob(pattern)
)
ENVIRONMENT: Final = {"GITHUB_TOKEN": "t0ken", "PASSWORD": "s3cret", "HOOK_SECRET": "a secret of thirty-two characters"}


def blocks(language: str, text: str = README) -> list[str]:
    """Contents of the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    """The page below the root."""
    return str(path.relative_to(ROOT))


def slug(heading: str) -> str:
    """The anchor of a heading as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_a_configuration_in_the_readme_can_be_used(number: int, tmp_path: Path) -> None:
    """Each YAML block is a whole configuration and loads without a problem."""
    path = tmp_path / "config.yaml"
    path.write_text(blocks("yaml")[number])
    assert load(path, ENVIRONMENT).servers


def test_the_readme_shows_configurations() -> None:
    """There are blocks for the test above to load."""
    assert len(blocks("yaml")) >= 2


def command_lines() -> list[str]:
    """Every line of every shell block in the pages, continuation lines joined."""
    shell = [block for path in PAGES for block in blocks("sh", path.read_text())]
    return [line for block in shell for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("line", [line for line in command_lines() if line.startswith("make")])
def test_a_make_command_of_the_pages_exists(line: str) -> None:
    """make can plan it."""
    subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, timeout=60, check=True)


def test_the_two_commands_are_shown_first() -> None:
    """A newcomer finds `make run`, then `make test`, before anything else to type."""
    assert [block.strip() for block in blocks("sh")[:2]] == ["make run", "make test"]


@pytest.mark.parametrize(
    "line", sorted({line for line in command_lines() if line.startswith("mcp-manager") and " serve" not in line})
)
def test_a_command_of_the_pages_works(line: str, tmp_path: Path) -> None:
    """It ends with 0 on the README's own configuration; `serve` is what the acceptance tests run."""
    (tmp_path / "config.yaml").write_text(blocks("yaml")[0])
    command = [sys.executable, "-m", "proxy", *line.split()[1:]]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def written_commands() -> list[tuple[str, str]]:
    """Every `mcp-manager ...` in a fenced block of a page, continuation lines joined, with the page."""
    return [
        (name_of(path), line)
        for path in PAGES
        for block in blocks("[a-z]*", path.read_text())
        for line in re.findall(r"^(?:\$ |[A-Z]+=\$\()?mcp-manager ([^)\n]*)", block.replace("\\\n", " "), re.MULTILINE)
    ]


@pytest.mark.parametrize(("page", "line"), sorted(set(written_commands())))
def test_a_command_is_written_as_the_command_line_takes_it(page: str, line: str) -> None:
    """Options and values included; what a shell makes of the line is cut off."""
    words = shlex.split(line.partition(" > ")[0], comments=True)
    assert callable(cli._parser().parse_args(words).command), page


def test_every_group_of_commands_is_shown() -> None:
    """There are lines for the test above."""
    shown = {line.split()[0] for _, line in written_commands()}
    assert {"tenants", "keys", "servers", "bans", "breakers", "maintenance", "migrate"} <= shown
    assert {"audit", "spool", "retention", "alerts", "config"} <= shown


def test_what_needs_a_restart_is_said() -> None:
    """Every key that a reload leaves alone, and no other, in the page about the configuration."""
    page = (ROOT / "docs/configuration.md").read_text()
    [sentence] = re.findall(r"goes on serving\.([^;]*?)need a restart;", page)
    compared = re.findall(r'\("([a-z_.]+)", old\.', inspect.getsource(restart_keys))
    assert re.findall(r"`([a-z_.]+)`", sentence) == compared


def test_client_config_prints_what_the_readme_promises(tmp_path: Path) -> None:
    """The four clients are named, with the URL of the server."""
    (tmp_path / "config.yaml").write_text(blocks("yaml")[0])
    command = [sys.executable, "-m", "proxy", "client-config", "github", "--config", "config.yaml"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert f"http://127.0.0.1:{Listen().port}/github/mcp" in done.stdout
    for client in ("Claude Code", "Claude Desktop", "Cursor", "VS Code"):
        assert client.lower() in done.stdout.lower()
        assert client in README


def test_the_commands_that_the_readme_names_are_the_commands_there_are() -> None:
    """No command is missing from the README or invented by it, `version` apart, which needs no words."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    there_are = set(re.findall(r"^    ([a-z\-]+)(?: |$)", done.stdout, re.MULTILINE))
    named = set(re.findall(r"mcp-manager ([a-z\-]+)", README))
    assert named == there_are - {"version"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_leads_somewhere(page: Path) -> None:
    """Relative links name files of the repository, and headings of them."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)}


def test_the_index_lists_every_page() -> None:
    """A page of docs/ that docs/README.md does not link to is lost."""
    index = (ROOT / "docs/README.md").read_text()
    assert all(f"]({path.name})" in index for path in (ROOT / "docs").glob("*.md") if path.name != "README.md")


def refusals() -> list[type[errors.Refusal]]:
    """Every refusal there is, in the order of the source."""
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Refusal)]
    return [kind for kind in found if kind is not errors.Refusal]


def test_the_table_of_refusals_is_the_tree_of_refusals() -> None:
    """Status, code and reason of every refusal, in the order of status."""
    rows = [
        f"| {kind.status} | {kind.code} | `{kind.reason}` | {kind.message} |"
        for kind in sorted(refusals(), key=lambda kind: (kind.status, kind.reason))
    ]
    expected = "\n".join(["| HTTP | code | reason | message |", "|---|---|---|---|", *rows])
    shown = README.split("<!-- refusals -->\n")[1].split("\n<!-- end of refusals -->")[0]
    assert shown == expected


#: Box of the picture -> call in the handler.
WALK: Final = {
    "origin": "check_host_and_origin(ctx",
    "turn away": "turn_away(ctx",
    "authenticate": "authenticate(ctx",
    "read message": "read_message(ctx",
    "match route": "match_route(ctx",
    "authorize": "authorize(ctx",
    "take tokens": "take_tokens(ctx",
    "forward": "forward(ctx",
    "record": ".record(ctx",
}


def numbers(text: str) -> set[str]:
    """The statuses of refusals in a line."""
    return set(re.findall(r"\b[45]\d\d\b", text))


def test_the_walk_is_the_one_of_the_handler() -> None:
    """Same phases in the same order, each with the statuses that the comment beside its call names."""
    calls = (ROOT / "proxy/dataplane/handler.py").read_text().splitlines()
    lines = blocks("text")[0].splitlines()
    called = [next(number for number, line in enumerate(calls) if call in line) for call in WALK.values()]
    drawn = [next(number for number, line in enumerate(lines) if line.startswith(box)) for box in ("gate", *WALK)]
    assert called == sorted(called)
    assert drawn == sorted(drawn)
    for here, there in zip(called, drawn[1:], strict=True):
        assert numbers(calls[here].partition("#")[2]) == numbers(lines[there])


def test_every_status_in_the_walk_is_one_that_a_refusal_has() -> None:
    """The picture shows all statuses of refusals but 500, and no other."""
    shown = {int(number) for number in re.findall(r"\b[45]\d\d\b", blocks("text")[0])}
    assert shown == {kind.status for kind in refusals()} - {500}


def test_the_ports_of_the_readme_are_the_defaults(tmp_path: Path) -> None:
    """8080 for clients, 9090 for the operator."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"servers": {"a": {"url": "http://127.0.0.1/mcp"}}}))
    config = load(tmp_path / "config.yaml", {})
    assert f"http://127.0.0.1:{config.listen.port}/NAME/mcp" in README
    assert f"The admin port, {config.admin.port}, has" in README


def test_the_changelog_keeps_its_form() -> None:
    """Keep a Changelog: an Unreleased section, and only the six kinds of change."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"
    }  # fmt: skip
    assert "Apache License" in (ROOT / "LICENSE").read_text()
