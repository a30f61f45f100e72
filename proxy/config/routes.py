"""The routing rules of the configuration: which requests go to which servers, and what may be asked of a request.

Owns shapes only, with every key's default and meaning; `models.py` is where other code imports all of them from.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from proxy.config.fields import (
    Globs,
    HeaderName,
    Model,
    Name,
    Networks,
    Path,
    Percent,
    Strategy,
    Words,
    as_list,
    once,
)
from proxy.config.record import AuditGrade
from proxy.config.resilience import PriorityClass, Retry
from proxy.config.units import RevisionRange, TimeWindow

_Scope = Literal["read", "write", "proxy", "admin"]
_Tier = Literal["admin", "user", "anonymous"]
#: What cannot be known of a request whose body nobody reads.
_READ_FROM_BODY = ("method", "tool", "prompt", "resource", "protocol")


_ListWritten = BeforeValidator(as_list, json_schema_input_type=str | tuple[str, ...])


class When(Model):
    """Conditions of a route: all of them must hold; a list means any of its values."""

    host: Words = ()
    """`Host` without its port, exact."""
    method: Words = ()
    """JSON-RPC method, exact, such as tools/call."""
    tool: Globs = ()
    """Tool name of tools/call; `*` stands for any characters."""
    prompt: Globs = ()
    """Prompt name of prompts/get."""
    resource: Globs = ()
    """URI of resources/read, subscribe and unsubscribe."""
    protocol: RevisionRange | None = None
    """Protocol revision, such as >=2026-07-28."""
    header: dict[HeaderName, Words] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """Header name to its exact value."""
    client_ip: Networks = ()
    """Client address, as addresses or networks."""
    tenant: Words = ()
    """Short name of the principal's tenant, such as acme."""
    scope: Annotated[tuple[_Scope, ...], _ListWritten] = ()
    """Scope that the principal has."""
    key: Words = ()
    """Id of the API key: the 12 characters behind `mcpm_`; of another credential, the id of its row."""
    tier: Annotated[tuple[_Tier, ...], _ListWritten] = ()
    """Tier of the principal."""
    flag: Words = ()
    """A feature flag that is on for the principal; see `flags`."""
    variant: Words = ()
    """Variant of that flag that the principal has."""
    between: TimeWindow | None = None
    """Daily time window, such as 22:00-06:00 Europe/Berlin."""
    percent: Percent | None = None
    """Share of the matching requests, drawn at random, 0 to 100."""

    @model_validator(mode="after")
    def _headers_are_named_once(self) -> When:
        once(self.header, "a header is named twice")
        if self.variant and len(self.flag) != 1:
            raise ValueError("'variant' needs the one 'flag' that it is a variant of")
        return self


class RouteServer(Model):
    """A server in a route."""

    name: Name
    """Key under `servers`."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Share for `weighted`, `random`, `least_connections`, `consistent_hash` and, with `affinity`, any strategy; 0
    takes no new traffic."""


class Affinity(Model):
    """What keeps requests without a session on one server (rendezvous hash). Sessions stay where they began anyway."""

    by: Literal["principal", "client_address", "header", "task"]
    """The value that is hashed."""
    header: HeaderName | None = None
    """Name of the header, for `by: header`."""

    @model_validator(mode="after")
    def _header_is_named(self) -> Affinity:
        if (self.by == "header") != (self.header is not None):
            raise ValueError("'header' is needed with 'by: header', and only there")
        return self


class Mirror(Model):
    """Send a copy to another server and drop its answer."""

    server: Name
    """Key under `servers`."""
    percent: Percent = 100.0
    """Share of the requests, 0 to 100."""


def _servers(value: object) -> object:
    items = as_list(value)
    return [{"name": item} if isinstance(item, str) else item for item in items] if isinstance(items, list) else items


_ServersWritten = BeforeValidator(_servers, json_schema_input_type=Name | tuple[Name | RouteServer, ...])


class Route(Model):
    """Which requests go to which servers. The first match counts: by priority, then in the order written."""

    name: Name
    """Unique; shown in logs and metrics."""
    path: Path
    """Path of the request, exact, or with a '*' at its end for everything below."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher is looked at first; the built-in /NAME/mcp routes come after all others."""
    when: When = When()
    """Conditions; none: every request to the path."""
    servers: Annotated[tuple[RouteServer, ...], _ServersWritten, Field(min_length=1)]
    """Names, or names with weights."""
    strategy: Strategy = "round_robin"
    """How a server is chosen."""
    affinity: Affinity | None = None
    """What keeps requests without a session on one server."""
    mirror: Mirror | None = None
    """A server that gets copies."""
    retry: Retry = Retry()
    """When a request is sent again."""
    priority_class: PriorityClass | None = None
    """Class of its requests in queues and under overload; absent: that of the principal's tier."""
    inspect: Literal["full", "none"] = "full"
    """`none` parses nothing and streams the request through; conditions on method, tool, prompt, resource and protocol
    are not possible then. All routes of one path must agree."""
    sessions: Literal["sealed", "passthrough"] = "sealed"
    """`passthrough` shows the upstream's own session ids; only for a route with one server."""
    audit: AuditGrade | None = None
    """What happens when a call cannot be recorded, as `record.audit`; absent: what its tenant has."""
    filter_lists: bool = False
    """Take out of tools/list, prompts/list, resources/list and resources/templates/list what the principal may not
    use. Answers are read for it, up to 4 MiB each."""

    @model_validator(mode="after")
    def _options_fit_together(self) -> Route:
        if self.sessions == "passthrough" and len(self.servers) > 1:
            raise ValueError("'sessions: passthrough' needs a route with exactly one server")
        when = self.when
        if self.inspect == "none" and any(getattr(when, name) for name in _READ_FROM_BODY):
            raise ValueError(
                "'inspect: none' cannot be combined with method, tool, prompt, resource or protocol conditions"
            )
        if self.inspect == "none" and self.filter_lists:
            raise ValueError("'filter_lists' needs 'inspect: full': which answers are lists is read from the requests")
        if len({server.name for server in self.servers}) != len(self.servers):
            raise ValueError("a server is listed twice")
        return self
