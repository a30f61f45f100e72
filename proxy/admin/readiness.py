"""Whether this process should get traffic: a set of named checks, each set by whoever knows.

Owns the answer of /readyz and nothing else; it asks nobody.
"""

from __future__ import annotations


class Readiness:
    """Ready once every check is well. The checks named at the start are not, until somebody says so."""

    def __init__(self, *required: str) -> None:
        self._checks: dict[str, tuple[bool, str]] = {name: (False, "starting") for name in required}

    def set(self, name: str, ok: bool, detail: str = "") -> None:
        """Report a check; `detail` says why it is not well, in words that may be shown on the admin port."""
        self._checks[name] = (ok, detail)

    def ready(self) -> tuple[bool, dict[str, dict[str, object]]]:
        """The verdict, and every check as `{"ok": ..., "detail": ...}`."""
        checks: dict[str, dict[str, object]] = {}
        for name, (ok, detail) in self._checks.items():
            checks[name] = {"ok": ok, "detail": detail} if detail else {"ok": ok}
        return all(ok for ok, _ in self._checks.values()), checks
