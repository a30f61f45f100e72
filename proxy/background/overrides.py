"""Settings that rows of `system_configs` change at run time, put in force as a reload of the file puts them.

Owns the configuration of the file beside the one in force, and which rows speak for whom. What may be set, and to what,
is `config/overrides.py`'s; who builds and swaps is `renewal.py`. Rows come with the registry: at once when they change,
and from its copy on disk while PostgreSQL is away. A row that cannot be used is told of once and costs nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from proxy.background.renewal import Built, Renewal
from proxy.config.models import Config
from proxy.config.overrides import Outcome, Override, overridden
from proxy.dataplane.admission import Change, Rows
from proxy.identity.records import SYSTEM_TENANT
from proxy.metrics import Family

TABLE: Final = "system_configs"
_TENANTS: Final = "tenants"
_NOTHING: Final[Mapping[str, Any]] = {}


class Overrides:
    """Stands between those who bring a configuration or rows, and the renewal. Its methods are the renewal's; those
    without `await` may run in a thread, by whoever has its `turn`."""

    def __init__(
        self,
        renewal: Renewal,
        config: Config,
        put: Callable[[Built], object],
        report: Callable[[Collection[str]], object],
    ) -> None:
        """`config` is the file's, and in force. `put` is called with what is to be swapped in when rows change
        settings; `report` with a line for each row that is left out, when these are others than before."""
        self._renewal = renewal
        self._put = put
        self._report = report
        self._file = config
        self._outcome = Outcome(config)
        self._reported: tuple[str, ...] = ()
        #: The tables that the outcome is of.
        self._rows = _NOTHING
        self._tenants = _NOTHING

    @property
    def outcome(self) -> Outcome:
        """The configuration with the settings of rows, which these are, and what is left out."""
        return self._outcome

    def build(self, config: Config) -> Built:
        """Everything anew for what is in the file now. Raises OSError or ValueError as `Renewal.build`."""
        outcome = overridden(config, _overrides(self._rows, self._tenants))
        built = self._renewal.build(outcome.config)
        self._file, self._outcome = config, outcome
        return built

    def swap(self, built: Built) -> None:
        """Put it in force for every request that begins from now on."""
        self._renewal.swap(built)
        self._tell()

    async def apply(self, rows: Rows, changes: Collection[Change] | None) -> None:
        """Put rows in force, as `Renewal.apply`; then the settings among them, if they are others than before."""
        await self._renewal.apply(rows, changes)
        async with self._renewal.turn:
            found = rows.get(TABLE, _NOTHING), rows.get(_TENANTS, _NOTHING)
            if found[0] is self._rows and (found[1] is self._tenants or not found[0]):
                return
            self._rows, self._tenants = found
            built = await asyncio.to_thread(self._rebuilt)
            if built is not None:
                self._put(built)
            self._tell()

    def _rebuilt(self) -> Built | None:
        """What the rows make of the file's configuration; None when that is in force already."""
        outcome, before = overridden(self._file, _overrides(self._rows, self._tenants)), self._outcome
        if outcome.config == before.config:
            self._outcome = Outcome(before.config, outcome.accepted, outcome.problems)
            return None
        try:
            built = self._renewal.build(outcome.config)
        except (OSError, ValueError) as error:  # a file of the configuration is gone: nobody's fault here
            why = f"settings of rows wait until the configuration can be used: {error}"
            self._outcome = Outcome(before.config, before.accepted, (*outcome.problems, why))
            return None
        self._outcome = outcome
        return built

    def _tell(self) -> None:
        problems = self._outcome.problems
        if problems != self._reported:
            self._reported = problems
            self._report(problems)


def _overrides(rows: Mapping[str, Any], tenants: Mapping[str, Any]) -> Iterator[Override]:
    """Rows of the system tenant are for everyone; those of others for them, while they are served."""
    for row in rows.values():
        if row.tenant_id == SYSTEM_TENANT:
            yield Override(row.key, row.value)
        elif row.tenant_id in tenants and tenants[row.tenant_id].status == "active":
            yield Override(row.key, row.value, tenants[row.tenant_id].slug)


def families(outcome: Outcome) -> Iterator[Family]:
    """The metrics of settings."""
    counts = {"in_force": len(outcome.accepted), "left_out": len(outcome.problems)}
    rows = [(f'{{state="{state}"}}', float(count)) for state, count in counts.items()]
    yield Family(
        "gauge", "mcp_proxy_setting_rows", "Rows that set something at run time, and what became of them", rows
    )
