"""The commands `alerts list | test`: what is watched, what fires, and whether those who are told can be reached.

Owns what an operator is shown: rules of the configuration beside those of rows, and what instances of the proxy wrote
down. Reads of its arguments: `action`; for `list`: `tenant` (a slug or None), `firing`, `past` and `limit`; for `test`:
`webhook` (a name or None). Both have `json`.
"""

from __future__ import annotations

import asyncio
import os
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from proxy.background.alert_states import Episode, Notice, Rule
from proxy.background.webhook_sender import Outcome, Sender, body_of
from proxy.commands.connection import change
from proxy.commands.console import DONE, Misuse, load_config, remark, show_json, show_table
from proxy.config.alerts import Alerts, Webhook, clear_of
from proxy.config.models import Config
from proxy.config.overrides import Override, overridden
from proxy.config.units import duration_text
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.store import alerts, system_configs, tenants
from proxy.store.database import Session

_FAILED: Final = 1
_EVENT_COLUMNS: Final = (
    "tenant", "name", "server", "instance", "value", "threshold", "severity", "started_at", "resolved_at", "ended"
)  # fmt: skip


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    return {"list": _list, "test": _test}[given.action](given)


# --- list -----------------------------------------------------------------------------------------------------------


def _list(given: Namespace) -> int:
    config = load_config(given)
    if given.firing or given.past:
        rows = change(
            config, lambda session: alerts.events(session, given.tenant, past=given.past, most=min(given.limit, 10_000))
        )
        _show(given, rows, _EVENT_COLUMNS)
        return DONE
    stored: list[dict[str, Any]] = []
    if config.postgres is not None:
        stored, settings = change(config, lambda session: _stored(session, given.tenant))
        config = overridden(config, settings).config  # as it is in force
    elif given.tenant not in (None, tenants.SYSTEM):
        raise Misuse("there are no tenants without 'postgres' in the configuration")
    rules = list(_of_file(config.alerts)) if given.tenant in (None, tenants.SYSTEM) else []
    rules += [{"from": "row", **row, "state": row["state"] if row["is_enabled"] else "off"} for row in stored]
    if given.json:
        show_json(rules)
        return DONE
    headings = ("FROM", "TENANT", "NAME", "SERVER", "CONDITION", "FOR", "SEVERITY", "STATE", "LAST VALUE")
    show_table(headings, [_cells(rule) for rule in rules])
    return DONE


async def _stored(session: Session, tenant: str | None) -> tuple[list[dict[str, Any]], list[Override]]:
    """Rules that are rows, and settings that rows change for everyone."""
    settings = await system_configs.listed(session, tenants.SYSTEM)
    return await alerts.listed(session, tenant), [Override(each.key, each.value) for each in settings]


def _of_file(settings: Alerts) -> Iterator[dict[str, Any]]:
    """Rules in force, with the columns of rows; how they stand is not known here."""
    for name, rule in settings.in_force.items():
        yield {
            "from": "file", "tenant": tenants.SYSTEM, "name": name, "server": rule.server, "metric": rule.metric,
            "comparison": rule.comparison, "threshold": rule.threshold, "clear_threshold": clear_of(rule),
            "window_s": rule.window, "for_s": rule.holds_for, "keep_firing_s": rule.keep_firing_for,
            "cooldown_s": rule.cooldown, "min_requests": rule.min_requests, "severity": rule.severity,
            "channels": sorted(settings.webhooks), "state": None, "last_value": None, "last_triggered_at": None,
            "is_enabled": True,
        }  # fmt: skip


def _cells(rule: Mapping[str, Any]) -> list[object]:
    condition = f"{rule['metric']} {rule['comparison']} {rule['threshold']:g}"
    waits = duration_text(rule["for_s"])
    return [
        rule["from"], rule["tenant"], rule["name"], rule["server"], condition, waits, rule["severity"], rule["state"],
        rule["last_value"],
    ]  # fmt: skip


def _show(given: Namespace, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
    if given.json:
        show_json(list(rows))
        return
    names = list(columns)
    show_table([name.replace("_", " ").upper() for name in names], [[row[name] for name in names] for row in rows])


# --- test -----------------------------------------------------------------------------------------------------------


def _test(given: Namespace) -> int:
    found = asyncio.run(_send(_wanted(load_config(given), given.webhook)))
    if given.json:
        show_json(
            [{"webhook": name, "delivered": each.delivered, "reason": each.reason or None} for name, each in found]
        )
    else:
        show_table(("WEBHOOK", "TEST"), [(name, each.reason or "taken") for name, each in found])
    return DONE if all(each.delivered for _, each in found) else _FAILED


def _wanted(config: Config, name: str | None) -> Mapping[str, Webhook]:
    webhooks = config.alerts.webhooks
    if not webhooks:
        raise Misuse("there are no webhooks: docs/alerts.md shows how to configure one")
    if name is None:
        return webhooks
    if name not in webhooks:
        raise Misuse(f"there is no webhook of this name; there are: {', '.join(sorted(webhooks))}")
    return {name: webhooks[name]}


async def _send(webhooks: Mapping[str, Webhook]) -> list[tuple[str, Outcome]]:
    """One try each, all at the same time."""
    remark("sending an alert of the name 'test'")
    outcomes = await asyncio.gather(*(_try(webhook) for webhook in webhooks.values()))
    return list(zip(webhooks, outcomes, strict=True))


async def _try(webhook: Webhook) -> Outcome:
    ids, now = RecordIds(time.time, os.urandom), time.time()
    rule = Rule("test", "test", SYSTEM_TENANT, tenants.SYSTEM, "error_rate", ">", 0.0, 0.0, severity="low")
    notice = Notice(ids.new(), "firing", now, Episode(ids.new(), rule, "", "command line", now, 1.0))
    try:
        sender = Sender(webhook, time.time)
    except OSError as error:
        return Outcome(False, f"its authorities cannot be read ({type(error).__name__})")
    try:
        return await sender.send(body_of(notice), str(notice.id))
    finally:
        await sender.close()
