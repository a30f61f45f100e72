"""Every fault in full length: what the proxy did against its target; the last line printed is `failed: N`.

python -m tests.chaos.run [--short] [--only NAME ...]

Wants the machine for itself.
"""

from __future__ import annotations

import sys
from typing import Final

from tests.proof_runner import Proofs

PROOFS: Final = Proofs(
    "tests.chaos.run",
    __doc__,
    {
        "dead-server": "tests.chaos.dead_server:figures",  # F1
        "hung-server": "tests.chaos.hung_server:figures",  # F2
        "truncation": "tests.chaos.answers:truncation",  # F3
        "stale": "tests.proofs.stale:figures",  # F4
        "malformed": "tests.chaos.malformed:figures",  # F5
        "endless": "tests.chaos.endless:figures",  # F6
        "upload": "tests.chaos.upload:figures",  # F7
        "names": "tests.chaos.names:figures",  # F16
        "slow-clients": "tests.chaos.slow_clients:figures",  # F24
        "half-open": "tests.chaos.half_open:figures",  # F26
        "descriptors": "tests.chaos.descriptors:figures",  # F28
        "memory": "tests.chaos.stall:memory_figures",  # F29
        "stall": "tests.chaos.stall:figures",  # F30
        "overload": "tests.chaos.overload_proof:figures",  # F30
        "cancel-storm": "tests.chaos.cancel_storm:figures",  # F31
        "herd": "tests.chaos.herd:figures",  # F32
        "exactly-once": "tests.chaos.exactly_once:figures",
        "two-servers": "tests.chaos.two_servers:figures",
        "health-loops": "tests.chaos.health_loops:figures",
        "maintenance": "tests.chaos.maintenance_proof:figures",
        "record-stopped": "tests.chaos.durability:stopped",  # D1, D7
        "record-frozen": "tests.chaos.durability:held",  # D2, D7
        "record-torn": "tests.chaos.torn:figures",  # D3
        "record-small-disk": "tests.chaos.small_disk:figures",  # D4
        "record-replay": "tests.chaos.replay:figures",  # D5
        "record-machine": "tests.chaos.spool_machine:figures",  # D6
    },
    {
        "disconnect": "benchmarks.disconnect",  # F25
        "idle-streams": "benchmarks.idle_streams",  # F27
        "resilience-cost": "benchmarks.resilience_cost",
    },
)

if __name__ == "__main__":
    sys.exit(PROOFS.main())
