"""What is wrong across keys: TLS files, ports, routes (names and contradictions are in the corpus of the loader)."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, parse
from tests.unit.config.broken import GOOD, route, top
from tests.unit.config.pem import write_pair

LISTEN = top("listen:", "  tls:", "    certificate: a.pem", "    key: a.key")


def outcome(text: str, base: Path) -> Config | list[tuple[int, str]]:
    """The configuration, or line and sentence of each problem."""
    try:
        return parse(text, "config.yaml", {}, base)
    except ConfigError as error:
        return [(problem.line, problem.message) for problem in error.problems]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with the pairs a and b, and a pair whose key is encrypted."""
    for name in "ab":
        write_pair(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
    write_pair(tmp_path / "locked.pem", tmp_path / "locked.key", b"password")
    (tmp_path / "both.pem").write_bytes((tmp_path / "a.pem").read_bytes() + (tmp_path / "a.key").read_bytes())
    return tmp_path


def test_a_certificate_and_its_key_are_accepted_as_absolute_paths(base: Path) -> None:
    """Whoever opens them needs not know where the configuration file is; the watch learns of both."""
    config = outcome(LISTEN, base)
    assert isinstance(config, Config)
    assert config.listen.tls is not None
    assert config.listen.tls.certificate == str(base / "a.pem")
    assert config.files == (str(base / "a.pem"), str(base / "a.key"))


@pytest.mark.parametrize(
    ("certificate", "key", "sentence"),
    [
        ("a.pem", "b.key", "the key does not belong to the certificate"),
        ("a.key", "a.key", "not a PEM certificate with its unencrypted key"),
        ("a.pem", "a.pem", "not a PEM certificate with its unencrypted key"),
        ("locked.pem", "locked.key", "not a PEM certificate with its unencrypted key"),
    ],
)
def test_tls_files_that_do_not_fit_are_refused(base: Path, certificate: str, key: str, sentence: str) -> None:
    """Before a port is bound, and without asking for a password on the terminal."""
    assert outcome(LISTEN.replace("a.pem", certificate).replace("a.key", key), base) == [(6, sentence)]


def test_tls_files_of_servers_are_checked_too(base: Path) -> None:
    """Our certificate, its key or the file that holds both, and the authorities."""
    text = "servers:\n  a:\n    url: https://x/\n    tls: {{ca: {}, certificate: {}}}\n"
    assert isinstance(outcome(text.format("b.pem", "both.pem"), base), Config)
    assert outcome(text.format("b.key", "a.pem"), base) == [
        (4, "not a PEM file with certificates"),
        (4, "not a PEM certificate with its unencrypted key"),
    ]


def test_two_listeners_may_share_a_port_on_two_addresses_only(base: Path) -> None:
    """Or when the system chooses the ports."""
    clash = [(4, "the two listeners cannot share a port")]
    text = GOOD + "listen: {{host: {}, port: {}}}\nadmin: {{host: {}, port: {}}}\n"
    assert isinstance(outcome(text.format("127.0.0.1", 0, "127.0.0.1", 0), base), Config)
    assert isinstance(outcome(text.format("127.0.0.1", 80, "127.0.0.2", 80), base), Config)
    assert outcome("auth: {anonymous: true}\n" + text.format("0.0.0.0", 80, "127.0.0.2", 80), base) == [
        (6, clash[0][1])
    ]
    assert outcome(GOOD + "listen: {port: 9090}\n", base) == clash


def test_an_unconditional_route_hides_only_those_after_it(base: Path) -> None:
    """Another priority, another path, or conditions on the earlier one leave the later one its requests."""
    first = route()
    assert isinstance(outcome(first + "  - {name: s, path: /r, servers: a, priority: 5}\n", base), Config)
    assert isinstance(outcome(first + "  - {name: s, path: /r/*, servers: a}\n", base), Config)
    assert isinstance(outcome(route("when: {percent: 5}") + "  - {name: s, path: /r, servers: a}\n", base), Config)
    hidden = outcome(first + "  - {name: s, path: /r, servers: a, when: {tool: x}}\n", base)
    assert hidden == [(8, "never reached: the route on line 5 has its path and priority and no conditions")]


@pytest.mark.parametrize(
    ("keys", "line"),
    [("servers: [a, s]", 9), ("servers: [s, {name: a}]", 9), ("servers: [s]", 0), ("servers: [a, o]", 0),
     ("servers: a, mirror: {server: s}", 9), ("servers: s, mirror: {server: s}", 0)],
)  # fmt: skip
def test_a_route_has_either_websocket_servers_or_others(base: Path, keys: str, line: int) -> None:
    """No request could be sent to both kinds; legacy SSE and streamable HTTP go together."""
    servers = "  s: {url: ws://x/, transport: websocket}\n  o: {url: http://x/, transport: sse}\n"
    found = outcome(GOOD + servers + f"log: {{}}\nmetrics: {{}}\nroutes:\n  - {{name: r, path: /r, {keys}}}\n", base)
    expected = [(line, "a route and its mirror have either WebSocket servers or others, not both")]
    assert isinstance(found, Config) if not line else found == expected


def test_misspelt_names_by_the_thousand_are_reported_quickly(base: Path) -> None:
    """Guessing what was meant is given up after a while; the problems are not."""
    servers = "".join(f"  server{number}: {{url: http://x/}}\n" for number in range(2000))
    routes = "".join(f"  - {{name: r{number}, path: /{number}, servers: sever{number}}}\n" for number in range(900))
    found = outcome(f"servers:\n{servers}routes:\n{routes}", base)
    assert isinstance(found, list)
    assert len(found) == 900
    assert "did you mean 'server0'" in found[0][1]
    assert found[-1][1] == "no server of this name under 'servers'"


@pytest.mark.parametrize(
    ("keys", "problems"),
    [
        ("listen: {host: 0.0.0.0}\n", [(4, "everyone on the network")]),
        ("listen: {trusted_proxies: 10.0.0.0/8}\n", [(4, "everyone behind these proxies")]),
        ("auth: {anonymous: false}\n", [(4, "nobody could be let in")]),
        ("listen: {host: 0.0.0.0}\nauth: {anonymous: true}\n", []),
        ("listen: {host: 0.0.0.0}\npostgres: {embedded: true}\n", []),
        ("auth: {anonymous: false}\npostgres: {embedded: true}\n", []),
    ],
)
def test_a_listener_that_everyone_can_use_is_meant_to_be_so(
    keys: str, problems: list[tuple[int, str]], base: Path
) -> None:
    """Off loopback there are credentials, or the operator says that none are needed."""
    found = outcome(GOOD + keys, base)
    if not problems:
        assert isinstance(found, Config)
        return
    assert not isinstance(found, Config)
    assert [(line, text[: len(start)]) for (line, text), (_, start) in zip(found, problems, strict=True)] == problems


def test_what_passes_through_a_websocket_cannot_be_filtered(base: Path) -> None:
    """Nobody reads it."""
    servers = "servers: {a: {url: 'ws://a/', transport: websocket}}\n"
    text = f"{servers}routes: [{{name: r, path: /r, servers: a, filter_lists: true}}]\n"
    assert outcome(text, base) == [(2, "lists that pass through a WebSocket cannot be filtered")]


def test_a_flag_that_nobody_defines_is_told_of_unless_rows_may_define_it(base: Path) -> None:
    """As text and in a list."""
    flags = top("flags: {new-search: {}}", "routes:")
    one = "  - {name: r, path: /r, servers: a, when: {flag: new-serch}}\n"
    listed = "  - {name: s, path: /s, servers: a, when: {flag: [new-search, other-thing]}}\n"
    sentence = "no flag of this name under 'flags'"
    assert outcome(flags + one + listed, base) == [(6, f"{sentence}; did you mean 'new-search'?"), (7, sentence)]
    assert outcome(flags.replace("flags: {new-search: {}}", "log: {}") + one, base) == [(6, sentence)]
    assert isinstance(outcome(flags + one.replace("serch", "search"), base), Config)
    assert isinstance(outcome(flags + one + listed + "postgres: {dsn: postgresql://127.0.0.1/x}\n", base), Config)


def test_a_window_of_a_server_that_is_not_there_is_told_of(base: Path) -> None:
    """One for all servers names none."""
    windows = top("maintenance:", "  - {title: Update, every: 'Sun 02:00-04:00'}")
    bad = "  - {title: Update, every: 'Sun 02:00-04:00', server: b}\n"
    assert isinstance(outcome(windows + bad.replace("server: b", "server: a"), base), Config)
    assert outcome(windows + bad, base) == [(6, "no server of this name under 'servers'")]
