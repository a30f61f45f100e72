"""What forwarding needs besides the request: one of each for the whole process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from proxy.dataplane.mirror import Mirrors
from proxy.dataplane.streams import Streams


class Parts(NamedTuple):
    """Built by the composition root, handed to the handler."""

    streams: Streams
    mirrors: Mirrors
    clock: Callable[[], float]
    """Monotonic seconds."""
