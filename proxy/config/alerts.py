"""What is watched, and who is told when it is not well, as configured. docs/alerts.md explains it.

Owns shapes and the rules that hold without a word (`DEFAULTS`); a key of `rules` with the name of one of them changes
what it names, and nothing else. Values are compared in `background/alerts.py`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from proxy.config.fields import FieldName, FieldValue, File, Model, Name, Networks, Secret
from proxy.config.reachable import Reachable
from proxy.config.units import Duration, PositiveDuration

Metric = Literal[
    "error_rate", "p50_ms", "p95_ms", "p99_ms", "requests_per_minute", "pool_utilization", "queue_pending",
    "breaker_open", "spool_share", "postgres_away", "redis_away", "loop_lag_ms", "memory_share",
]  # fmt: skip
Comparison = Literal[">", ">=", "<", "<="]
Severity = Literal["low", "medium", "high", "critical"]
Number = Annotated[float, Field(allow_inf_nan=False)]

#: Without a clear threshold of its own, an alert ends this share of its threshold on the good side of it.
_SLACK: Final = 0.1
#: Characters of a secret that signs.
_KEY_LENGTH: Final = 16
#: Looks are that far apart, at the least and at the most; seconds.
_INTERVALS: Final = (0.5, 3600.0)


class AlertRule(Model):
    """A value, and when it is not well. A rule with the name of one that is there anyway changes what it names."""

    enabled: bool = True
    """`false` turns it off."""
    metric: Metric | None = None
    """What is watched; docs/alerts.md says what each is. A new rule needs it."""
    server: Name | None = None
    """Key under `servers`; absent: all together or, of breakers, pools and queues, each by itself."""
    comparison: Comparison = ">"
    """How the value stands to `threshold` while it is not well."""
    threshold: Number | None = None
    """In the unit of the metric: shares from 0 to 1, times in milliseconds. A new rule needs it."""
    clear: Number | None = None
    """The value is well again here or beyond; absent: a tenth of `threshold` before it."""
    window: PositiveDuration = 300.0
    """Of the traffic of so long the value is made; of other metrics it is what is seen."""
    min_requests: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """With fewer requests within `window` there is no value."""
    holds_for: Duration = 0.0
    """The value must have been not well for so long."""
    keep_firing_for: Duration = 0.0
    """The value must have been well for so long until the alert ends."""
    cooldown: Duration = 900.0
    """Shortest time between two notifications that it begins; in between it is logged and recorded only."""
    severity: Severity = "medium"
    """How much it matters."""


_WRITTEN: Final[dict[str, dict[str, object]]] = {
    "error_rate": {
        "metric": "error_rate", "threshold": 0.05, "clear": 0.02, "min_requests": 20, "holds_for": "1m",
        "keep_firing_for": "1m", "severity": "high",
    },
    "p99": {
        "metric": "p99_ms", "threshold": 10_000, "min_requests": 20, "holds_for": "2m", "keep_firing_for": "1m",
    },
    "breaker_open": {
        "metric": "breaker_open", "comparison": ">=", "threshold": 1, "clear": 0, "keep_firing_for": "30s",
        "severity": "high",
    },
    "spool_half_full": {"metric": "spool_share", "threshold": 0.5, "clear": 0.4},
    "spool_nearly_full": {"metric": "spool_share", "threshold": 0.8, "clear": 0.7, "severity": "critical"},
    "postgres_away": {
        "metric": "postgres_away", "comparison": ">=", "threshold": 1, "clear": 0, "holds_for": "5s",
        "severity": "critical",
    },
    "redis_away": {
        "metric": "redis_away", "comparison": ">=", "threshold": 1, "clear": 0, "holds_for": "5s", "severity": "high",
    },
    "loop_lag": {
        "metric": "loop_lag_ms", "threshold": 250, "clear": 100, "holds_for": "10s", "severity": "high",
    },
}  # fmt: skip
DEFAULTS: Final = {name: AlertRule.model_validate(written) for name, written in _WRITTEN.items()}


def _https_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or " " in url or "@" in parts.netloc or "#" in url:
        raise ValueError("the URL of a webhook looks like https://host[:port]/path, without user and fragment")
    return value


def _signing_key(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _KEY_LENGTH:
        raise ValueError(f"a secret that signs has {_KEY_LENGTH} or more characters")
    return value


class Webhook(Model):
    """Somebody who is told of alerts over HTTP."""

    url: Annotated[Secret, AfterValidator(_https_url)]
    """Where notifications are posted to, or `file:PATH`; redirects are not followed."""
    secret: Annotated[Secret, AfterValidator(_signing_key)]
    """Signs each notification (HMAC-SHA256); the receiver has the same."""
    headers: dict[FieldName, FieldValue] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """Sent besides, such as a credential."""
    min_severity: Severity = "low"
    """Alerts below it are not told."""
    tenants: bool = False
    """Whether tenants may name it in the `channels` of their own alerts."""
    timeout: PositiveDuration = 5.0
    """Longest time of one try, from the name look-up to the answer."""
    give_up_after: PositiveDuration = 3600.0
    """How long a notification is tried again and again."""
    allow_http: bool = False
    """Permit an http:// URL."""
    allow_private_networks: Networks = ()
    """Networks in which the receiver may stand although they are not public."""
    ca: File | None = None
    """PEM file with the authorities to trust; absent: the system's."""

    @model_validator(mode="after")
    def _url_is_permitted(self) -> Webhook:
        url = self.url.get_secret_value()
        if not self.allow_http and not url.startswith("https://"):
            raise ValueError("'url' is https://, or 'allow_http' is set")
        if self.ca is not None and not url.startswith("https://"):
            raise ValueError("'ca' needs an https:// URL")
        try:
            Reachable(self.allow_private_networks).check_url(url)
        except ValueError:
            raise ValueError(
                "the address in 'url' is not public; list its network in 'allow_private_networks' to permit it"
            ) from None
        return self


class Alerts(Model):
    """What is watched in the background, and who is told. Each process watches what it sees itself."""

    enabled: bool = True
    """`false`: nothing is watched."""
    interval: PositiveDuration = 5.0
    """From one look to the next: 500ms to 1h."""
    rules: Annotated[dict[Name, AlertRule], Field(max_length=200)] = {}  # noqa: RUF012
    """Changes of the rules that are there anyway (docs/alerts.md lists them), and further ones."""
    webhooks: Annotated[dict[Name, Webhook], Field(max_length=20)] = {}  # noqa: RUF012
    """Who is told, by a name of your choice."""

    @property
    def in_force(self) -> dict[str, AlertRule]:
        """Every rule that is on: those that are there anyway, as they were changed, and the others."""
        merged = {name: merge(name, rule) for name, rule in {**DEFAULTS, **self.rules}.items()}
        return {name: rule for name, rule in merged.items() if rule.enabled and self.enabled}

    @model_validator(mode="after")
    def _makes_sense(self) -> Alerts:
        shortest, longest = _INTERVALS
        if not shortest <= self.interval <= longest:
            raise ValueError("'interval' is 500ms to 1h")
        for name, written in self.rules.items():
            rule = merge(name, written)
            if rule.metric is None or rule.threshold is None:
                raise ValueError(f"rule '{name}' needs 'metric' and 'threshold'")
            if not on_the_good_side(rule.comparison, rule.threshold, clear_of(rule)):
                raise ValueError(f"'clear' of rule '{name}' is on the wrong side of its 'threshold'")
        return self


def merge(name: str, written: AlertRule) -> AlertRule:
    """A rule with what it does not say from the one of this name that is there anyway."""
    default = DEFAULTS.get(name)
    if default is None:
        return written
    keep = set(written.model_fields_set)
    if "threshold" in keep and "clear" not in keep and written.threshold != default.threshold:
        default = default.model_copy(update={"clear": None})  # it belonged to the other threshold
    return default.model_copy(update={key: getattr(written, key) for key in keep})


def clear_of(rule: AlertRule) -> float:
    """Where the value is well again; of a rule with a threshold."""
    assert rule.threshold is not None  # noqa: S101 - the validator of `Alerts` has seen to it
    return rule.clear if rule.clear is not None else before(rule.comparison, rule.threshold)


def before(comparison: str, threshold: float) -> float:
    """A tenth of the threshold on its good side, so that a value that dances around it does not flap."""
    slack = abs(threshold) * _SLACK
    return threshold - slack if comparison.startswith(">") else threshold + slack


def on_the_good_side(comparison: str, threshold: float, clear: float) -> bool:
    """Whether a clear threshold makes sense: not beyond the other one."""
    return clear <= threshold if comparison.startswith(">") else clear >= threshold
