"""How much anyone may use, as configured: rules, open streams, blocking of addresses.

Owns shapes only, with every key's default and meaning; docs/limits.md explains them together. What is written means
the same in a row of `rate_limit_configs` (`limit_rows.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from proxy.config.fields import Model, Name, Networks, once
from proxy.config.units import PositiveDuration

Level = Literal["global", "tenant", "tier", "key", "server", "tool", "client_address"]

_UNITS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)/(s|min|h|d)")
#: Requests per second, and at once: no machine does more, and numbers stay exact in whatever counts them.
_FASTEST: Final = 1_000_000.0
_MOST: Final = 1_000_000_000
#: A bucket that takes longer to fill is a slip of the pen, and would stay in the store for as long.
_LONGEST_S: Final = 366 * 86400.0
#: The grammar of names in keys and access rules: `name`, `beginning*` and `*`.
_PATTERN: Final = re.compile(r"(?!.*\.\.)(?=.{1,512}\Z)[^*%\\\x00-\x20\x7f-\x9f]*\*?", re.DOTALL)
#: JSON-RPC methods are words with slashes; GET stands for the opening of a stream, `response` for an answer.
_METHOD: Final = re.compile(r"(?=.{1,128}\Z)[A-Za-z][A-Za-z0-9_./-]*\*?|\*")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds."""

    requests: float
    seconds: float

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def _rate(value: object) -> Rate:
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    rate = value if isinstance(value, Rate) else match and Rate(float(match[1]), _UNITS[match[2]])
    if not rate:
        raise ValueError("a rate is a number and a unit, such as 5/s, 100/min, 1000/h or 5000/d")
    if not 0 < rate.per_s <= _FASTEST:  # NaN is outside, too
        raise ValueError(f"a rate is more than 0, and at most {_FASTEST:,.0f} per second")
    return rate


def _pattern(value: str) -> str:
    if _PATTERN.fullmatch(value) is None:
        raise ValueError("a name, or its beginning and a '*'; without blanks, '..', '%' and any other '*'")
    return value


def _method(value: str) -> str:
    if _METHOD.fullmatch(value) is None:
        raise ValueError("a JSON-RPC method such as tools/call, its beginning and a '*', GET, or 'response'")
    return value


def _tool(value: str) -> str:
    if "/" not in _pattern(value) and value != "*":
        raise ValueError("a tool is written server/tool, with a '*' at the end for all that begin so")
    return value


_Pattern = Annotated[str, AfterValidator(_pattern)]
_Method = Annotated[str, AfterValidator(_method)]
_Tool = Annotated[str, AfterValidator(_tool)]
_RateWritten = Annotated[
    Rate, PlainValidator(_rate), WithJsonSchema({"type": "string", "pattern": f"^{_RATE.pattern}$"})
]
_Price = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=_MOST)]
_Weight = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]


class Window(Model):
    """A sliding window beside the bucket: what a burst cannot go round."""

    requests: _Count
    """Most in any stretch of that length, counted as costs."""
    per: PositiveDuration
    """Length of the window."""

    @model_validator(mode="after")
    def _is_not_too_long(self) -> Window:
        if self.per > _LONGEST_S:
            raise ValueError("a window is at most a year long")
        return self


class Cost(Model):
    """What requests cost, in tokens."""

    default: _Price = 1.0
    """Of every request that is not named below. Pings, notifications and answers cost nothing unless they are."""
    methods: dict[_Method, _Price] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """By JSON-RPC method, such as {tools/call: 5}; a '*' at the end fits all that begin so."""
    tools: dict[_Tool, _Price] = {}  # noqa: RUF012
    """By tool, such as {github/search_*: 10}, before any price of tools/call; of several that fit, the longest."""

    def prices(self) -> Iterable[float]:
        """All of them."""
        return (self.default, *self.methods.values(), *self.tools.values())


class LimitRule(Model):
    """A token bucket, or one for each tenant, client, server, tool or address."""

    name: Name
    """Unique; shown to clients that are refused, in logs and metrics. One of the preset's names replaces that rule."""
    level: Level
    """What has a bucket."""
    subject: _Pattern | None = None
    """The one tenant, tier, key, server, tool (server/tool) or address meant, with a '*' at its end for all that begin
    so; absent: each has a bucket of its own."""
    rate: _RateWritten
    """How fast tokens come back, such as 5/s, 100/min, 1000/h or 5000/d."""
    burst: _Count | None = None
    """Most tokens in the bucket; absent: as many as `rate` says in its unit."""
    window: Window | None = None
    """A sliding window beside the bucket."""
    cost: Cost = Cost()
    """What requests cost."""
    on_store_error: Literal["local", "deny", "allow"] = "local"
    """While Redis is away: each process takes its part of the rate, or all is refused, or all is let through."""
    enforce: bool = True
    """`false` only counts, records and logs what would be refused."""

    @property
    def capacity(self) -> float:
        """Most tokens in the bucket."""
        return float(self.burst) if self.burst is not None else max(1.0, self.rate.requests)

    @model_validator(mode="after")
    def _subject_fits(self) -> LimitRule:
        if self.subject is None:
            return self
        if self.level == "global":
            raise ValueError("a global rule has no 'subject': it concerns everyone")
        if self.level == "tool" and "/" not in self.subject:
            raise ValueError("the 'subject' of this level is written server/tool, perhaps with a '*' at its end")
        if self.level == "client_address" and not _is_network(self.subject):
            raise ValueError(
                "the 'subject' of this level is an address or network: 10.1.2.3, 10.0.0.0/8, 2001:db8::/32"
            )
        return self

    @model_validator(mode="after")
    def _can_be_met(self) -> LimitRule:
        dearest = max(self.cost.prices())
        if dearest == 0:
            raise ValueError("nothing has a cost, so nothing would be limited")
        if dearest > self.capacity:
            raise ValueError("the highest cost is more than the 'burst': such a request could never pass")
        if self.window is not None and dearest > self.window.requests:
            raise ValueError("the highest cost is more than the window's 'requests': such a request could never pass")
        if self.capacity > self.rate.per_s * _LONGEST_S:
            raise ValueError("at this 'rate' the bucket takes more than a year to fill")
        return self


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


class Streams(Model):
    """Open streams, which cost their price only once."""

    per_principal: Annotated[int, Field(ge=0, le=_MOST)] = 100
    """Most that one client holds open; 0: any number. Whoever is anonymous is told by the address."""
    per_tenant: Annotated[int, Field(ge=0, le=_MOST)] = 1000
    """Most that all clients of one tenant hold open; 0: any number."""


class Weights(Model):
    """What each offence adds to the score of its address; 0 overlooks it."""

    bad_key: _Weight = 1.0
    """A key, token or session cookie that is none, or is not good any more."""
    unknown_route: _Weight = 0.5
    """A path that leads nowhere."""
    session_guess: _Weight = 1.0
    """A session id that this proxy did not make, or not for this client."""
    header_mismatch: _Weight = 0.5
    """Header fields that say something else than the body."""
    parse_error: _Weight = 0.5
    """A request, or its body, that cannot be read."""
    flood: _Weight = 0.1
    """A request that was refused for a limit."""


class Blocking(Model):
    """Addresses that misbehave are refused before anything else; IPv6 addresses by their /64."""

    enabled: bool = True
    """Whether any is blocked by itself; what was blocked by hand stays so."""
    threshold: Annotated[float, Field(ge=1, le=_MOST, allow_inf_nan=False)] = 100.0
    """Score at which an address is blocked."""
    half_life: PositiveDuration = 60.0
    """Time in which a score falls to half."""
    first_block: PositiveDuration = 60.0
    """Length of the first block; each further one lasts twice as long."""
    longest_block: PositiveDuration = 86400.0
    """Length that is never exceeded."""
    allow: Networks = ()
    """Addresses and networks that are never blocked."""
    weights: Weights = Weights()
    """What each offence counts."""

    @model_validator(mode="after")
    def _first_is_shorter(self) -> Blocking:
        if self.first_block > self.longest_block:
            raise ValueError("'first_block' is longer than 'longest_block'")
        return self


class RateLimits(Model):
    """How much anyone may use."""

    preset: Literal["default", "none"] = "default"
    """`default`: 5000/min for all together; each admin 1000, user 100, and anonymous address 20 per minute."""
    rules: tuple[LimitRule, ...] = ()
    """More rules: all that concern a request must let it pass."""
    streams: Streams = Streams()
    """Open streams."""
    blocking: Blocking = Blocking()
    """Blocking of addresses that misbehave."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> RateLimits:
        once([rule.name for rule in self.rules], "two rules have one name")
        return self

    def all_rules(self) -> tuple[LimitRule, ...]:
        """The rules of the preset that are not replaced by one of the same name, then the others."""
        named = {rule.name for rule in self.rules}
        preset = PRESET if self.preset == "default" else ()
        return (*(rule for rule in preset if rule.name not in named), *self.rules)


def _preset(name: str, level: Level, per_minute: int, subject: str | None = None) -> LimitRule:
    return LimitRule(name=name, level=level, subject=subject, rate=Rate(per_minute, 60.0))


#: `limits: default`.
PRESET: Final = (
    _preset("global", "global", 5000),
    _preset("tier-admin", "tier", 1000, "admin"),
    _preset("tier-user", "tier", 100, "user"),
    _preset("tier-anonymous", "tier", 20, "anonymous"),
)


def _written(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


#: `limits: default`, or a group.
RateLimitsWritten = Annotated[
    RateLimits | None,
    BeforeValidator(_written, json_schema_input_type=Literal["default", "none"] | RateLimits | None),
]
