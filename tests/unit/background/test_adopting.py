"""Journals that were left behind are put in order beside everything else; one that is no use stops nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.background import adopting
from proxy.background.adopting import Adopting
from proxy.spool import held, layout
from proxy.spool.adoption import Adopted
from tests.unit.background.shipped import Spoken, call, journal, named
from tests.unit.dataplane.fakes import Time

#: None of these tests waits for so long, seconds.
LONG_S = 10.0


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[tuple[Adopting, Spoken, Time]]:
    """With what is said, and the clock."""
    said, clock = Spoken(), Time()
    adopts = Adopting(tmp_path, said, clock)  # type: ignore[arg-type]
    yield adopts, said, clock
    adopts.close()


async def test_each_is_had_once_the_oldest_first(bench: tuple[Adopting, Spoken, Time], tmp_path: Path) -> None:
    """Those that somebody holds are not had."""
    paths = [journal(tmp_path, call(1), name=named(name)) for name in "abc"]
    holding = held.take(paths[1])
    assert holding is not None
    found = [await bench[0].next(LONG_S) for _ in range(3)]
    assert [each and each.path for each in found] == [paths[0], paths[2], None]
    holding.release()


async def test_when_there_was_none_it_looks_again_in_a_while(
    bench: tuple[Adopting, Spoken, Time], tmp_path: Path
) -> None:
    """Two seconds later."""
    adopts, _, clock = bench
    assert await adopts.next(LONG_S) is None
    journal(tmp_path, call(1), name=named("j"))
    assert await adopts.next(LONG_S) is None
    clock.now += 2.0
    assert await adopts.next(LONG_S) is not None


async def test_nobody_waits_for_one_that_takes_long(
    bench: tuple[Adopting, Spoken, Time], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is had when it is ready."""
    ready, adopt = threading.Event(), adopting.adopt

    def slowly(path: Path, rest: Any) -> Adopted | None:
        ready.wait(LONG_S)
        return adopt(path, rest)

    monkeypatch.setattr(adopting, "adopt", slowly)
    path = journal(tmp_path, call(1), name=named("j"))
    adopts = bench[0]
    for _ in range(3):
        assert await adopts.next(0.0) is None
        assert adopts.busy
    ready.set()
    found = await adopts.next(LONG_S)
    assert found is not None
    assert (found.path, adopts.busy) == (path, False)


async def test_one_that_cannot_be_used_is_left_alone_for_a_while(
    bench: tuple[Adopting, Spoken, Time], tmp_path: Path
) -> None:
    """The others go on, and later it is tried again."""
    bad, good = (journal(tmp_path, name=named(name)) for name in ("a", "b"))
    (bad / layout.SEALED).unlink()
    layout.segment_path(bad, 1).mkdir()  # reading it fails
    adopts, said, clock = bench
    assert await adopts.next(LONG_S) is None
    assert (adopts.avoided, adopts.failures, said.lines) == ({bad}, 1, ["journal cannot be used"])
    assert not held.is_held(bad)
    clock.now += 2.0
    found = await adopts.next(LONG_S)
    assert found is not None
    assert found.path == good
    assert await adopts.next(LONG_S) is None
    layout.segment_path(bad, 1).rmdir()
    clock.now += 60.0
    found = await adopts.next(LONG_S)
    assert found is not None
    assert found.path == bad


async def test_one_whose_lock_cannot_be_had_is_no_use_either(
    bench: tuple[Adopting, Spoken, Time], tmp_path: Path
) -> None:
    """Nor does it keep the others from being found."""
    bad, good = (journal(tmp_path, name=named(name)) for name in ("a", "b"))
    (bad / layout.LOCK).unlink()
    (bad / layout.LOCK).mkdir()
    adopts, said, clock = bench
    assert await adopts.next(LONG_S) is None
    assert (adopts.avoided, said.lines) == ({bad}, ["journal cannot be used"])
    clock.now += 2.0
    found = await adopts.next(LONG_S)
    assert found is not None
    assert found.path == good


async def test_a_bug_is_told_once_and_does_not_end_the_looking(
    bench: tuple[Adopting, Spoken, Time], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was about is tried again."""

    def broken(path: Path, rest: Any) -> Adopted | None:
        raise ValueError("a bug")

    path = journal(tmp_path, call(1), name=named("j"))
    with monkeypatch.context() as patched:
        patched.setattr(adopting, "adopt", broken)
        with pytest.raises(ValueError, match="a bug"):
            await bench[0].next(LONG_S)
    found = await bench[0].next(LONG_S)
    assert found is not None
    assert found.path == path


async def test_at_the_end_others_can_have_it(
    bench: tuple[Adopting, Spoken, Time], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it was half in order; nobody waits for that."""
    reached, go_on, rests = threading.Event(), threading.Event(), adopting.time.sleep

    def sleep(seconds: float) -> None:
        reached.set()
        go_on.wait(LONG_S)
        rests(0.0)

    monkeypatch.setattr(adopting.time, "sleep", sleep)
    path = journal(tmp_path, call(1), call(2), name=named("j"))
    (path / layout.SEALED).unlink()
    adopts = bench[0]
    assert await adopts.next(0.0) is None
    await asyncio.to_thread(reached.wait, LONG_S)
    running = adopts._running
    assert running is not None
    adopts.close()
    go_on.set()
    await asyncio.wait((running,))
    await asyncio.sleep(0)
    assert not held.is_held(path)
    assert not (path / layout.SEALED).exists()
