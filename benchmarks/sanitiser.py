"""What the sanitiser finds, what it takes for a secret that is none, and what it and the rating of calls cost.

    python -m benchmarks.sanitiser [--short]

Recall is the share of values in whose copy nothing of what was planted is left; false positives are harmless values
that did not come back as they were. Both corpora are drawn anew for each seed. The sets that were written without a
look at the rules are measured apart and have no target here: the rules have learned from them since, and a test keeps
what they learned. The last line is `failed: N`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final

import orjson

from benchmarks import rig
from proxy.audit.risk import RiskRules
from proxy.audit.sanitise import Sanitiser
from proxy.config.risk import Risk
from proxy.dataplane.offers import Hints
from proxy.mcp.envelope import read_envelope
from tests.unit.audit.corpus import Case
from tests.unit.audit.corpus.harmless import harmless
from tests.unit.audit.corpus.heldout import heldout_harmless, heldout_secrets
from tests.unit.audit.corpus.secrets import secrets
from tests.unit.audit.corpus.unseen_first import first_unseen
from tests.unit.audit.corpus.unseen_second import second_unseen
from tests.unit.audit.corpus.unseen_third import third_unseen

LEAST_SHAPES: Final = 200
RECALL: Final = 99.0
FALSE_POSITIVES: Final = 1.0
RATING_US: Final = 0.5
SMALL_US: Final = 40.0
PER_CHARACTER_NS: Final = 300.0
SMALL: Final = {
    "path": "/home/bob/readme.md",
    "query": "what is the weather in Berlin",
    "limit": 10,
    "tags": ["a", "b"],
}
PROSE: Final = {"text": "The quick brown fox jumps over the lazy dog. " * 80}


def missed(cases: Iterable[Case]) -> list[str]:
    """Names of the values of which a secret is left."""
    sanitiser = Sanitiser()
    found = []
    for case in cases:
        kept = orjson.dumps(sanitiser.value(case.value)).decode()
        if any(secret in kept or orjson.dumps(secret).decode()[1:-1] in kept for secret in case.planted):
            found.append(case.name)
    return found


def mistaken(cases: Iterable[Case]) -> list[str]:
    """Names of the values of which something was taken for a secret."""
    sanitiser = Sanitiser()
    return [case.name for case in cases if sanitiser.value(case.value) != case.value]


def cpu_us(call: Callable[[], object], calls: int) -> float:
    """Microseconds of CPU of one call, in the best of ten rounds."""
    best = float("inf")
    for _ in range(10):
        began = time.process_time_ns()
        for _ in range(calls):
            call()
        best = min(best, (time.process_time_ns() - began) / calls / 1e3)
    return best


def rating_us(calls: int) -> float:
    """Microseconds of CPU for the rating of a call of a known tool that has no reason to be risky."""
    rules = RiskRules(Risk())
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{}}}'
    message, hints, now = read_envelope(body, {}).first, Hints(read_only=True), time.time()
    assess = rules.assess

    def rated() -> None:
        assess(message, hints, "user:7", False, "", now)

    return cpu_us(rated, calls) - cpu_us(lambda: None, calls)


def corpora(seeds: int) -> list[rig.Figure]:
    """What is found, and what is taken for something else."""
    planted = [case for seed in range(seeds) for case in secrets(seed)]
    plain = [case for seed in range(seeds) for case in harmless(seed)]
    lost, wrong = missed(planted), mistaken(plain)
    shapes, alike = len(secrets(0)), len(harmless(0))
    recall, false = 100 - 100 * len(lost) / len(planted), 100 * len(wrong) / len(plain)
    print(f"secrets: {shapes} shapes, {len(planted)} drawn, {len(lost)} missed: {sorted(set(lost))}")
    print(f"harmless: {alike} shapes, {len(plain)} drawn, {len(wrong)} mistaken: {sorted(set(wrong))}")
    print(f"recall_percent: {recall:.2f}")
    print(f"false_positives_percent: {false:.2f}")
    held, other = list(heldout_secrets(1)), list(heldout_harmless())
    print(f"held_out_recall_percent: {100 - 100 * len(missed(held)) / len(held):.2f} of {len(held)}")
    print(f"held_out_false_positives_percent: {100 * len(mistaken(other)) / len(other):.2f} of {len(other)}")
    for name, unseen in (("first", first_unseen), ("second", second_unseen), ("third", third_unseen)):
        theirs, others = unseen(1)
        print(f"{name}_unseen_recall_percent: {100 - 100 * len(missed(theirs)) / len(theirs):.2f} of {len(theirs)}")
        print(
            f"{name}_unseen_false_positives_percent: {100 * len(mistaken(others)) / len(others):.2f} of {len(others)}"
        )
    return [
        rig.Figure("secrets missed", 100 - recall, 100 - RECALL, "%"),
        rig.Figure("harmless values mistaken", false, FALSE_POSITIVES, "%"),
        rig.Figure("shapes fewer than asked for", max(0, LEAST_SHAPES - min(shapes, alike)), 0, ""),
    ]


def main() -> int:
    """Print the figures; 1 when one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few seeds, and times twice as long are well")
    short = parser.parse_args().short
    figures = corpora(2 if short else 30)
    wide, value = (2 if short else 1), Sanitiser().value
    rating = rating_us(2_000 if short else 50_000)
    small, prose = cpu_us(lambda: value(SMALL), 100), cpu_us(lambda: value(PROSE), 10)
    per_character = prose * 1e3 / len(PROSE["text"])
    print(f"rating_us: {rating:.2f}")
    print(f"small_arguments_us: {small:.1f}")
    print(f"character_ns: {per_character:.0f}")
    figures += [
        rig.Figure("rating of a common call", rating, RATING_US * wide, "us"),
        rig.Figure("arguments of a few keys", small, SMALL_US * wide, "us"),
        rig.Figure("a character of prose", per_character, PER_CHARACTER_NS * wide, "ns"),
    ]
    return rig.conclude(figures)


if __name__ == "__main__":
    sys.exit(main())
