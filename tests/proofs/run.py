"""Every proof in full length: what was measured against its target; the last line printed is `failed: N`.

python -m tests.proofs.run [--short] [--only NAME ...]

Takes half an hour and wants the machine for itself.
"""

from __future__ import annotations

import sys
from typing import Final

from tests.proof_runner import Proofs

PROOFS: Final = Proofs(
    "tests.proofs.run",
    __doc__,
    {
        "reloads": "tests.proofs.reloads:figures",
        "drain": "tests.proofs.drain:figures",
        "stale": "tests.proofs.stale:figures",
        "isolation": "tests.proofs.isolation:figures",
        "revocation": "tests.proofs.revocation:figures",
        "outages": "tests.proofs.outages:figures",
        "strangers": "tests.proofs.strangers:figures",
        "alerts": "tests.proofs.alerts:figures",
        "record-size": "tests.proofs.record_size:figures",
    },
    {name: f"benchmarks.{name}" for name in ("latency", "idle_streams", "disconnect", "key_timing", "identity_cost")},
)

if __name__ == "__main__":
    sys.exit(PROOFS.main())
