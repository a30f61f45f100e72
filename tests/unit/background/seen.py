"""A server to look at: its breaker, queue and health are real, its connection pool is numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.config.resilience import Breaker as BreakerConfig
from proxy.config.resilience import HealthCheck, Queue
from proxy.dataplane.breaker import Breaker
from proxy.dataplane.health import Health
from proxy.dataplane.queueing import RequestQueue
from proxy.identity.access import Server as Place
from tests.unit.dataplane.fakes import Time


@dataclass
class Slots:
    """The places in a connection pool."""

    limit: int = 10
    used: int = 0
    waiting: int = 0


@dataclass
class Client:
    """Has them."""

    slots: Slots = field(default_factory=Slots)
    idle: int = 0


class Server:
    """As much of an upstream as is published."""

    def __init__(self, name: str, place: Place, clock: Time, queue: Queue | None = None) -> None:
        self.name = name
        self.place = place
        self.latency_ewma_s = 0.0
        self.breaker = Breaker(
            BreakerConfig.model_validate({"failures": 2, "open_for": "5s"}), clock, lambda: 0.0, None
        )
        self.queue = RequestQueue(queue, clock) if queue is not None else None
        self.client = Client()
        self.health = Health(HealthCheck(healthy_after=1, unhealthy_after=1), clock)
        self.window: object = None

    def fail(self) -> None:
        """So often that the breaker opens."""
        for _ in range(2):
            self.breaker.failed(self.breaker.admit(), "connect")
