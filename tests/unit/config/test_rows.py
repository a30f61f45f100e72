"""Rows of the registry read as configuration: the same models, and nothing of the machine that is not theirs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.models import Config, Route, Server
from proxy.config.rows import Reach, names_files, reach_of_operator, reach_of_tenants, route_of, server_of
from tests.unit.config.pem import write_pair

ENV = {
    "HOME": "/root",
    "TENANT_ACME_TOKEN": "acme's",
    "TENANT_ACME_CORP_TOKEN": "acme-corp's",
    "TENANT_ACME_CORPSE": "acme's, too",
    "TENANT_OTHER_TOKEN": "nobody's",
    "A_FILE": "file:/etc/hostname",
}
REACH = reach_of_tenants(ENV, ["acme", "acme-corp", "system"])
ACME, CORP, OPERATOR = REACH["acme"], REACH["acme-corp"], reach_of_operator(ENV)


def server_row(**columns: Any) -> SimpleNamespace:
    known: dict[str, Any] = {
        "name": "x",
        "endpoint_url": "https://x.example/mcp",
        "transport_type": "streamable_http",
        "headers": {},
        "options": {},
    }
    return SimpleNamespace(**known | columns)


def route_row(**columns: Any) -> SimpleNamespace:
    known: dict[str, Any] = {
        "name": "r",
        "path": "/team/*",
        "priority": 3,
        "conditions": {},
        "target_servers": ["x"],
        "load_balancing_strategy": "round_robin",
        "options": {},
    }
    return SimpleNamespace(**known | columns)


def problem_of(row: SimpleNamespace, reach: Reach = ACME) -> str:
    """The sentence about a row that cannot be used."""
    with pytest.raises(ValueError, match=r".") as caught:
        server_of(row, reach) if hasattr(row, "endpoint_url") else route_of(row)
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_is_what_the_configuration_file_would_make_of_it() -> None:
    """Columns for what every server has, `options` for every other key."""
    options = {"host": "preserve", "forwarded": False, "timeouts": {"connect": "2s"}, "pool": {"max_connections": 7}}
    row = server_row(endpoint_url="ws://x/", transport_type="websocket", headers={"X-A": "b"}, options=options)
    written = {"url": "ws://x/", "transport": "websocket", "headers": {"X-A": "b"}, **options}
    assert server_of(row, ACME) == Config.model_validate({"servers": {"x": written}}).servers["x"]
    assert server_of(server_row(), ACME) == Server(url="https://x.example/mcp")


def test_a_route_is_what_the_configuration_file_would_make_of_it() -> None:
    """Targets with and without weights, conditions, and further keys."""
    options = {"affinity": {"by": "principal"}, "mirror": {"server": "z", "percent": 5}, "filter_lists": True}
    targets = ["x", {"name": "y", "weight": 3}]
    row = route_row(
        target_servers=targets, conditions={"tool": "a*"}, load_balancing_strategy="weighted", options=options
    )
    expected = Route(
        name="r", path="/team/*", priority=3, when={"tool": "a*"}, servers=targets, strategy="weighted", **options
    )
    assert route_of(row) == expected


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"name": "Upper"}, "name: a name has 1 to 63 lower-case"),
        ({"name": "x" * 100}, "name: a name has 1 to 63 lower-case"),
        ({"endpoint_url": "https://user:hunter2@x/"}, "endpoint_url: a server URL holds no user"),
        ({"endpoint_url": "wss://x/"}, "a ws:// or wss:// URL needs 'transport: websocket'"),
        ({"headers": {"Host": "x"}}, "headers.Host"),
        ({"headers": {"X-A": "hunter2\n"}}, "headers.X-A: a header value is printable ASCII"),
        ({"headers": {"X-A": 7}}, "headers.X-A: expected text"),
        ({"headers": {"X-A": None}}, "headers.X-A: has no value"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "a header is set twice"),
        ({"options": {"braker": {"hunter2": 1}}}, "options.braker: unknown key"),
        ({"options": {"timeout": {}}}, "options.timeout: unknown key; did you mean 'timeouts'?"),
        ({"options": {"timeouts": {"conect": 1}}}, "options.timeouts.conect: unknown key; did you mean 'connect'?"),
        ({"options": {"pool": {"max_connections": 0}}}, "options.pool.max_connections: must be 1 or more"),
        ({"options": {"url": "https://hunter2/"}}, "options.url: this key is the column endpoint_url"),
        ({"options": {"headers": {}}}, "options.headers: this key is the column headers"),
        ({"options": {"name": "x"}}, "options.name: this key is the column name"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_in_one_sentence(columns: dict[str, Any], sentence: str) -> None:
    """It names the column, and shows no value."""
    told = problem_of(server_row(**columns))
    assert sentence in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"name": "My route"}, "name: a name has 1 to 63 lower-case"),
        ({"path": "/a/../hunter2"}, "path: a path starts with '/'"),
        ({"priority": 5000}, "priority: must be 1000 or less"),
        ({"target_servers": [7]}, "target_servers[0]"),
        ({"target_servers": ["x", {"name": "y", "weigth": 1}]}, "target_servers[1].weigth: unknown key; did you mean"),
        ({"target_servers": ["x", "x"]}, "a server is listed twice"),
        ({"load_balancing_strategy": "hunter2"}, "load_balancing_strategy: expected 'round_robin'"),
        ({"conditions": {"tol": "x"}}, "conditions.tol: unknown key; did you mean 'tool'?"),
        ({"conditions": {"header": {"hunter 2": "x"}}}, "conditions.header"),
        ({"conditions": {"client_ip": "hunter2"}}, "conditions.client_ip[0]: an address or network looks like"),
        ({"options": {"when": {}}}, "options.when: this key is the column conditions"),
        ({"options": {"inspect": "none", "filter_lists": True}}, "'filter_lists' needs 'inspect: full'"),
        ({"options": {"mirror": {}}}, "options.mirror.server: this key is required"),
    ],
)
def test_a_route_that_cannot_be_used_is_told_in_one_sentence(columns: dict[str, Any], sentence: str) -> None:
    """It names the column, and shows no value."""
    told = problem_of(route_row(**columns))
    assert sentence in told
    assert "hunter2" not in told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["timeouts", "pool", "tls", "when", "affinity", "mirror", "header", "name"]) | st.text(max_size=5),
    JSON,
    max_size=3,
)


@given(OBJECTS, OBJECTS, st.lists(JSON, max_size=3))
def test_whatever_json_stands_in_a_row_it_is_a_model_or_one_sentence(
    one: dict[str, Any], other: dict[str, Any], targets: list[Any]
) -> None:
    """Any other error would cost all the other rows."""
    for read in (
        lambda: server_of(server_row(headers=one, options=other), ACME),
        lambda: server_of(server_row(headers=one, options=other), OPERATOR),
        lambda: route_of(route_row(conditions=one, options=other, target_servers=targets)),
    ):
        try:
            read()
        except ValueError as error:
            assert "\n" not in str(error)


# --- variables ------------------------------------------------------------------------------------------------------


def header_of(value: str, reach: Reach) -> str:
    return server_of(server_row(headers={"X-A": value}), reach).headers["X-A"].get_secret_value()


def test_a_tenant_reaches_its_own_variables() -> None:
    """In the values of headers, as in the configuration file."""
    assert header_of("Bearer ${TENANT_ACME_TOKEN}", ACME) == "Bearer acme's"
    assert header_of("${TENANT_ACME_CORP_TOKEN}", CORP) == "acme-corp's"
    assert header_of("${TENANT_ACME_NONE:-default}", ACME) == "default"
    assert header_of("$${TENANT_ACME_TOKEN}", ACME) == "${TENANT_ACME_TOKEN}"
    assert header_of("${HOME}", OPERATOR) == "/root"
    assert header_of("${TENANT_ACME_TOKEN}", OPERATOR) == "acme's"


@pytest.mark.parametrize("name", ["HOME", "TENANT_OTHER_TOKEN", "TENANT_ACME_CORP_TOKEN", "TENANT_", "tenant_acme_x"])
def test_another_variable_is_one_that_is_not_set(name: str) -> None:
    """Whether there is one is nothing for a tenant to know; what it may name is."""
    told = problem_of(server_row(headers={"X-A": f"${{{name}}}"}))
    assert told == (
        f"headers.X-A: the environment variable {name} is not set;"
        " names of this tenant's variables begin with TENANT_ACME_"
    )
    assert header_of(f"${{{name}:-default}}", ACME) == "default"


def test_a_variable_belongs_to_the_tenant_of_the_longest_slug() -> None:
    """`acme` is another tenant than `acme-corp`, though its prefix is the beginning of the other's."""
    assert dict(ACME.variables) == {"TENANT_ACME_TOKEN": "acme's", "TENANT_ACME_CORPSE": "acme's, too"}
    assert dict(CORP.variables) == {"TENANT_ACME_CORP_TOKEN": "acme-corp's"}
    assert "acme's" not in repr(REACH)


SLUGS = st.from_regex(r"[ab]([ab-]{0,3}[ab])?", fullmatch=True)


@given(st.sets(SLUGS, min_size=1, max_size=6), st.sets(st.text("AB_", max_size=8), max_size=12))
def test_no_variable_has_two_owners(slugs: set[str], names: set[str]) -> None:
    """Every variable that begins with someone's prefix has one owner, the one of the longest prefix."""
    env = {f"TENANT_{name}": "value" for name in names}
    prefixes = {f"TENANT_{slug.upper().replace('-', '_')}_": slug for slug in slugs}
    found = [(name, slug) for slug, reach in reach_of_tenants(env, slugs).items() for name in reach.variables]
    fitting = {name: [prefix for prefix in prefixes if name.startswith(prefix)] for name in env}
    assert sorted(found) == sorted((name, prefixes[max(fit, key=len)]) for name, fit in fitting.items() if fit)


def test_variables_are_for_the_values_of_headers_only() -> None:
    """Elsewhere the text stands for itself."""
    route = route_of(route_row(conditions={"header": {"X-A": "${HOME}"}}))
    assert route.when.header == {"X-A": ("${HOME}",)}
    server = server_of(server_row(endpoint_url="https://x/${HOME}"), OPERATOR)
    assert server.url == "https://x/${HOME}"


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    return path


def test_the_operator_names_files_by_their_path_from_the_root(secret: Path) -> None:
    """There is no folder that a row in a database could start from."""
    assert header_of(f"file:{secret}", OPERATOR) == "s3cret"
    assert "from the root" in problem_of(server_row(headers={"X-A": "file:secret"}), OPERATOR)
    told = problem_of(server_row(headers={"X-A": f"file:{secret}.none"}), OPERATOR)
    assert told == "headers.X-A: the secret file cannot be read: No such file or directory"


@pytest.mark.parametrize("value", ["file:/etc/hostname", "file:x", "file:", "${TENANT_ACME_X:-file:}/etc/hostname"])
def test_a_tenant_names_no_file(value: str) -> None:
    """It could read any, its neighbours' secrets among them."""
    assert problem_of(server_row(headers={"X-A": value})) == "headers.X-A: rows of a tenant cannot name files"


def test_a_variable_is_never_the_name_of_a_file() -> None:
    """A row that names files is to be known by its text."""
    assert "is written file:/PATH" in problem_of(server_row(headers={"X-A": "${A_FILE}"}), OPERATOR)


def test_tls_files_are_the_operators_and_are_opened(tmp_path: Path) -> None:
    """One that cannot be used would fail when a snapshot is built, and all other rows with it."""
    certificate, key = tmp_path / "upstream.pem", tmp_path / "upstream.key"
    write_pair(certificate, key)
    files = {"certificate": str(certificate), "key": str(key), "ca": str(certificate)}
    assert server_of(server_row(options={"tls": files}), OPERATOR).tls.key == str(key)
    assert problem_of(server_row(options={"tls": files})) == "options.tls: rows of a tenant cannot name files"
    assert server_of(server_row(options={"tls": {}}), ACME) == server_of(server_row(), ACME)
    for broken, sentence in [
        ({"ca": "upstream.pem"}, "options.tls: a file is named by its path from the root"),
        ({"ca": str(tmp_path / "none")}, "options.tls: the file cannot be read: No such file or directory"),
        ({"ca": str(key)}, "options.tls: not a PEM file with certificates"),
        ({"key": str(key)}, "options.tls: 'key' needs a 'certificate'"),
        ({"ca": 7}, "options.tls.ca: expected text; put the value into quotes"),
    ]:
        assert problem_of(server_row(options={"tls": broken}), OPERATOR) == sentence


def test_rows_that_depend_on_files_are_known() -> None:
    """They are to be read anew although they did not change."""
    assert names_files(server_row(headers={"X-A": "file:/x"}))
    assert names_files(server_row(options={"tls": {"ca": "/x"}}))
    assert not names_files(server_row(headers={"X-A": "x", "X-B": 7}, options={"pool": {}}))
