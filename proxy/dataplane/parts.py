"""What forwarding needs besides the request: one of each for the whole process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from proxy.dataplane.lists import keep_nothing
from proxy.dataplane.mirror import Mirrors
from proxy.dataplane.streams import Streams

if TYPE_CHECKING:
    from proxy.dataplane.lessons import Lessons
    from proxy.dataplane.lists import Keeps


class Parts(NamedTuple):
    """Built by the composition root, handed to the handler."""

    streams: Streams
    mirrors: Mirrors
    clock: Callable[[], float]
    """Monotonic seconds."""
    keeps: Keeps = keep_nothing
    """Says of an answer which items of its lists the client may use."""
    lessons: Lessons | None = None
    """Keeps lists that pass; None: nothing is learned."""
