"""Killed between a commit and its checkpoint, again and again: what is shipped twice is there once (D5).

One process after the other records calls of fifty tenants, ships them, takes over what those before have left, and is
killed: mostly just when rows are committed and no checkpoint says so yet, and at any moment every third time. In the
end all that was acknowledged is compared with the rows, and the trail is verified by the command that anyone would use.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.rig import Figure
from proxy.spool import layout
from proxy.spool.kinds import fields_of
from proxy.spool.quarantine import Quarantine
from tests.harness import ROOT
from tests.proofs.known import config
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

_LIFE: Final = "tests.chaos.shipping_life"
_PATIENCE_S: Final = 120.0
#: Chains whose end nobody has signed: they could be cut unseen.
_UNSIGNED: Final = """SELECT DISTINCT segment, tenant_id FROM audit_logs EXCEPT
                      SELECT segment, tenant_id FROM audit_heads WHERE is_final"""


@dataclass
class Lives:
    """How the processes ended."""

    killed_at_commit: int = 0
    killed_anywhere: int = 0
    ended: int = 0
    failed: list[str] = field(default_factory=list)


def figures(short: bool) -> list[Figure]:
    """D5."""
    return asyncio.run(_measure(2 if short else 45, 450 if short else 2_500))


async def _measure(kills: int, calls: int) -> list[Figure]:
    draw, lives = random.Random(5), Lives()
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as folder:
        state = Path(folder) / "state"
        state.mkdir()
        async with migrated_database() as name:
            dsn = login_dsn(name)
            await execute(owner_dsn(name), "SELECT create_partitions()")
            for number in range(kills):
                anywhere = number % 3 == 2
                kill_at = 0 if anywhere else draw.randrange(1, 2 + calls // 150)
                after_s = draw.uniform(0.5, 2.0) if anywhere else _PATIENCE_S
                await asyncio.to_thread(_live, _command(dsn, state, calls, kill_at), after_s, lives)
            await asyncio.to_thread(_live, _command(dsn, state, calls, 0), _PATIENCE_S, lives)
            verified = await asyncio.to_thread(_verified, state, dsn)
            compared = await _compared(owner_dsn(name), state, lives)
    print(f"  {lives.killed_at_commit} killed between commit and checkpoint, {lives.killed_anywhere} at any moment, "
          f"{lives.ended} ended by themselves")  # fmt: skip
    for text in lives.failed:
        print(f"  {text}")
    return [
        *compared,
        Figure("replay: 'audit verify' has found something; its exit status", verified, 0, ""),
        Figure("replay: processes that failed by themselves", len(lives.failed), 0, ""),
        Figure("replay: kills at the fault point that did not happen", not lives.killed_at_commit, 0, ""),
    ]


def _command(dsn: str, state: Path, calls: int, kill_at: int) -> Sequence[str]:
    return (sys.executable, "-m", _LIFE, dsn, str(state), str(state / "acknowledged"), str(calls), str(kill_at))


def _live(command: Sequence[str], after_s: float, lives: Lives) -> None:
    """One process from its beginning to its end, or until it is killed."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        try:
            _, said = child.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            lives.killed_anywhere += 1
            return
    if child.returncode == -signal.SIGKILL:
        lives.killed_at_commit += 1
    elif child.returncode:
        lives.failed.append(f"exit status {child.returncode}: {said.decode()[-500:]}")
    else:
        lives.ended += 1


def _verified(state: Path, dsn: str) -> int:
    """Exit status of `mcp-manager audit verify`."""
    path = state / "config.yaml"
    path.write_text(yaml.safe_dump(config(dsn, 9, str(state))))
    command = [sys.executable, "-m", "proxy", "audit", "verify", "-c", str(path), "--since", "1d"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    print("  " + " / ".join((done.stdout + done.stderr).strip().splitlines()[-4:]))
    return done.returncode


async def _compared(dsn: str, state: Path, lives: Lives) -> list[Figure]:
    acknowledged = {tuple(line.split()) for line in (state / "acknowledged").read_text().splitlines()}
    aside = {(about["kind"], about["id"]) for about in map(_about, Quarantine(state / "spool").entries())}
    rows, unknown = Counter[tuple[str, str]](), set[str]()
    for row in await execute(dsn, "SELECT kind, id, outcome FROM audit_logs"):
        rows[row["kind"], str(row["id"])] += 1
        if row["outcome"] == "unknown":
            unknown.add(str(row["id"]))
    requests = Counter(str(row["id"]) for row in await execute(dsn, "SELECT id FROM request_logs"))
    ends = {name for kind, name in rows if kind == "outcome"}
    missing = [each for each in acknowledged if each not in rows and each not in aside]
    both = [each for each in rows if each in aside]
    made_up = [each for each in rows if each not in acknowledged and each[1] not in unknown]
    open_ = [name for kind, name in rows if kind == "intent" and name not in ends and ("outcome", name) not in aside]
    left = layout.journals(state / "spool")
    print(f"  {len(acknowledged)} records acknowledged, {rows.total()} rows, {len(unknown)} of them unknown ends, "
          f"{len(aside)} set aside")  # fmt: skip
    unsigned = await execute(dsn, _UNSIGNED)
    return [
        Figure("replay: records acknowledged and missing", len(missing), 0, ""),
        Figure("replay: rows that are there twice", sum(count > 1 for count in rows.values()), 0, ""),
        Figure("replay: rows of requests that are there twice", sum(count > 1 for count in requests.values()), 0, ""),
        Figure("replay: ends without a row of the request", len(ends ^ set(requests)), 0, ""),
        Figure("replay: set aside, and a row all the same", len(both), 0, ""),
        Figure(
            "replay: rows that were written and not acknowledged (one a kill)",
            len(made_up),
            lives.killed_at_commit + lives.killed_anywhere,
            "",
        ),
        Figure("replay: beginnings without an end", len(open_), 0, ""),
        Figure("replay: chains without a signed end", len(unsigned), 0, ""),
        Figure("replay: journals that are left", len(left), 0, ""),
    ]


def _about(entry: Any) -> dict[str, Any]:
    return fields_of(entry.record)


if __name__ == "__main__":
    from benchmarks.rig import conclude

    sys.exit(conclude(figures(short="--short" in sys.argv)))
