"""Settings that may change while the proxy runs: which these are, and a configuration with some of them set otherwise.

Owns the declared list, and that a value from elsewhere means what it would mean in the file: the same models check it,
with the same sentences. Where values come from is not known here. Nothing that cannot be used costs more than itself.

Not declared, and so never set by a row: what is a secret or names a file; what needs a restart (`models.restart_keys`);
what decides who is let in or believed (`auth`, `sessions`, `listen.allowed_*`, `listen.trusted_proxies`,
`registry.private_networks`), as whoever may write a row of a database need not be whom the file trusts; and what has
rows of its own (servers, routes, rules of limits, flags, maintenance).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from proxy.config.alerts import Alerts
from proxy.config.fields import Model
from proxy.config.limits import RateLimitsWritten
from proxy.config.listening import Listen, Log
from proxy.config.models import Config
from proxy.config.problems import path_text
from proxy.config.record import Record
from proxy.config.resilience import Overload, RetryBudget
from proxy.config.units import Written, duration_text
from proxy.config.wording import Guess, explain

_Model = TypeVar("_Model", bound=Model)

#: Problems that are put into words; more are counted.
_MOST_TOLD: Final = 1000
#: Values for everyone that are tried: many more than there are settings.
_MOST: Final = 500
_TOO_MANY: Final = f"more than {_MOST} rows are for everyone"
_UNKNOWN: Final = "no setting of this name can be changed at run time"
_EVERYBODYS: Final = "this setting is everybody's; only a row of the system tenant sets it"


@dataclass(frozen=True, slots=True)
class Setting:
    """One that may be changed at run time. What it means is in the models."""

    key: str
    """As in the file: `listen.limits.body`."""
    by_tenant: str = ""
    """Key of the group that holds it by short names of tenants; '' for what is the same for all."""
    not_by_row: str = ""
    """A value that only the file may have: whoever may write rows must not end the audit trail."""


def _declared() -> Iterable[Setting]:
    #: What is written to the log; the audit trail goes on.
    groups = {
        "log": ("level", "access"),
        # What a client may send and how long it may take: read anew for each request.
        "listen.limits": ("connections", "header_line", "headers", "header_count", "body"),
        "listen.timeouts": ("head", "body", "body_total", "keepalive", "stalled_reader"),
        "listen.drain": ("delay", "grace"),
        # What gives way when all goes wrong: changed when there is no time for a roll-out.
        "retry_budget": ("percent", "minimum"),
        "overload": ("loop_lag", "lag_for", "memory"),
        "limits.streams": ("per_principal", "per_tenant"),
        "limits.blocking": ("enabled", "threshold", "half_life", "first_block", "longest_block"),
        "limits.blocking.weights": (
            "bad_key", "unknown_route", "session_guess", "header_mismatch", "parse_error", "flood",
        ),
        # What a record holds. Where records wait, and with which key they are signed, is made at the start.
        "record": ("arguments", "results", "max_content"),
        "record.risk": ("destructive", "open_world", "unhinted", "admin", "denied", "off_hours", "combine"),
        "record.risk.volume": ("level", "window", "factor", "minimum", "learn"),
        # What raises an alarm; who is told of it has secrets, and stays the file's.
        "alerts": ("enabled", "interval"),
        "alerts.rules.*": (
            "enabled", "threshold", "clear", "window", "min_requests", "holds_for", "keep_firing_for", "cooldown",
            "severity",
        ),
    }  # fmt: skip
    yield Setting("record.audit", by_tenant="record.tenants", not_by_row="none")
    for group, names in groups.items():
        yield from (Setting(f"{group}.{name}") for name in names)


SETTINGS: Final[Mapping[str, Setting]] = {setting.key: setting for setting in _declared()}
"""Every setting that may be changed at run time, by its key; `*` stands for a name without a dot."""


def setting_of(key: str) -> Setting | None:
    """The setting of a key; None when it cannot be changed at run time."""
    group, name = key.rpartition(".")[::2]
    return SETTINGS.get(key) or SETTINGS.get(f"{group.rpartition('.')[0]}.*.{name}")


class _Sections(Model):
    """The parts of `Config` that settings are in, so that places are those that `wording.py` knows."""

    listen: Listen = Listen()
    log: Log = Log()
    limits: RateLimitsWritten = None
    retry_budget: RetryBudget = RetryBudget()
    overload: Overload = Overload()
    record: Record = Record()
    alerts: Alerts = Alerts()


@dataclass(frozen=True, slots=True)
class Override:
    """A value for a setting, from somewhere else than the file."""

    key: str
    value: Any
    """As JSON: what would stand in the file."""
    tenant: str = ""
    """Short name of the one tenant that it is for; '' for everyone."""

    def __str__(self) -> str:
        setting = f"setting {path_text((self.key,))}"
        return f"tenant {self.tenant}, {setting}" if self.tenant else setting


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of overrides."""

    config: Config
    """The very object that was given when nothing is overridden."""
    accepted: tuple[Override, ...] = ()
    problems: tuple[str, ...] = ()
    """A line for each one that is left out."""


def overridden(config: Config, overrides: Iterable[Override]) -> Outcome:
    """`config` with all overrides in place that can be used together; never raises.

    Which these are depends on nothing but the values: in the order of their keys, and again while any one helps
    another (a first block of 2h needs a longest one of 2h or more).
    """
    known, problems = _known(overrides)
    every = [each for each in known if not each.tenant]
    together, problems = every[:_MOST], [*problems, *(f"{each}: left out: {_TOO_MANY}" for each in every[_MOST:])]
    accepted: list[Override] = []
    refused: list[tuple[Override, str]] = []
    while together:
        refused = []
        for each in together:
            try:
                config = _with(config, each.key.split("."), each.value)
            except ValueError as error:
                refused.append((each, str(error)))
            else:
                accepted.append(each)
        if len(refused) == len(together):
            break
        together = [each for each, _ in refused]
    config, of_tenants, unusable = _with_tenants(config, [each for each in known if each.tenant])
    problems += [f"{each}: left out: {why}" for each, why in (*refused, *unusable)]
    more = len(problems) - _MOST_TOLD
    told = problems if more <= 0 else [*problems[:_MOST_TOLD], f"and {more} more settings: left out"]
    return Outcome(config, (*accepted, *of_tenants), tuple(told))


def _known(overrides: Iterable[Override]) -> tuple[list[Override], list[str]]:
    """Those of declared settings, in order, and a line for each other one. Settings whose names are not their own come
    last, as there can be any number of them."""
    known, problems, guess = [], [], Guess()
    for each in sorted(overrides, key=lambda each: (each.tenant, each.key not in SETTINGS, each.key)):
        setting = setting_of(each.key)
        if setting is None:
            problems.append(f"{each}: left out: {_UNKNOWN}{guess(each.key, SETTINGS)}")
        elif each.tenant and not setting.by_tenant:
            problems.append(f"{each}: left out: {_EVERYBODYS}")
        elif setting.not_by_row and each.value == setting.not_by_row:
            problems.append(f"{each}: left out: '{setting.not_by_row}' can be said by the configuration file alone")
        else:
            known.append(each)
    return known, problems


def _with(config: Config, path: Sequence[str], value: Any) -> Config:
    """`config` with one value in place. Raises ValueError with a sentence."""
    section = getattr(config, path[0])
    if section is None:
        raise ValueError(f"the configuration file has no '{path[0]}'")
    return config.model_copy(update={path[0]: _taken(section, _checked(section, path, value), path[1:])})


def _checked(section: Model, path: Sequence[str], value: Any) -> Model:
    """The section as the file would make it. Raises ValueError."""
    written = _written(section)
    place = written
    for name in path[1:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
    try:
        checked: Model = getattr(_Sections.model_validate({path[0]: written}), path[0])
    except ValidationError as error:
        raise ValueError(next(explain(error))[1]) from None
    return checked


def _taken(before: _Model, checked: Model, path: Sequence[str]) -> _Model:
    """`before` with nothing but the value at `path` from `checked`: what was written back stays what it was."""
    name, rest = path[0], path[1:]
    value = getattr(checked, name)
    if rest and isinstance(value, Model):
        value = _taken(getattr(before, name), value, rest)
    return before.model_copy(update={name: value})


def _with_tenants(
    config: Config, overrides: Iterable[Override]
) -> tuple[Config, list[Override], list[tuple[Override, str]]]:
    """`config` with the values of single tenants in place, those that are, and why others are not."""
    accepted: list[Override] = []
    refused: list[tuple[Override, str]] = []
    found: dict[str, dict[str, Any]] = {}
    for each in overrides:
        group = SETTINGS[each.key].by_tenant  # without a `*`
        section, _, name = group.partition(".")
        empty = type(getattr(config, section)).model_construct()  # alone: thousands are not checked with each other
        try:
            checked = _checked(empty, (section, name), {each.tenant: each.value})
        except ValueError as error:
            refused.append((each, str(error)))
        else:
            found.setdefault(group, {}).update(getattr(checked, name))
            accepted.append(each)
    for group, values in found.items():
        section, _, name = group.partition(".")
        before = getattr(config, section)
        after = before.model_copy(update={name: {**getattr(before, name), **values}})
        config = config.model_copy(update={section: after})
    return config, accepted, refused


def _written(model: Model) -> dict[str, Any]:
    """What a file would say to get this: only what was set."""
    kinds = type(model).model_fields
    return {name: _as_written(getattr(model, name), kinds[name]) for name in model.model_fields_set}


def _as_written(value: Any, field: FieldInfo) -> Any:
    if isinstance(value, float) and _is_duration(field):
        return f"{value:.0f}s" if value.is_integer() else f"{value * 1e3:.3f}ms"
    if isinstance(value, Model):
        return _written(value)
    if isinstance(value, tuple):
        return [_written(item) if isinstance(item, Model) else item for item in value]
    if isinstance(value, dict):
        return {name: _written(item) if isinstance(item, Model) else item for name, item in value.items()}
    return value


def _is_duration(field: FieldInfo) -> bool:
    """Whether a number is written with a unit; also of `Duration | None`."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else ()
    marks = [*field.metadata, *(mark for kind in kinds for mark in getattr(kind, "__metadata__", ()))]
    return any(isinstance(mark, Written) and mark.text is duration_text for mark in marks)
