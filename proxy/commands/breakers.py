"""The commands `breakers list | open | close | release`.

Owns what is shown of breakers, and the words. The orders are rows, which every running proxy hears of at once.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Final

from proxy.commands.connection import change
from proxy.commands.console import DONE, load_config, remark, show_json, show_table
from proxy.store import breaker_orders, tenants
from proxy.store.breaker_orders import Order

_HEADINGS: Final = (
    "TENANT", "SERVER", "INSTANCE", "STATE", "FAILURES", "TRIPS", "SINCE", "NEXT ATTEMPT", "LAST FAILURE", "SEEN",
    "ORDER",
)  # fmt: skip
_COLUMNS: Final = (
    "tenant", "server", "instance", "state", "failures", "trips", "since", "next_attempt", "last_failure", "updated",
    "order",
)  # fmt: skip


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    return {"list": _list, "open": _order, "close": _order, "release": _release}[given.action](given)


def _list(given: Namespace) -> int:
    rows = change(load_config(given), lambda session: breaker_orders.listed(session, given.tenant))
    for row in rows:
        if row["state"] == "closed":  # when it was open last is no news of what it is now
            row["since"] = row["next_attempt"] = None
    if given.json:
        show_json(rows)
        return DONE
    show_table(_HEADINGS, [[{**row, "order": _order_of(row)}[column] for column in _COLUMNS] for row in rows])
    return DONE


def _order_of(row: dict[str, Any]) -> str | None:
    """The order in force, with its reason."""
    ordered, reason = row["ordered"], row["reason"]
    return f"{ordered}: {reason}" if ordered and reason else ordered


def _order(given: Namespace) -> int:
    order: Order = "open" if given.action == "open" else "closed"
    slug = given.tenant or tenants.SYSTEM
    change(
        load_config(given), lambda session: breaker_orders.give(session, slug, given.server, order, given.reason)
    )  # fmt: skip
    remark("open until 'breakers close' or 'breakers release'" if order == "open" else "closed")
    return DONE


def _release(given: Namespace) -> int:
    slug = given.tenant or tenants.SYSTEM
    ended = change(load_config(given), lambda session: breaker_orders.end(session, slug, given.server))
    remark("left to itself" if ended else "left to itself already")
    return DONE
