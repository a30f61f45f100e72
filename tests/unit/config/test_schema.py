"""The JSON Schema, the example file and the manual say what the models say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from proxy.config import Config, parse
from proxy.config.schema import Key, keys, markdown, schema
from tests.unit.config.pem import write_pair

ROOT = Path(__file__).parents[3]
EXAMPLE = (ROOT / "config.example.yaml").read_text()
#: The example with its optional keys taken in.
FULL = re.sub(r"^( *)#~ ?", r"\1", EXAMPLE, flags=re.MULTILINE)


def values_at(node: Any, path: list[str]) -> list[Any]:
    """Every value under `path`, in which NAME stands for any key and [] for every item."""
    if not path:
        return [node]
    if node is None or isinstance(node, str):
        return []
    first, rest = path[0], path[1:]
    if first == "NAME":
        return [value for child in node.values() for value in values_at(child, rest)]
    if first == "[]":
        return [value for child in node for value in values_at(child, rest)]
    return values_at(node[first], rest) if first in node else []


def written(text: str, key: Key) -> list[Any]:
    """The values that a file gives to a key."""
    return values_at(yaml.safe_load(text), key.path.replace("[]", ".[]").split("."))


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: str(key.path))
def test_the_example_shows_every_key(key: Key) -> None:
    """Switched off where there is no default, else with the default as its value."""
    shown = written(FULL, key)
    assert shown, "add it to config.example.yaml"
    if not key.group and key.default not in (None, "", [], {}):
        assert all(str(value) == str(key.default) for value in shown)


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: str(key.path))
def test_every_key_has_a_meaning_of_a_line_or_two(key: Key) -> None:
    """Its docstring; the manual and the schema are made of it."""
    assert 10 < len(key.meaning) < 260
    assert key.meaning.endswith((".", "?", ")"))


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: str(key.path))
def test_the_example_comments_every_key(key: Key) -> None:
    """Beside a key of that name."""
    name = re.split(r"\W+", key.path.removesuffix("[]"))[-1]
    assert re.search(rf"^ *(- )?{name}:.* # \S", FULL, re.MULTILINE), "comment it in config.example.yaml"


def test_the_example_is_the_defaults() -> None:
    """Loading it is loading nothing but its one server."""
    shortest = "servers: {example: {url: 'http://127.0.0.1:9000/mcp'}}"
    assert parse(EXAMPLE, "example", {}, ROOT) == parse(shortest, "shortest", {}, ROOT)


def test_the_example_loads_with_every_optional_key(tmp_path: Path) -> None:
    """What it shows switched off is right, too."""
    (tmp_path / "tls").mkdir()
    for name in ("server", "us"):
        write_pair(tmp_path / f"tls/{name}.pem", tmp_path / f"tls/{name}.key")
    (tmp_path / "tls/internal-ca.pem").write_bytes((tmp_path / "tls/us.pem").read_bytes())
    secrets = ("BETTER_AUTH_SECRET", "PASSWORD", "OWNER_PASSWORD", "REDIS_PASSWORD", "HOOK_SECRET")
    config = parse(FULL, "example", dict.fromkeys(secrets, "only-for-this-test"), tmp_path)
    assert list(config.servers) == ["example", "private"]
    assert config.routes[0].when.between is not None


def test_the_schema_accepts_the_example() -> None:
    """With and without the optional keys."""
    body = schema()
    Draft202012Validator.check_schema(body)
    for text in (EXAMPLE, FULL):
        assert list(Draft202012Validator(body).iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"servers": {}},
        {"servers": {"a": {"url": "http://x/"}}, "listn": {}},
        {"servers": {"a": {}}},
        {"servers": {"a": {"url": "http://x/", "timeouts": {"connect": 5}}}},
        {"servers": {"a": {"url": "http://x/", "timeouts": {"connect": "5 s"}}}},
        {"servers": {"a": {"url": "http://x/"}}, "log": {"level": "loud"}},
        {"servers": {"a": {"url": "http://x/"}}, "routes": [{"name": "r", "path": "/r"}]},
    ],
)
def test_the_schema_refuses_what_an_editor_should_mark(broken: dict[str, Any]) -> None:
    """Unknown keys, missing keys, wrong words and units."""
    assert list(Draft202012Validator(schema()).iter_errors(broken))


def test_the_schema_has_descriptions_and_readable_defaults() -> None:
    """Durations and sizes have units there, too."""
    body = schema()
    assert body["title"] == "MCP Manager configuration"
    assert body["$schema"].endswith("2020-12/schema")
    assert body["$defs"]["Timeouts"]["properties"]["first_byte"]["default"] == "15m"
    assert body["$defs"]["Limits"]["properties"]["body"]["default"] == "4MiB"
    assert body["$defs"]["Sessions"]["properties"]["ttl"]["default"] == "7d"
    for definition in (body, *body["$defs"].values()):
        for name, key in definition["properties"].items():
            assert "description" in key or "description" in body["$defs"][key["$ref"].split("/")[-1]], name


def test_the_keys_are_those_of_the_models() -> None:
    """From the first to the last, through names and lists."""
    paths = [key.path for key in keys()]
    assert paths[0] == "listen"
    assert len(paths) == len(set(paths))
    assert {
        "listen.tls.key",
        "servers.NAME.pool.keepalive",
        "routes[].servers[].weight",
        "routes[].mirror.percent",
    } <= {*paths}
    assert {path.split(".")[0].removesuffix("[]") for path in paths} == set(Config.model_fields)


def test_the_manual_has_the_tables_of_today() -> None:
    """`mcp-manager config-schema --markdown` prints them."""
    assert markdown().strip() in (ROOT / "docs/configuration.md").read_text()
