"""How far a journal was shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.spool import checkpoint
from proxy.spool.checkpoint import Checkpoint
from proxy.spool.layout import CHECKPOINT


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """The last one counts."""
    assert checkpoint.load(tmp_path) == Checkpoint()
    for offset in (1, 77):
        checkpoint.save(tmp_path, Checkpoint(3, offset, {"tenant": [12, "ab"]}))
    assert checkpoint.load(tmp_path) == Checkpoint(3, 77, {"tenant": [12, "ab"]})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"{}", b'{"segment":1,"offset":2}', b'{"segment":"1","offset":2,"chains":{}}',
     b'{"segment":-1,"offset":0,"chains":{}}', b'{"segment":1,"offset":2,"chains":[]}', b"\xff\x00",
     b'{"segment":1,"offset":18446744073709551615,"chains":{}}',
     b'{"segment":18446744073709551615,"offset":0,"chains":{}}',
     b'{"segment":true,"offset":2,"chains":{}}'],
)  # fmt: skip
def test_a_damaged_one_says_nothing_yet(tmp_path: Path, content: bytes) -> None:
    """Then all is shipped again, which changes nothing."""
    (tmp_path / CHECKPOINT).write_bytes(content)
    assert checkpoint.load(tmp_path) == Checkpoint()


def test_one_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    """The new one is beside the old one until it is whole."""
    checkpoint.save(tmp_path, Checkpoint(1, 2))
    (tmp_path / f".{CHECKPOINT}.new").mkdir()
    with pytest.raises(OSError):
        checkpoint.save(tmp_path, Checkpoint(3, 4))
    assert checkpoint.load(tmp_path) == Checkpoint(1, 2)


def test_one_that_is_forgotten_says_nothing_yet(tmp_path: Path) -> None:
    """Twice is no error."""
    checkpoint.save(tmp_path, Checkpoint(1, 2))
    for _ in range(2):
        checkpoint.forget(tmp_path)
        assert checkpoint.load(tmp_path) == Checkpoint()
