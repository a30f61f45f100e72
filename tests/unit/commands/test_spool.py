"""`spool status | replay | quarantine`."""

from __future__ import annotations

import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from proxy.commands import spool as commands
from proxy.spool import layout
from proxy.spool.adoption import adopt, orphans
from proxy.spool.checkpoint import Checkpoint, save
from proxy.spool.journal import Journal
from proxy.spool.quarantine import Entry, Quarantine
from tests.unit.commands.conftest import Operator
from tests.unit.spool.records import NOON, Wall, contents, journal_in, key_of, kill

ROWS = "SELECT id, kind, outcome, reason FROM audit_logs ORDER BY id, kind"


@pytest.fixture
def spool(operator: Operator) -> Path:
    """The spool of the operator's proxy."""
    return operator.config.parent / ".mcp-manager" / "spool"


def record_of(kind: str, number: int, **more: object) -> bytes:
    """A record that becomes a row."""
    return orjson.dumps(
        {
            "kind": kind, "id": key_of(number), "timestamp": "2026-11-22T12:00:00.000000Z", "method": "POST",
            "path": "/a/mcp", "rpc_method": "tools/call", "outcome": None if kind == "intent" else "ok", **more,
        }
    )  # fmt: skip


def begun(journal: Journal, *numbers: int) -> None:
    """Requests begin."""
    for number in numbers:
        assert journal.begin(key_of(number), record_of("intent", number), "standard")


def ended(journal: Journal, *numbers: int) -> None:
    """Requests end."""
    for number in numbers:
        assert journal.end(key_of(number), record_of("outcome", number), "standard")


def test_a_spool_that_is_not_there_is_empty(operator: Operator, spool: Path) -> None:
    """Looking makes nothing."""
    shown = operator.result("spool", "status")
    assert shown == {
        "spool": str(spool), "size": 0, "max_size": 1 << 30, "share": 0.0, "waiting": 0, "quarantined": 0,
        "quarantine_size": 0, "journals": [],
    }  # fmt: skip
    assert operator.result("spool", "replay")["journals"] == 0
    assert operator.result("spool", "quarantine") == []
    assert operator.result("spool", "quarantine", "--retry") == {"retried": 0}
    assert operator.run("spool", "quarantine", "--retry") == (0, "", "the quarantine is empty\n")
    assert not spool.exists()


def test_journals_are_listed_with_what_waits_in_them(operator: Operator, spool: Path) -> None:
    """Those in use and those left behind; what was shipped does not wait."""
    alive, dead = (journal_in(spool, wall=Wall(NOON + offset)) for offset in (0, 1))
    for journal in (alive, dead):
        begun(journal, 1)
        ended(journal, 1)
    kill(dead)
    size = layout.size_of(layout.segment_path(alive.path, 1))
    save(alive.path, Checkpoint(1, 100))
    save(dead.path, Checkpoint(2, 0))
    shown = operator.result("spool", "status")
    assert [(each["journal"], each["state"], each["segments"], each["waiting"]) for each in shown["journals"]] == [
        (alive.name, "in use", 1, size - 100), (dead.name, "left behind", 1, 0),
    ]  # fmt: skip
    assert (shown["size"], shown["waiting"]) == (2 * size, size - 100)
    assert shown["journals"][0]["since"] is not None
    assert shown["journals"][1]["since"] is None
    code, out, err = operator.run("spool", "status")
    assert code == 0
    assert out.splitlines()[0].split() == ["JOURNAL", "STATE", "SEGMENTS", "BYTES", "WAITING", "SINCE"]
    assert "in use" in out.splitlines()[1]
    assert "of 1GiB; 0 records in quarantine" in err
    kill(alive)


def test_what_a_process_left_behind_is_shipped(operator: Operator, spool: Path) -> None:
    """Also what it left open; what is in use is left to its process."""
    dead, alive = journal_in(spool), journal_in(spool)
    begun(dead, 1, 2)
    ended(dead, 1)
    kill(dead)
    begun(alive, 3)
    done = operator.result("spool", "replay")
    assert (done["journals"], done["records"], done["unknown"], done["away"]) == (1, 4, 1, "")
    found = [(row["id"], row["kind"], row["outcome"], row["reason"]) for row in operator.rows(ROWS)]
    assert [each for each in found if each[1] == "outcome"] == [
        (UUID(key_of(1)), "outcome", "ok", None), (UUID(key_of(2)), "outcome", "unknown", "crash"),
    ]  # fmt: skip
    assert len(found) == 4
    assert not dead.path.exists()
    assert operator.run("spool", "replay")[2] == "1 in use: their processes ship them\n"
    assert len(operator.rows(ROWS)) == 4
    kill(alive)


def test_what_postgresql_does_not_take_is_listed_and_put_back(operator: Operator, spool: Path) -> None:
    """Put back it is shipped; and only its own request is touched by it."""
    spool.mkdir(parents=True)
    quarantine = Quarantine(spool)
    assert quarantine.add(Entry(record_of("intent", 1), "no partition", NOON, "gone/7"))
    assert quarantine.add(Entry(b"\xff", "no JSON", NOON, "gone/7"))
    one, other = operator.result("spool", "quarantine")
    assert (one["request"], one["kind"], one["reason"], one["segment"]) == (
        key_of(1), "intent", "no partition", "gone/7"
    )  # fmt: skip
    assert one["at"].startswith("2026-11-22T12:00:00")
    assert (other["request"], other["kind"], other["size"]) == (None, None, 1)
    assert "no partition" in operator.run("spool", "quarantine")[1]
    code, out, err = operator.run("spool", "quarantine", "--retry")
    assert (code, out) == (0, "")
    assert err.startswith("2 records put back")
    assert operator.result("spool", "quarantine") == []
    assert operator.result("spool", "status")["journals"][0]["state"] == "left behind"
    done = operator.result("spool", "replay")
    assert (done["journals"], done["quarantined"], done["unknown"]) == (1, 1, 0)
    assert [(row["id"], row["kind"]) for row in operator.rows(ROWS)] == [(UUID(key_of(1)), "intent")]
    assert [each["segment"] for each in operator.result("spool", "quarantine")] != ["gone/7"]


def test_nobody_ships_what_is_in_the_quarantine_still(
    operator: Operator, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He would pass over it, and then it would be nowhere."""
    spool.mkdir(parents=True)
    assert Quarantine(spool).add(Entry(record_of("intent", 1), "no partition", NOON, "gone/7"))
    take_back, found = Quarantine.take_back, []

    def watched(self: Quarantine, put: Callable[[list[bytes]], bool]) -> int:
        def putting(records: list[bytes]) -> bool:
            kept = put(records)
            found.append((len(layout.journals(spool)), orphans(spool)))
            return kept

        return take_back(self, putting)

    monkeypatch.setattr(Quarantine, "take_back", watched)
    assert operator.result("spool", "quarantine", "--retry") == {"retried": 1}
    assert found == [(1, [])]
    assert len(orphans(spool)) == 1


def test_what_cannot_be_written_back_stays_in_quarantine(operator: Operator, spool: Path) -> None:
    """Nothing is forgotten before it is somewhere else."""
    spool.mkdir(parents=True)
    assert Quarantine(spool).add(Entry(record_of("intent", 1), "no partition", NOON, "gone/7"))
    from tests.unit.spool.test_writer import largest_file

    with largest_file(100):
        assert "they stay where they were" in operator.refused("spool", "quarantine", "--retry")
    assert len(operator.result("spool", "quarantine")) == 1


def test_who_is_interrupted_while_he_puts_records_back_loses_none(
    operator: Operator, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the quarantine, or in a journal, or in both, where whoever ships passes over them."""
    spool.mkdir(parents=True)
    assert Quarantine(spool).add(Entry(record_of("intent", 1), "no partition", NOON, "gone/7"))
    durable = Journal.durable

    async def interrupted(self: Journal) -> bool:
        signal.raise_signal(signal.SIGINT)
        return await durable(self)

    monkeypatch.setattr(Journal, "durable", interrupted)
    operator.run("spool", "quarantine", "--retry")
    kept = [entry.record for entry in Quarantine(spool).entries()]
    for path in layout.journals(spool):
        kept += contents(path)
    assert record_of("intent", 1) in kept


def test_a_beginning_that_was_put_back_is_not_open(
    operator: Operator, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is elsewhere: who finds the journal, however the command ended, makes no other one."""
    spool.mkdir(parents=True)
    assert Quarantine(spool).add(Entry(record_of("intent", 1), "no partition", NOON, "gone/7"))

    async def killed(self: Journal, *, remove: bool = False) -> int:
        kill(self)
        return 0

    monkeypatch.setattr(Journal, "close", killed)
    assert operator.result("spool", "quarantine", "--retry") == {"retried": 1}
    taken = adopt(orphans(spool)[0], lambda: None)
    assert taken is not None
    assert (taken.unknown, contents(taken.path)) == (0, [record_of("intent", 1)])
    taken.release()


def test_without_a_database_nothing_is_shipped(operator: Operator, spool: Path) -> None:
    """It says so, and what is there stays; status needs none."""
    dead = journal_in(spool)
    begun(dead, 1)
    kill(dead)
    config = orjson.loads(operator.config.read_bytes())
    config["postgres"]["dsn"] = "postgresql://nobody@127.0.0.1:1/none"
    operator.config.write_bytes(orjson.dumps(config))
    code, _, err = operator.run("spool", "replay")
    assert (code, "Traceback" in err) == (1, False)
    assert "not all could be shipped" in err
    assert operator.result("spool", "status")["journals"][0]["state"] == "left behind"
    del config["postgres"]
    operator.config.write_bytes(orjson.dumps(config))
    assert "postgres" in operator.refused("spool", "replay")
    assert operator.result("spool", "status")["waiting"] > 0


@pytest.mark.parametrize("spoilt", [layout.CHECKPOINT, layout.LOCK])
def test_a_journal_that_cannot_be_used_is_listed_beside_the_others(
    operator: Operator, spool: Path, spoilt: str
) -> None:
    """It is what the log told of, and why somebody looks."""
    bad, good = (journal_in(spool, wall=Wall(NOON + offset)) for offset in (0, 1))
    for journal in (bad, good):
        begun(journal, 1)
        kill(journal)
    (bad.path / spoilt).unlink(missing_ok=True)
    (bad.path / spoilt).mkdir()
    shown = operator.result("spool", "status")
    assert [(each["journal"], each["state"]) for each in shown["journals"]] == [
        (bad.name, "not usable"), (good.name, "left behind"),
    ]  # fmt: skip
    assert shown["size"] == 2 * shown["waiting"] > 0
    code, _, err = operator.run("spool", "replay")
    assert (code, f"{bad.name} cannot be used" in err, len(operator.rows(ROWS))) == (1, True, 2)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")], ids=str)
def test_an_output_that_cannot_be_written_is_not_the_spool(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """Such as a pipe without a reader; whoever runs commands says what it is."""

    def show_json(value: object) -> None:
        raise error

    monkeypatch.setattr(commands, "show_json", show_json)
    with pytest.raises(type(error)) as raised:
        commands.run(Namespace(action="status", json=True, config=operator.config))
    assert raised.value is error


def test_a_spool_that_cannot_be_read_is_said_in_a_sentence(operator: Operator, spool: Path) -> None:
    """Such as one that is no folder."""
    spool.parent.mkdir()
    spool.touch()
    for action in ("status", "replay"):
        assert "the spool cannot be used: [Errno 20]" in operator.refused("spool", action)
