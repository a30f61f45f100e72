"""What no single key can be wrong about: names that lead nowhere, routes that contradict each other, TLS files.

Works on the document as written, not on the models, so that its problems are reported together with theirs; whatever
has the wrong shape is left to the models. Owns no place and no I/O but the opening of TLS files.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

from proxy.config.files import Files
from proxy.config.listening import is_loopback
from proxy.config.problems import Items, Location, Report, Table, locate
from proxy.config.wording import Guess

Finding = tuple[Location, str]


def cross_check(root: Table, named: Files, report: Report) -> None:
    """Add to `report` what the document `root` has wrong across keys. Reads the TLS files it names."""
    for check in _CHECKS:
        for location, message in check(root):
            report.add_at(root, location, message)
    tls = _Tls(named)
    for location, message in tls.findings(root):
        report.add_at(root, location, message)


def _routes(root: Table) -> Iterator[tuple[int, Table]]:
    routes = root.get("routes")
    for index, route in enumerate(routes if isinstance(routes, Items) else ()):
        if isinstance(route, Table):
            yield index, route


def _line(root: Table, location: Location) -> int:
    return locate(root, location)[1].line


def _server_references(index: int, route: Table) -> Iterator[tuple[Location, object]]:
    """Location and name of each server that the route mentions."""
    servers = route.get("servers")
    here: Location = ("routes", index, "servers")
    if isinstance(servers, str):
        yield here, servers
    for position, item in enumerate(servers if isinstance(servers, Items) else ()):
        if isinstance(item, Table):
            yield (*here, position, "name"), item.get("name")
        else:
            yield (*here, position), item
    mirror = route.get("mirror")
    if isinstance(mirror, Table):
        yield ("routes", index, "mirror", "server"), mirror.get("server")


def _dangling(root: Table) -> Iterator[Finding]:
    servers = root.get("servers")
    if not isinstance(servers, Table):
        return
    guess = Guess()
    for index, route in _routes(root):
        for location, name in _server_references(index, route):
            if isinstance(name, str) and name not in servers:
                yield location, f"no server of this name under 'servers'{guess(name, servers)}"


def _dangling_windows(root: Table) -> Iterator[Finding]:
    servers, windows = root.get("servers"), root.get("maintenance")
    if not isinstance(servers, Table):
        return
    guess = Guess()
    for index, window in enumerate(windows if isinstance(windows, Items) else ()):
        name = window.get("server") if isinstance(window, Table) else None
        if isinstance(name, str) and name not in servers:
            yield ("maintenance", index, "server"), f"no server of this name under 'servers'{guess(name, servers)}"


def _dangling_flags(root: Table) -> Iterator[Finding]:
    """Where there is a database, its rows may define them."""
    if isinstance(root.get("postgres"), Table):
        return
    written = root.get("flags")
    flags = written if isinstance(written, Table) else Table()
    guess = Guess()
    for index, route in _routes(root):
        when = route.get("when")
        named = when.get("flag") if isinstance(when, Table) else None
        here: Location = ("routes", index, "when", "flag")
        places = [((*here, at), name) for at, name in enumerate(named)] if isinstance(named, Items) else [(here, named)]
        for location, name in places:
            if isinstance(name, str) and name not in flags:
                yield location, f"no flag of this name under 'flags'{guess(name, flags)}"


def _same_name(root: Table) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, route in _routes(root):
        name = route.get("name")
        if isinstance(name, str) and first.setdefault(name, index) != index:
            line = _line(root, ("routes", first[name]))
            yield ("routes", index, "name"), f"the route on line {line} has this name already"


def _mixed_transports(root: Table) -> Iterator[Finding]:
    """A client either upgrades or it does not: no request fits a WebSocket server and another one alike."""
    servers = root.get("servers")
    transports = {
        name: server.get("transport", "streamable_http")
        for name, server in (servers.items() if isinstance(servers, Table) else ())
        if isinstance(server, Table)
    }
    for index, route in _routes(root):
        known = [(where, name) for where, name in _server_references(index, route) if name in transports]
        for where, name in known[1:]:
            if (transports[name] == "websocket") != (transports[known[0][1]] == "websocket"):
                yield where, "a route and its mirror have either WebSocket servers or others, not both"


def _filtered_sockets(root: Table) -> Iterator[Finding]:
    """What goes through a WebSocket is not read."""
    servers = root.get("servers")
    known = servers if isinstance(servers, Table) else Table()
    for index, route in _routes(root):
        for _, name in _server_references(index, route) if route.get("filter_lists") is True else ():
            server = known.get(name) if isinstance(name, str) else None
            if isinstance(server, Table) and server.get("transport") == "websocket":
                yield ("routes", index, "filter_lists"), "lists that pass through a WebSocket cannot be filtered"


def _inspect_disagrees(root: Table) -> Iterator[Finding]:
    first: dict[str, tuple[int, object]] = {}
    for index, route in _routes(root):
        path, inspect = route.get("path"), route.get("inspect", "full")
        if isinstance(path, str) and first.setdefault(path, (index, inspect))[1] != inspect:
            line = _line(root, ("routes", first[path][0]))
            yield ("routes", index, "inspect"), f"all routes of one path must agree; the one on line {line} does not"


def _unreachable(root: Table) -> Iterator[Finding]:
    """A route is never asked when one before it, of its path and priority, has no conditions."""
    taken: dict[tuple[str, object], int] = {}
    for index, route in _routes(root):
        path, priority = route.get("path"), route.get("priority", 0)
        if not isinstance(path, str) or not isinstance(priority, int):
            continue
        if (path, priority) in taken:
            line = _line(root, ("routes", taken[path, priority]))
            yield (
                ("routes", index),
                f"never reached: the route on line {line} has its path and priority and no conditions",
            )
        elif not route.get("when"):
            taken[path, priority] = index


def _same_port(root: Table) -> Iterator[Finding]:
    listen, admin = root.get("listen"), root.get("admin")
    ours = listen if isinstance(listen, Table) else Table()
    its = admin if isinstance(admin, Table) else Table()
    port = str(its.get("port", 9090))
    hosts = {str(ours.get("host", "127.0.0.1")), str(its.get("host", "127.0.0.1"))}
    if port != "0" and port == str(ours.get("port", 8080)) and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):  # noqa: S104
        where: Location = ("admin", "port") if "port" in its else ("listen", "port")
        yield where, "the two listeners cannot share a port"


def _nobody_or_everybody(root: Table) -> Iterator[Finding]:
    """Without a database nobody has a credential: to let everyone in is for the operator to say."""
    listen, auth = root.get("listen"), root.get("auth")
    ours = listen if isinstance(listen, Table) else Table()
    host = ours.get("host", "127.0.0.1")
    anonymous = auth.get("anonymous") if isinstance(auth, Table) else None
    if isinstance(root.get("postgres"), Table) or anonymous is True or not isinstance(host, str):
        return
    if anonymous is False:
        yield (
            ("auth", "anonymous"),
            "nobody could be let in: credentials are kept in PostgreSQL, and there is no 'postgres'",
        )
    elif not is_loopback(host):
        yield ("listen", "host"), f"everyone on the network could use this listener; {_CHOICE}"
    elif ours.get("trusted_proxies"):
        yield ("listen", "trusted_proxies"), f"everyone behind these proxies could use this listener; {_CHOICE}"


_CHOICE: Final = "configure 'postgres' for credentials, or set 'auth: {anonymous: true}' if that is meant"
_CHECKS: Final = (
    _dangling, _dangling_windows, _dangling_flags, _same_name, _mixed_transports, _filtered_sockets,
    _inspect_disagrees, _unreachable, _same_port, _nobody_or_everybody,
)  # fmt: skip


class _Tls:
    """Opens TLS files the way the proxy will; the same trio of files is opened once."""

    def __init__(self, named: Files) -> None:
        self._named = named
        self._known: dict[tuple[object, object], str] = {}

    def findings(self, root: Table) -> Iterator[Finding]:
        listen = root.get("listen")
        if isinstance(listen, Table):
            yield from self._of(listen.get("tls"), ("listen", "tls"))
        servers = root.get("servers")
        for name, server in servers.items() if isinstance(servers, Table) else ():
            if isinstance(server, Table):
                yield from self._of(server.get("tls"), ("servers", name, "tls"))

    def _of(self, tls: object, here: Location) -> Iterator[Finding]:
        if not isinstance(tls, Table):
            return
        unreadable = list(self._unreadable(tls, here))
        yield from unreadable
        certificate, key, ca = tls.get("certificate"), tls.get("key"), tls.get("ca")
        if unreadable:
            return
        if isinstance(certificate, str) and isinstance(key, str | None) and (message := self._pair(certificate, key)):
            yield (*here, "certificate"), message
        if isinstance(ca, str) and (message := self._authorities(ca)):
            yield (*here, "ca"), message

    def _unreadable(self, tls: Table, here: Location) -> Iterator[Finding]:
        for role in ("certificate", "key", "ca"):
            name = tls.get(role)
            if isinstance(name, str) and name:
                try:
                    self._named.read_pem(name)
                except ValueError as error:
                    yield (*here, role), f"the file {error}"

    def _pair(self, certificate: str, key: str | None) -> str:
        """What is wrong with a certificate and its key; '' when nothing is."""
        if (certificate, key) not in self._known:
            self._known[certificate, key] = _pair_problem(self._path(certificate), self._path(key) if key else None)
        return self._known[certificate, key]

    def _authorities(self, name: str) -> str:
        if ("ca", name) not in self._known:
            self._known["ca", name] = _authorities_problem(self._path(name))
        return self._known["ca", name]

    def _path(self, name: str) -> str:
        return str(self._named.base / name)


def _no_password() -> str:
    # Without a callback OpenSSL would ask on the terminal for the password of an encrypted key.
    return ""


def _pair_problem(certificate: str, key: str | None) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, _no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        return "not a PEM certificate with its unencrypted key"
    except (OSError, ValueError):
        return "the files cannot be read as a certificate and its key"
    return ""


def _authorities_problem(path: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return "not a PEM file with certificates"
    return ""
