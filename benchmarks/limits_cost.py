"""What limits cost: a request with six rules and a tenant's share, counted in a real Redis on the same machine.

    python -m benchmarks.limits_cost [--short]

Measured are the wait of a request that is alone, with few subjects and with many, the part of it in Redis, the CPU time
of this process per request, and the memory that a subject takes there. Every figure is the best of several rounds. The
last line is `failed: N`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, get_args

import uvloop
from redis.asyncio import Redis

from proxy.dataplane.limit_script import bucket_key
from proxy.dataplane.ratelimit import Limiter, TenantShare
from proxy.dataplane.redis_link import RedisLink
from proxy.limits.rules import Demand, Level, Rule
from proxy.store.embedded import EmbeddedRedis

WAIT_US: Final = 60.0
CPU_US: Final = 40.0
SUBJECT_BYTES: Final = 250
FLAT: Final = 1.25
"""The wait with many subjects, against that with few: what misses of the processor's caches may cost, no more."""
AT_ONCE: Final = 16
FEW: Final = 1_000
ROUNDS: Final = 12
#: No bucket is ever empty or full: a refusal writes nothing, and a bucket that is full is not there; both look cheap.
RULES: Final = [
    Rule(f"0197f3a0-7c1e-7000-8000-{number:012d}", level, level, 1e6, 0.001)
    for number, level in enumerate(level for level in get_args(Level) if level != "key")
]
SHARE: Final = TenantShare("0197f3a0-7c1e-7000-8000-0000000000aa")

Demands = list[list[Demand]]


def demands(subjects: Iterable[int]) -> Demands:
    """What the rule book gives for requests of these clients, made once as the book does."""
    return [[Demand(rule, f"0197f3a0-7c1e-7000-8000-{n:012d}", 1.0) for rule in RULES] for n in subjects]


async def wait_us(limits: Limiter, asked: Demands) -> float:
    """Median wait of one request after the other."""
    took = []
    for each in asked:
        began = time.perf_counter()
        verdict = await limits.take(each, SHARE)
        took.append(time.perf_counter() - began)
        assert verdict.source == "redis"
    return statistics.median(took) * 1e6


async def cpu_us(limits: Limiter, asked: Demands, at_once: int) -> float:
    """CPU time of this process per request, when so many wait at once."""

    async def client(first: int) -> None:
        for each in asked[first::at_once]:
            await limits.take(each, SHARE)

    began = time.process_time()
    await asyncio.gather(*(client(first) for first in range(at_once)))
    return (time.process_time() - began) / len(asked) * 1e6


async def script_us(limits: Limiter, redis: Redis, asked: Demands) -> float:
    """Time in Redis per call of the script."""
    await redis.config_resetstat()
    for each in asked:
        await limits.take(each, SHARE)
    return float((await redis.info("commandstats"))["cmdstat_evalsha"]["usec_per_call"])


async def fill(limits: Limiter, crowd: range) -> None:
    """Have a bucket for every subject."""
    for first in range(0, len(crowd), AT_ONCE):
        await asyncio.gather(*(limits.take(each, SHARE) for each in demands(crowd[first : first + AT_ONCE])))


async def measure(engine: EmbeddedRedis, many: int) -> list[tuple[str, float, float]]:
    """Name, figure and most that it may be, of everything."""
    redis = Redis.from_url(engine.url, protocol=2)
    await redis.config_set("save", "")
    await redis.config_set("maxmemory", 0)
    # Few subjects are in a database of their own, so that both are measured in turns: machines have better moments.
    limits, crowded = [
        Limiter(RedisLink(engine.url + database, time.monotonic, random.random), time.monotonic, "benchmark")
        for database in ("?db=1", "?db=0")
    ]
    await limits.open()
    await crowded.open()
    crowd = range(many // len(RULES))
    await fill(crowded, crowd)
    few, sample = demands(range(FEW)), demands(random.sample(crowd, FEW))
    rounds = [await one_round(limits, crowded, redis, few, sample) for _ in range(ROUNDS)]
    wait, busy, alone, in_redis, crowded_wait = map(min, zip(*rounds, strict=True))
    subject = sample[0][0]
    weight = await redis.memory_usage(bucket_key(subject.rule.id, subject.subject))
    keys = (await redis.info("keyspace"))["db0"]
    for each in (limits, crowded):
        await each.close()
    await redis.aclose()
    return [
        ("wait of one request, us", wait, WAIT_US),
        (f"CPU per request, {AT_ONCE} at once, us", busy, CPU_US),
        ("CPU per request, alone, us", alone, CPU_US),
        ("of the wait in Redis, us", in_redis, WAIT_US),
        (f"wait with {keys['keys']} buckets against {FEW * len(RULES)}", crowded_wait / wait, FLAT),
        ("memory per subject, bytes", float(weight), SUBJECT_BYTES),
        ("keys that do not expire", float(keys["keys"] - keys["expires"]), 0.0),
    ]


async def one_round(
    limits: Limiter, crowded: Limiter, redis: Redis, few: Demands, sample: Demands
) -> tuple[float, float, float, float, float]:
    """Wait, CPU time of many at once and of one alone, time in Redis, and the wait where there are many buckets; us."""
    return (
        await wait_us(limits, few),
        await cpu_us(limits, few, AT_ONCE),
        await cpu_us(limits, few, 1),
        await script_us(limits, redis, few),
        await wait_us(crowded, sample),
    )


async def run(directory: Path, many: int) -> int:
    """Print every figure; the number of those that are too high."""
    engine = EmbeddedRedis(directory / "redis")
    await engine.start()
    try:
        figures = await measure(engine, many)
    finally:
        await engine.stop()
    failed = 0
    for name, figure, most in figures:
        failed += figure > most
        print(f"{name:48} {figure:8.2f}  at most {most:g}{'' if figure <= most else '  TOO HIGH'}")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: whether anything was too high."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="100,000 buckets instead of a million")
    many = 100_000 if parser.parse_args(arguments).short else 1_000_000
    directory = Path(tempfile.mkdtemp(prefix="mcpm-"))
    directory.chmod(0o711)  # the server has a user of its own when we are root
    try:
        failed = uvloop.run(run(directory, many))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"failed: {failed}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
