"""Every proof of the limits in full length: what was measured against its target; the last line is `failed: N`.

python -m tests.limits.run [--short] [--only NAME ...]

Takes some minutes. The figures of `cost` want the machine for themselves.
"""

from __future__ import annotations

import sys
from typing import Final

from tests.proof_runner import Proofs

PROOFS: Final = Proofs(
    "tests.limits.run",
    __doc__,
    {name: f"tests.limits.{name}:figures" for name in ("exactness", "fairness", "outages", "cost")},
)

if __name__ == "__main__":
    sys.exit(PROOFS.main())
