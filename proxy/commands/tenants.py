"""The commands `tenants create | list | suspend | activate`."""

from __future__ import annotations

from argparse import Namespace

from proxy.commands.connection import change
from proxy.commands.console import DONE, load_config, remark, show_json, show_table
from proxy.store import tenants
from proxy.store.tenants import NewTenant


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    actions = {"create": _create, "list": _list, "suspend": _set_status, "activate": _set_status}
    return actions[given.action](given)


def _create(given: Namespace) -> int:
    wanted = NewTenant(given.slug, given.name or given.slug, given.plan, given.max_servers, given.max_keys)
    row = change(load_config(given), lambda session: tenants.create(session, wanted))
    if given.json:
        show_json(row)
    else:
        print(row["slug"])
        remark(f"made; next: mcp-manager keys create --tenant {row['slug']} --name NAME")
    return DONE


def _list(given: Namespace) -> int:
    rows = change(load_config(given), tenants.listed)
    if given.json:
        show_json(rows)
        return DONE
    columns = ("slug", "name", "status", "plan", "max_servers", "max_api_keys", "created_at")
    headings = ("TENANT", "NAME", "STATUS", "PLAN", "MAX SERVERS", "MAX KEYS", "MADE")
    show_table(headings, [[row[column] for column in columns] for row in rows])
    return DONE


def _set_status(given: Namespace) -> int:
    suspends = given.action == "suspend"
    work = tenants.suspend if suspends else tenants.activate
    changed = change(load_config(given), lambda session: work(session, given.slug))
    word = "suspended" if suspends else "active"
    remark(word if changed else f"{word} already")
    return DONE
