"""`make limits-proof` counts what misses its target; here each proof runs in its short form."""

from __future__ import annotations

import pytest

from tests.limits import outages
from tests.limits.run import PROOFS
from tests.limits.valkey import valkey


@pytest.mark.alone
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", PROOFS.functions)
def test_a_proof_meets_its_targets_in_its_short_form(name: str) -> None:
    """A few seconds; what the noise of a machine spoils has wider targets there."""
    assert PROOFS.run(name, short=True) == 0


async def test_a_jump_that_admitted_more_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both clocks: as many as pass beyond what is expected, or fall short of it."""
    monkeypatch.setattr(outages, "_STEPS", ((0, 90), (1, 50), (outages.DAY_S, 97)))
    assert set((await outages.jumps()).values()) == {13}


async def test_a_redis_that_is_away_does_not_answer() -> None:
    """Killed, it does not; started again it does, and has lost what it held."""
    async with valkey() as redis:
        await redis.kill()
        assert not await redis.answers()
        await redis.start()
        assert await redis.answers()
        assert await redis.client.dbsize() == 0
