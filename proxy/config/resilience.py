"""How the proxy stands failing, slow and busy servers, as configured: breakers, health checks, queues, retries,
maintenance, flags, overload.

Owns shapes only, with every key's default and meaning; docs/resilience.md explains them together.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from proxy.config.fields import Model, Name, Path, Percent
from proxy.config.units import Duration, PositiveDuration, Recurrence, Size

PriorityClass = Literal["high", "normal", "low"]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

#: Longest that one maintenance window may last.
_LONGEST: timedelta = timedelta(days=366)
#: Of a begin, so that the end is still a time in every zone.
_LAST_YEAR = 9997


class Breaker(Model):
    """When a failing server is left alone, and for how long. Failures are: no connection, TLS errors, no answer in
    time, a connection lost before the answer, and 502, 503 and 504. What a client ends itself counts as nothing."""

    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """So many in a row open it."""
    failure_rate: Share = 0.5
    """This share of failures within `window` opens it, 0 to 1."""
    window: PositiveDuration = 10.0
    """What `failure_rate` looks back on."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Requests within `window` below which the rate says nothing."""
    open_for: PositiveDuration = 5.0
    """How long it stays open; with each failed trial one time longer, and up to a fifth more by chance."""
    max_open_for: PositiveDuration = 60.0
    """Longest time until the next trial."""
    enforce: bool = True
    """`false` counts, records and logs what would be refused, and refuses nothing."""

    @model_validator(mode="after")
    def _times_fit(self) -> Breaker:
        if self.max_open_for < self.open_for:
            raise ValueError("'max_open_for' is not shorter than 'open_for'")
        return self


class HealthCheck(Model):
    """Asking a server regularly whether it lives. 401, 403 and 405 are the answers of one that does."""

    kind: Literal["http", "mcp", "websocket", "tcp"] | None = None
    """`mcp` asks in the protocol without opening a session, `http` sends `method` to `path`, `websocket` shakes hands
    and pings, `tcp` connects. Absent: `websocket` for such servers, else `mcp`."""
    method: Literal["GET", "HEAD", "OPTIONS"] = "GET"
    """Of an `http` check."""
    path: Path | None = None
    """Of an `http` check, on the server's host; absent: the server's own URL."""
    interval: PositiveDuration = 10.0
    """From one check to the next, up to a tenth less by chance."""
    timeout: PositiveDuration = 2.0
    """Longest wait for the answer."""
    healthy_after: Annotated[int, Field(ge=1, le=100)] = 2
    """Good checks in a row after which it is healthy again."""
    unhealthy_after: Annotated[int, Field(ge=1, le=100)] = 3
    """Bad checks in a row after which it takes no new traffic, as long as another server of the route can."""
    degraded_factor: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 3.0
    """So many times slower than it usually answers, it is degraded: reported, but not avoided."""
    slow_start: Duration = 10.0
    """How long its share of the traffic grows after it recovered; 0: it has its whole share at once."""


class Queue(Model):
    """How many requests a server is given at once, and how many wait. A stream counts until its head has come."""

    max_concurrent: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Requests under way at once."""
    max_pending: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Requests that wait; of those of one class, the tenants take turns by their weights."""
    max_streams: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Open streams, beyond which none is opened."""
    max_wait: PositiveDuration = 5.0
    """Longest wait. Who could not be served in time is refused at once, with the time after which to come back."""


class Hedge(Model):
    """Asking a second server when the first takes long; for requests that may be repeated."""

    after: PositiveDuration
    """Wait for the head of the answer until another server is asked, too."""


class Retry(Model):
    """What happens to requests whose server failed before the first byte of its answer. One that could not be sent
    goes to the next server in any case."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """Most times that a request is sent in all; 1: never again."""
    tools: Literal["hinted", "never"] = "never"
    """`hinted`: also tools/call, when the server says of the tool that it is read-only or idempotent."""
    hedge: Hedge | None = None
    """Ask two servers instead of waiting."""


class RetryBudget(Model):
    """What retries and hedges may add to the traffic, so that they do not finish off what is overloaded."""

    percent: Percent = 20.0
    """Of the requests under way."""
    minimum: Annotated[int, Field(ge=0, le=10_000)] = 3
    """As many are allowed anyway, at once."""


class Priorities(Model):
    """The class of a request: that of its key, else of its route, else of its tier. In a queue a higher class goes
    first; under overload a lower class is refused first."""

    tiers: dict[Literal["admin", "user", "anonymous"], PriorityClass] = {  # noqa: RUF012 (pydantic copies it)
        "admin": "high", "user": "normal", "anonymous": "low",
    }  # fmt: skip
    """By tier of the principal; one that is not named is normal."""
    keys: dict[Annotated[str, Field(min_length=1, max_length=64)], PriorityClass] = {}  # noqa: RUF012
    """By id of the API key: the 12 characters behind `mcpm_`."""


class Maintenance(Model):
    """A time at which a server is not to be used: once (`start` and `end`), or again and again (`every`)."""

    server: Name | None = None
    """Key under `servers`; absent: all of them."""
    title: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[ -~]*$")]
    """Told to clients that are refused; printable ASCII."""
    start: datetime | None = None
    """Begin, with its time zone, such as 2026-12-01T22:00:00+01:00."""
    end: datetime | None = None
    """End; what `Retry-After` points to."""
    every: Recurrence | None = None
    """Weekly or daily, such as `Sun 02:00-04:00 Europe/Berlin` or `02:00-02:30`."""
    drain: Duration = 30.0
    """From the begin on new sessions go elsewhere; so long may what runs go on, then it is ended."""

    @model_validator(mode="after")
    def _says_when(self) -> Maintenance:
        if (self.every is None) == (self.start is None and self.end is None):
            raise ValueError("needs either 'start' and 'end', or 'every'")
        if self.every is not None:
            return self
        if self.start is None or self.end is None:
            raise ValueError("needs both 'start' and 'end'")
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("'start' and 'end' need a time zone, such as +01:00 or Z")
        if not timedelta() < self.end - self.start <= _LONGEST:
            raise ValueError("'end' is after 'start', by a year at most")
        if self.start.year > _LAST_YEAR:
            raise ValueError(f"'start' is in the year {_LAST_YEAR} at the latest")
        return self


class FlagRule(Model):
    """For whom a flag is on or off, whatever its percentage: all that is named must fit."""

    tenant: Annotated[str, Field(max_length=128)] = ""
    """Short name of the tenant."""
    user: Annotated[str, Field(max_length=256)] = ""
    """Id of the user."""
    key: Annotated[str, Field(max_length=64)] = ""
    """Id of the API key."""
    enabled: bool = True
    """Whether the flag is on for them."""
    variant: Annotated[str, Field(max_length=64)] = ""
    """Variant that they get; empty: by chance."""

    @model_validator(mode="after")
    def _names_someone(self) -> FlagRule:
        if not (self.tenant or self.user or self.key):
            raise ValueError("needs a 'tenant', a 'user' or a 'key'")
        return self


class Flag(Model):
    """A feature that is on for some. Whoever has it keeps it, and the variant: both depend on who asks alone."""

    enabled: bool = True
    """`false`: off for everyone."""
    percent: Percent = 100.0
    """Share of the principals for whom it is on, 0 to 100."""
    variants: dict[Name, Annotated[int, Field(ge=0, le=1_000_000)]] = {}  # noqa: RUF012
    """Name and weight of each variant of an A/B test."""
    rules: tuple[FlagRule, ...] = ()
    """The first that fits decides, before the percentage."""

    @model_validator(mode="after")
    def _variants_are_known(self) -> Flag:
        if self.variants and not any(self.variants.values()):
            raise ValueError("one of 'variants' needs a weight above 0")
        unknown = [rule.variant for rule in self.rules if rule.variant and rule.variant not in self.variants]
        if unknown:
            raise ValueError("a rule names a variant that is not among 'variants'")
        return self


class Overload(Model):
    """When requests are refused so that the others get through: the lowest class first."""

    loop_lag: PositiveDuration = 0.2
    """Delay of the event loop that is too much."""
    lag_for: PositiveDuration = 1.0
    """How long it must last; after each such time the next class is refused as well."""
    memory: Annotated[Size, Field(ge=64 << 20)] | None = None
    """What the process may use, such as 512MiB, and 64MiB at least, which it needs for itself; absent: the limit of its
    cgroup, if it has one."""
