"""What makes a call risky, as configured: one level for each reason, and rules of one's own.

Owns shapes only, with every key's default and meaning; `proxy/audit/risk.py` decides.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from proxy.config.fields import Model, Name
from proxy.config.units import PositiveDuration, Recurrence

Level = Literal["low", "medium", "high", "critical"]
Pattern = Annotated[str, Field(min_length=1, max_length=256)]


class RiskRule(Model):
    """Calls that are as risky as this, whatever else is known of them: all that is named must fit."""

    name: Name
    """Stands among the reasons of the record."""
    methods: tuple[Pattern, ...] = ()
    """Methods, such as `tools/call` or `resources/*`; `*` fits anything. None: every method."""
    targets: tuple[Pattern, ...] = ()
    """Tools, prompts or URIs, such as `delete_*`; `*` fits anything. None: every target."""
    level: Level
    """How risky they are."""


class Volume(Model):
    """When somebody calls unusually often: more than `factor` times what is usual for them."""

    level: Level = "high"
    """How risky the calls above it are; `low`: they are not counted at all."""
    window: PositiveDuration = 60.0
    """What is counted at a time."""
    factor: Annotated[float, Field(gt=1, le=1000, allow_inf_nan=False)] = 5.0
    """So many times the usual number of calls is unusual."""
    minimum: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Calls in a window that are never unusual."""
    learn: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Windows in which somebody has called before anything of theirs is unusual."""
    principals: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Whose habits are remembered; of more, those that called least recently are forgotten."""


class Risk(Model):
    """How risky a call is: the highest level of all its reasons, and one more when two reasons share it."""

    destructive: Level = "high"
    """Tools that their server calls destructive (MCP `destructiveHint`)."""
    open_world: Level = "medium"
    """Tools that reach beyond their server (`openWorldHint`) and are not called read-only."""
    unhinted: Level = "low"
    """Tools of which their server says nothing. The protocol would have them taken for destructive."""
    admin: Level = "medium"
    """Calls by somebody who may administer."""
    denied: Level = "medium"
    """Requests that were refused for what they are."""
    denials: dict[Name, Level] = {  # noqa: RUF012 (pydantic gives every model its own)
        "forbidden": "high", "header_mismatch": "high", "host_not_allowed": "high", "origin_not_allowed": "high",
        "blocked": "high", "session_gone": "low", "no_route": "low", "rate_limited": "low",
    }  # fmt: skip
    """The same for single reasons of refusals, as they stand in the record."""
    hours: tuple[Recurrence, ...] = ()
    """When people are at work, such as `Mon-Fri 07:00-19:00 Europe/Berlin`; calls at other times are off-hours. None:
    no time is."""
    off_hours: Level = "medium"
    """Calls at other times than `hours`."""
    volume: Volume = Volume()
    """Unusually many calls."""
    combine: bool = True
    """Whether two reasons of the highest level (`medium` or more) make it one level higher."""
    rules: Annotated[tuple[RiskRule, ...], Field(max_length=200)] = ()
    """Rules of one's own; the highest that fits counts."""
