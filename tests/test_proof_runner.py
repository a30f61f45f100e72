"""The runner of proofs counts what misses its target, and what died before it could say so."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

import pytest

from benchmarks.rig import Figure
from tests.chaos.run import PROOFS as CHAOS
from tests.limits.run import PROOFS as LIMITS
from tests.proof_runner import Proofs
from tests.proofs.run import PROOFS as LONG


def well(short: bool) -> list[Figure]:
    """Meets its targets."""
    return [Figure("good", 1, 1, "s")]


def late(short: bool) -> list[Figure]:
    """Misses two of three."""
    return [*well(short), Figure("late", 2, 1, "s"), Figure("no number", float("nan"), 1, "s")]


def raises(short: bool) -> list[Figure]:
    """Is cut short by its own error."""
    raise ConnectionResetError("by the peer")


def dies(short: bool) -> NoReturn:
    """Takes its process with it."""
    os._exit(3)


SAMPLE: Final = Proofs(
    "tests.test_proof_runner",
    __doc__ or "",
    {name: f"tests.test_proof_runner:{name}" for name in ("dies", "raises", "late", "well")},
    {"script": "tests.test_proof_runner"},
)


def test_what_misses_and_what_dies_is_counted_and_the_others_run(capfd: pytest.CaptureFixture[str]) -> None:
    """One that died, one that raised, two figures, and as many again of a script that runs the first three."""
    assert SAMPLE.main(["--only", "dies", "raises", "late", "well"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "failed: 4"
    assert sum(line.startswith("failed:") for line in lines) == 1
    assert "  dies ended with 3, and did not say what failed" in lines
    assert "ConnectionResetError: by the peer" in lines
    assert [line.split()[-1] for line in lines if " target " in line] == ["ok", "MISSED", "MISSED", "ok"]


@pytest.mark.parametrize(("name", "failed"), [("raises", 1), ("late", 2), ("well", 0)])
def test_one_alone_is_counted_the_same(name: str, failed: int, capfd: pytest.CaptureFixture[str]) -> None:
    """It runs in the process that was asked; the exit status is 1 when something failed."""
    assert SAMPLE.main(["--only", name]) == (1 if failed else 0)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(f"--- {name}")
    assert lines[-1] == f"failed: {failed}"


@pytest.mark.parametrize(("short", "failed"), [([], 2), (["--short"], 1)])
def test_a_script_is_believed_what_it_says(short: list[str], failed: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Its last line is its count, and `--short` is passed on."""
    assert SAMPLE.main(["--only", "script", *short]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("--- script")
    assert lines[1] == f"ran with {short}"
    assert lines[-1] == f"failed: {failed}"


@pytest.mark.parametrize("proofs", [CHAOS, LIMITS, LONG], ids=["chaos", "limits", "proofs"])
def test_everything_that_is_listed_is_there(proofs: Proofs) -> None:
    """Modules can be loaded, and have the functions that are named."""
    assert all(callable(proofs.function(name)) for name in proofs.functions)
    assert sys.modules[proofs.module].PROOFS is proofs


def _as_script(arguments: list[str]) -> int:
    print(f"ran with {arguments}")
    print(f"failed: {1 if arguments else 2}")
    return 1


if __name__ == "__main__":
    sys.exit(SAMPLE.main() if "--only" in sys.argv else _as_script(sys.argv[1:]))
