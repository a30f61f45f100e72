"""Rows of the registry read as configuration: a row of `mcp_servers` is a server, one of `routing_rules` a route.

Owns which column is which key, and what a row may refer to outside of itself (`Reach`). A row is any object with
attributes named as the columns; JSON is decoded. What a key means and what its value looks like is `models.py`'s and
`fields.py`'s. Every failure is a ValueError with one sentence that names the column and never shows a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pydantic import ValidationError

from proxy.config.checks import cross_check
from proxy.config.fields import Context, Model, Name
from proxy.config.files import Files, substitute
from proxy.config.models import Route, Server
from proxy.config.problems import Location, Report, Table, path_text
from proxy.config.wording import explain

_Model = TypeVar("_Model", bound=Model)

#: Begins the names of variables that belong to a tenant.
_TENANTS: Final = "TENANT_"
_FILE: Final = "file:"
#: Key of the configuration file -> column. Every other key stands in `options`.
_SERVER_COLUMNS: Final = {"name": "name", "url": "endpoint_url", "transport": "transport_type", "headers": "headers"}
_ROUTE_COLUMNS: Final = {
    "name": "name",
    "path": "path",
    "priority": "priority",
    "when": "conditions",
    "servers": "target_servers",
    "strategy": "load_balancing_strategy",
}


class ServerRow(Protocol):
    """What is asked of a row of `mcp_servers`."""

    @property
    def name(self) -> str: ...
    @property
    def endpoint_url(self) -> str: ...
    @property
    def transport_type(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, Any]: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


class RouteRow(Protocol):
    """What is asked of a row of `routing_rules`."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def conditions(self) -> Mapping[str, Any]: ...
    @property
    def target_servers(self) -> list[Any]: ...
    @property
    def load_balancing_strategy(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Reach:
    """What the rows of one owner may refer to: `${NAME}` in the values of headers, and files."""

    variables: Mapping[str, str] = field(repr=False)
    """Everything that `${NAME}` may stand for."""
    prefix: str = ""
    """What these names begin with, for the sentence; '' for any."""
    files: bool = False
    """Whether rows may name files: `file:PATH` in headers, and those of `tls`. Whoever may can read any file."""


def reach_of_operator(env: Mapping[str, str]) -> Reach:
    """Of rows of the system tenant: everything that the configuration file may refer to."""
    return Reach(env, files=True)


def reach_of_tenants(env: Mapping[str, str], slugs: Iterable[str]) -> dict[str, Reach]:
    """Of rows of each tenant: no file, and variables that begin with `TENANT_`, its slug in upper case, and `_`.

    `slugs`: those of all tenants. A variable belongs to one tenant only, that of the longest slug: `acme` does not get
    at `TENANT_ACME_CORP_TOKEN` where there is an `acme-corp`.
    """
    owners = {f"{_TENANTS}{slug.upper().replace('-', '_')}_": slug for slug in slugs}
    variables: dict[str, dict[str, str]] = {slug: {} for slug in owners.values()}
    for name, value in env.items():
        owner = _owner(name, owners) if name.startswith(_TENANTS) else None
        if owner is not None:
            variables[owner][name] = value
    return {slug: Reach(variables[slug], prefix) for prefix, slug in owners.items()}


def _owner(name: str, owners: Mapping[str, str]) -> str | None:
    """The slug of the longest prefix of a variable's name."""
    end = len(name)
    while (end := name.rfind("_", 0, end)) >= len(_TENANTS):
        owner = owners.get(name[: end + 1])
        if owner is not None:
            return owner
    return None


def server_of(row: ServerRow, reach: Reach) -> Server:
    """The server of a row. Reads the files that it names, where it may. Raises ValueError."""
    keys = _keys(row, _SERVER_COLUMNS, row.options)
    keys["headers"] = {name: _header(name, value, reach) for name, value in row.headers.items()}
    tls = keys.get("tls")
    if tls:
        _check_reach(tls, reach)
    files = Files(Path("/"))
    context: Context | None = {"base": files.base, "read_secret": files.read_secret} if reach.files else None
    name = keys.pop("name")
    server = _validated(_Servers, {"servers": {name: keys}}, _SERVER_COLUMNS, context).servers[name]
    if isinstance(tls, dict):
        _check_files(tls, files)
    return server


def names_files(row: ServerRow) -> bool:
    """Whether the server of a row depends on files: it may become another one while the row stays the same."""
    return "tls" in row.options or any(isinstance(value, str) and _FILE in value for value in row.headers.values())


def route_of(row: RouteRow) -> Route:
    """The route of a row; nobody has looked whether its servers exist. Raises ValueError."""
    keys = _keys(row, _ROUTE_COLUMNS, row.options)
    return _validated(_Routes, {"routes": (keys,)}, _ROUTE_COLUMNS, None).routes[0]


class _Servers(Model):
    """A part of `Config`, so that places are those that `wording.py` knows."""

    servers: dict[Name, Server]


class _Routes(Model):
    routes: tuple[Route, ...]


def _keys(row: ServerRow | RouteRow, columns: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """What would stand in the configuration file."""
    for key, column in columns.items():
        if key in options:
            raise ValueError(f"options.{key}: this key is the column {column}")
    return {**options, **{key: getattr(row, column) for key, column in columns.items()}}


def _header(name: str, value: object, reach: Reach) -> object:
    """The value with its variables replaced; what is no text is left to the model."""
    if not isinstance(value, str):
        return value
    place = path_text(("headers", name))
    is_file = value.startswith(_FILE)
    if "${" in value:
        try:
            value = substitute(value, reach.variables)
        except ValueError as error:
            rule = f"; names of this tenant's variables begin with {reach.prefix}" if reach.prefix else ""
            raise ValueError(f"{place}: {error}{rule}") from None
    if not value.startswith(_FILE):
        return value
    if not reach.files:
        raise ValueError(f"{place}: rows of a tenant cannot name files")
    if not is_file or not value.startswith(f"{_FILE}/"):
        raise ValueError(f"{place}: a file is written file:/PATH, from the root")
    return value


def _check_reach(tls: object, reach: Reach) -> None:
    if not reach.files:
        raise ValueError("options.tls: rows of a tenant cannot name files")
    if isinstance(tls, dict) and any(isinstance(path, str) and not path.startswith("/") for path in tls.values()):
        raise ValueError("options.tls: a file is named by its path from the root")


def _check_files(tls: dict[str, object], files: Files) -> None:
    """Open the files of `tls` as the configuration's are. Raises ValueError."""
    root = _table({"servers": _table({"it": _table({"tls": _table(tls)})})})
    report = Report("")
    cross_check(root, files, report)
    for problem in report.problems():
        raise ValueError(f"options.tls: {problem.message}")


def _table(values: dict[str, object]) -> Table:
    table = Table()
    table.update(values)
    return table


def _validated(kind: type[_Model], written: object, columns: Mapping[str, str], context: Context | None) -> _Model:
    """Raises ValueError with the first of what is wrong."""
    try:
        return kind.model_validate(written, context=context)
    except ValidationError as error:
        location, sentence = next(explain(error))
    place = path_text(_column_of(location[2:], columns))
    raise ValueError(f"{place}: {sentence}" if place else sentence)


def _column_of(location: Location, columns: Mapping[str, str]) -> Location:
    """`location` counts from the server or route."""
    if not location:
        return ()
    first, rest = str(location[0]), location[1:]
    if first == "[key]":
        return ("name",)
    return (columns[first], *rest) if first in columns else ("options", first, *rest)
