"""Prometheus rules and dashboard name metrics that exist, and take each for what it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from proxy.metrics import OUTCOMES

ROOT: Final = Path(__file__).resolve().parent.parent
RULES: Final[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/prometheus-rules.yml").read_text())
DASHBOARD: Final[dict[str, Any]] = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
#: Pages that list metrics; tests of the exposition hold the first to what the port shows.
PAGES: Final = ("docs/operations.md", "docs/usage.md")
#: How code declares one: in full, or through the short forms of backend_metrics.py.
DECLARED: Final = re.compile(
    r'(?:Family|single|keyed)\(\s*"(counter|gauge|histogram)",\s*"(?:mcp_proxy_)?(\w+)"', re.MULTILINE
)
NAME: Final = re.compile(r"(?<![\w:])(?:mcp_proxy|process|python)_\w+")
RECORDED: Final = re.compile(r"\b\w+:\w+:\w+\b")
#: Functions that take counters, and what they are called with.
OF_COUNTERS: Final = re.compile(r"\b(?:rate|increase)\((\w+)")


def known() -> dict[str, str]:
    """Name -> type of every metric that a page lists, or that the source declares by its whole name."""
    rows = re.findall(
        r"^\| `(mcp_proxy_\w+)` \| (counter|gauge|histogram) \|",
        "".join((ROOT / page).read_text() for page in PAGES),
        re.MULTILINE,
    )
    found = dict(rows)
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        for kind_of, name in DECLARED.findall(path.read_text()):
            found[f"mcp_proxy_{name}_total" if kind_of == "counter" else f"mcp_proxy_{name}"] = kind_of
    return found


KINDS: Final = known()
#: Of the client library: ProcessCollector.
OTHERS: Final = {"process_cpu_seconds_total": "counter", "process_resident_memory_bytes": "gauge"}


def panels() -> list[dict[str, Any]]:
    """Panels that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    """Alerts and recorded series."""
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Everything that Prometheus is asked."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    variables = [each["definition"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    notes = [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    return [rule["expr"] for rule in rules()] + shown + variables + notes


def kind(name: str) -> str | None:
    """Type of the metric that this series belongs to; None for one that does not exist."""
    family = re.sub(r"_(bucket|sum|count)$", "", name)
    if family != name:
        return "histogram" if KINDS.get(family) == "histogram" else None
    return OTHERS.get(name) or (None if KINDS.get(name) == "histogram" else KINDS.get(name))


def test_metrics_are_known() -> None:
    """Else the tests below would say nothing."""
    assert len(KINDS) > 80
    assert set(KINDS.values()) == {"counter", "gauge", "histogram"}
    assert all(name.endswith("_total") == (of == "counter") for name, of in KINDS.items())


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_exists(expression: str) -> None:
    """In the form that the port shows it in: histograms as buckets, sums and counts."""
    assert [name for name in NAME.findall(expression) if kind(name) is None] == []


@pytest.mark.parametrize("expression", expressions())
def test_only_what_grows_has_a_rate(expression: str) -> None:
    """The rate of a gauge means nothing, and that of a counter without one neither."""
    names = OF_COUNTERS.findall(expression)
    assert [name for name in names if kind(name) == "gauge"] == []


@pytest.mark.parametrize("expression", expressions())
def test_outcomes_are_those_there_are(expression: str) -> None:
    """A word that is none would select nothing, for ever."""
    for words in re.findall(r'outcome=~?"([^"]*)"', expression):
        assert set(words.split("|")) <= set(OUTCOMES)


def test_what_is_recorded_is_recorded_once_and_before_it_is_used() -> None:
    """Names have Prometheus' form level:metric:operations."""
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert len(recorded) == len(set(recorded))
    assert all(RECORDED.fullmatch(name) for name in recorded)
    used = {name for expression in expressions() for name in RECORDED.findall(expression)}
    assert used <= set(recorded)


def test_an_alert_says_how_bad_it_is_and_what_to_look_at() -> None:
    """Each has a name of its own."""
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({alert["alert"] for alert in alerts}) == len(alerts) > 10
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"].keys() == {"summary", "description"}


def test_panels_have_a_place_and_a_title_of_their_own() -> None:
    """None covers another."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identities) == len(set(identities))
    assert all(panel["title"] and panel["description"] for panel in panels())


def test_prometheus_loads_the_rules_that_compose_mounts() -> None:
    """Under the name that its configuration gives."""
    (path,) = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["rule_files"]
    volumes = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prometheus"]["volumes"]
    assert f"./deploy/prometheus-rules.yml:{path}:ro" in volumes
