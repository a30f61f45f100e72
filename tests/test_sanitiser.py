"""The measurement of the sanitiser runs, prints what it found, and can fail."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.sanitiser import missed, mistaken
from tests.unit.audit.corpus import Case
from tests.unit.audit.corpus.heldout import heldout_harmless, heldout_secrets
from tests.unit.audit.corpus.unseen_first import first_unseen
from tests.unit.audit.corpus.unseen_second import second_unseen
from tests.unit.audit.corpus.unseen_third import third_unseen

ROOT = Path(__file__).resolve().parent.parent


def test_secrets_are_found_and_nothing_else() -> None:
    """The short form ends with `failed: 0`, after recall and false positives."""
    command = [sys.executable, "-m", "benchmarks.sanitiser", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout.splitlines()[-1:] == ["failed: 0"], done.stdout + done.stderr
    assert re.findall(r"^(\w+_percent): \d+\.\d\d", done.stdout, re.MULTILINE) == [
        "recall_percent",
        "false_positives_percent",
        "held_out_recall_percent",
        "held_out_false_positives_percent",
        "first_unseen_recall_percent",
        "first_unseen_false_positives_percent",
        "second_unseen_recall_percent",
        "second_unseen_false_positives_percent",
        "third_unseen_recall_percent",
        "third_unseen_false_positives_percent",
    ]


def test_what_was_held_out_does_not_get_worse() -> None:
    """What the rules miss of it is known; nothing harmless of it is lost any more."""
    secrets, harmless = list(heldout_secrets(1)), list(heldout_harmless())
    assert len(missed(secrets)) <= len(secrets) * 5 // 100
    assert mistaken(harmless) == []


@pytest.mark.parametrize(
    ("unseen", "missing", "wrong"),
    [(first_unseen, 1.0, 0.5), (second_unseen, 8.0, 0.5), (third_unseen, 16.0, 0.6)],
)
def test_what_was_learned_from_unseen_sets_is_kept(
    unseen: Callable[[int], tuple[list[Case], list[Case]]], missing: float, wrong: float
) -> None:
    """At most so many of a hundred secrets are missed, and so many look-alikes taken for some."""
    secrets, plain = unseen(1)
    assert min(len(secrets), len(plain)) >= 125
    assert len(missed(secrets)) <= len(secrets) * missing / 100, missed(secrets)
    assert len(mistaken(plain)) <= len(plain) * wrong / 100, mistaken(plain)


def test_a_miss_and_a_mistake_are_seen() -> None:
    """A measurement that cannot fail would prove nothing."""
    assert missed([Case("plain", "nothing to see", ("nothing",))]) == ["plain"]
    assert mistaken([Case("secret", {"password": "hunter2"})]) == ["secret"]
