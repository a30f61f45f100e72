"""How the script in Redis is called: the bytes of one command, and what its reply says.

Owns the keys of buckets, the packing of rules, and the text of the script (`token_bucket.lua`, where the keys are
listed). It must not know of connections, nor what is done with a reply.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy.dataplane.redis_lane import pack
from proxy.limits.bucket import Fair, Outcome
from proxy.limits.rules import Demand

__all__ = ["SCRIPT", "LimitScript", "bucket_key", "fair_key", "outcome_of", "packed_bucket"]

TEXT: Final = Path(__file__).with_name("token_bucket.lua").read_text()
_BUCKETS: Final = b"{mcpm}:b:"
_FAIR: Final = b"{mcpm}:f:"
#: Subjects longer than this stand in keys as a hash, so that a bucket stays small; bytes.
_LONGEST: Final = 48
_HASH_BYTES: Final = 16
_RULE: Final = struct.Struct("<6d")
_SHARE: Final = struct.Struct("<4d")
_BUCKET: Final = struct.Struct("<2d")
_WINDOW: Final = struct.Struct("<3d")
#: Demands whose bytes are kept; the rule book makes most of them once.
_REMEMBERED: Final = 16_384
_REPLIES: Final = [struct.Struct(f"<{1 + 2 * count}d") for count in range(64)]


def bucket_key(rule_id: str, subject: str) -> bytes:
    """Where the bucket of a subject is. Ids of rules tell apart what subjects alone would not."""
    return _prefix(_BUCKETS, rule_id) + _short(subject)


def fair_key(rule_id: str, tenant: str) -> bytes:
    """Where the bucket of a tenant's share is."""
    return _prefix(_FAIR, rule_id) + _short(tenant)


def packed_bucket(tokens: float, now: float, window: tuple[float, float] | None, used: float) -> bytes:
    """The state of a bucket as the script keeps it; `now` is the time of Redis (s), all of the window used just now."""
    state = _BUCKET.pack(tokens, now)
    return state if window is None else state + _WINDOW.pack(now // window[0], used, 0.0)


class LimitScript:
    """One text of the script, and the commands that call it."""

    __slots__ = ("_known", "_sha", "load")

    def __init__(self, text: str) -> None:
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        #: The command that makes Redis know it.
        self.load = pack(("SCRIPT", "LOAD", text))
        self._sha = sha.encode()
        #: By identity of a demand (which is kept, so that it stays one): its key, and its numbers.
        self._known: dict[int, tuple[Demand, bytes, bytes]] = {}

    def command(self, demands: Sequence[Demand], fair: Fair | None) -> tuple[bytes, list[bytes]]:
        """The command that checks these demands, and the key of each."""
        keys = []
        numbers = []
        known = self._known
        for demand in demands:
            kept = known.get(id(demand)) or self._learn(demand)
            keys.append(kept[1])
            numbers.append(kept[2])
        if fair is None:
            return pack((b"EVALSHA", self._sha, len(keys), *keys, b"".join(numbers), b"")), keys
        share = _SHARE.pack(fair.shared + 1, fair.capacity, fair.refill_per_s, fair.reserve)
        return pack((b"EVALSHA", self._sha, len(keys) + 1, *keys, fair.key, b"".join(numbers), share)), keys

    def _learn(self, demand: Demand) -> tuple[Demand, bytes, bytes]:
        rule, subject, cost = demand
        window_s, window_limit = rule.window or (0.0, 0.0)
        numbers = _RULE.pack(rule.capacity, rule.refill_per_s, cost, window_s, window_limit, rule.enforce)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        kept = self._known[id(demand)] = (demand, bucket_key(rule.id, subject), numbers)
        return kept


def outcome_of(reply: bytes) -> Outcome:
    """What the script says."""
    count = len(reply) // 16
    shape = _REPLIES[count] if count < len(_REPLIES) else struct.Struct(f"<{1 + 2 * count}d")
    numbers = shape.unpack(reply)
    return Outcome(numbers[0] == 1, numbers[1::2], numbers[2::2])


def _prefix(kind: bytes, rule_id: str) -> bytes:
    return kind + rule_id.encode("utf-8", "surrogatepass") + b":"


def _short(subject: str) -> bytes:
    name = subject.encode("utf-8", "surrogatepass")
    return name if len(name) <= _LONGEST else hashlib.blake2b(name, digest_size=_HASH_BYTES).hexdigest().encode()


SCRIPT: Final = LimitScript(TEXT)
