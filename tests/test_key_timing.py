"""The measurement of key timing runs, and sees a comparison that leaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.key_timing import BOUND, measure, naive_refusal, welch, wrong_texts
from proxy.identity.keys import PepperRing, mint, parse

ROOT = Path(__file__).resolve().parent.parent
KEY = mint(PepperRing({1: b"a pepper of sixteen or more"}))


@pytest.mark.alone
def test_a_key_wrong_in_its_first_or_last_byte_takes_the_same_time() -> None:
    """The short form of the measurement ends with `failed: 0`."""
    command = [sys.executable, "-m", "benchmarks.key_timing", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1:] == ["failed: 0"], done.stdout + done.stderr


def test_both_texts_are_keys_that_differ_in_one_character() -> None:
    """So that nothing refuses them before their secrets are compared."""
    for text, at in zip(wrong_texts(KEY.text), (18, 60), strict=True):
        shown = "".join(text)
        assert parse(shown) is not None
        body, wanted = shown[:61], KEY.text[:61]
        assert [place for place in range(61) if body[place] != wanted[place]] == [at]


def test_a_comparison_that_stops_early_is_seen() -> None:
    """The method can fail."""
    assert abs(welch(measure(naive_refusal(KEY.text), wrong_texts(KEY.text), 300))) > BOUND
