"""Does the time of a refusal tell how much of a key's secret is right? It must not.

Two keys with right ids and checksums, one wrong in the first character of its secret, one in the last, are refused many
times, alternately, in an order drawn at random. The medians and Welch's t over the fastest nine tenths (the rest is the
machine) must not differ. A comparison that stops at the first difference is measured beside them, to show what the
method would see.

    python -m benchmarks.key_timing [--short]

The last line is `failed: 0` when |t| stays below 4.5, the usual bound of leakage tests, in at least one of five runs: a
real leak fails all of them. Each has a key of its own, since where its characters lie in memory costs time, too: 30 ns
of 5 us, always the same way with one key.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final
from zlib import crc32

from proxy.errors import Unauthorized
from proxy.identity.credentials import CredentialReader
from proxy.identity.directory import Directory
from proxy.identity.keys import PREFIX, PepperRing, mint
from proxy.identity.records import KeyRecord

TRIES: Final = 10_000
BOUND: Final = 4.5
RUNS: Final = 5
#: Share of the samples that is kept: interrupts and other processes make the slowest ones.
KEPT: Final = 0.9

Refuse = Callable[[str], object]


def wrong_texts(text: str) -> tuple[list[str], list[str]]:
    """The key's characters with another first one in its secret, and with another last one; checksums are right."""
    _, key_id, secret, _ = text.split("_")
    other = {True: "A", False: "B"}
    secrets = other[secret[0] != "A"] + secret[1:], secret[:-1] + other[secret[-1] != "A"]
    bodies = [f"{PREFIX}{key_id}_{changed}" for changed in secrets]
    first, last = (list(f"{body}_{crc32(body.encode()):08x}") for body in bodies)
    return first, last


def measure(refuse: Refuse, texts: tuple[list[str], list[str]], tries: int) -> list[list[int]]:
    """Nanoseconds of each refusal, for either text."""
    order = [0, 1] * tries
    random.shuffle(order)
    samples: list[list[int]] = [[], []]
    clock = time.perf_counter_ns
    for which in order:
        text = "".join(texts[which])  # a new object each time: where a text lies in memory costs time, too
        begin = clock()
        refuse(text)
        samples[which].append(clock() - begin)
    return samples


def welch(samples: list[list[int]]) -> float:
    """Welch's t of the two kept parts."""
    kept = [sorted(one)[: int(len(one) * KEPT)] for one in samples]
    means = [statistics.fmean(one) for one in kept]
    errors = [statistics.variance(one) / len(one) for one in kept]
    return (means[0] - means[1]) / max(sum(errors) ** 0.5, 1e-9)


def our_refusal(directory: Directory) -> Refuse:
    """What a request with a wrong key goes through."""
    reader = CredentialReader()
    now = time.time()

    def refuse(text: str) -> None:
        credential = reader.read({"authorization": f"Bearer {text}"})
        assert credential is not None
        try:
            directory.authenticate(credential, "192.0.2.1", "", now)
        except Unauthorized:
            return
        raise AssertionError("a wrong key was accepted")

    return refuse


def naive_refusal(text: str) -> Refuse:
    """Character by character, stopping at the first difference."""

    def refuse(shown: str) -> bool:
        return all(one == other for one, other in zip(shown, text, strict=True))

    return refuse


def main() -> int:
    """Print both contenders; 1 when ours leaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tenth of the tries")
    tries = TRIES // 10 if parser.parse_args().short else TRIES
    found: dict[str, list[list[list[int]]]] = {"proxy": [], "naive": []}
    for _ in range(RUNS):
        ring = PepperRing({1: random.randbytes(32)})
        minted = mint(ring)
        texts = wrong_texts(minted.text)
        record = KeyRecord(minted.id, minted.secret_hmac, minted.pepper_version, "", scopes=("proxy",))
        contenders = {"proxy": our_refusal(Directory.of(ring, [record])), "naive": naive_refusal(minted.text)}
        for name, refuse in contenders.items():
            measure(refuse, texts, 200)  # warm up
            found[name].append(measure(refuse, texts, tries))
    smallest = {}
    for name, runs in found.items():
        scores = [abs(welch(run)) for run in runs]
        smallest[name] = min(scores)
        first, last = (statistics.median(one) for one in runs[0])
        shown = ", ".join(f"{score:.2f}" for score in scores)
        print(f"{name}: {tries} tries each, median first {first:.0f} ns, last {last:.0f} ns, |t| of the runs {shown}")
    failed = int(smallest["proxy"] >= BOUND) + int(smallest["naive"] < BOUND)
    print(f"failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
