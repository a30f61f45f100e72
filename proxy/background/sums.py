"""Sums of requests: how many, how many failed, how large, how long.

Owns how sums are added up and what a quantile of them is. How long requests took is kept as a sketch: bins of a
logarithmic scale with how many fell into each, so that sums of many minutes, servers and processes add up to the very
sum of all. What a bin means in milliseconds is the caller's to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

#: Tools of one credential in one sum; more are counted together.
MAX_TOOLS: Final = 100
#: What they are counted as, and tools that no list has named: no server and no tool has this name.
OTHER_TOOLS: Final = ("", "")


class Sum:
    """Requests of one kind in one time."""

    __slots__ = ("bins", "bytes_in", "bytes_out", "errors", "requests", "seconds", "timed", "tool_calls")

    def __init__(self) -> None:
        self.requests = self.errors = self.tool_calls = 0
        self.bytes_in = self.bytes_out = 0
        #: Requests whose duration counts, and how long they took together. Streams that only listen are not among them.
        self.timed = 0
        self.seconds = 0.0
        #: Bin of the duration -> requests.
        self.bins: dict[int, int] = {}

    def add(self, other: Sum) -> None:
        """Both together. 1 µs, and 0.1 for each bin of `other`."""
        self.add_counts(other)
        bins = self.bins
        if not bins:
            self.bins = other.bins.copy()
            return
        for key, count in other.bins.items():
            bins[key] = bins.get(key, 0) + count

    def add_counts(self, other: Sum) -> None:
        """Both together, but for how the durations are spread."""
        self.requests += other.requests
        self.errors += other.errors
        self.tool_calls += other.tool_calls
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.timed += other.timed
        self.seconds += other.seconds


class KeySum(Sum):
    """Requests of one credential."""

    __slots__ = ("tools",)

    def __init__(self) -> None:
        super().__init__()
        #: (server, tool) -> calls.
        self.tools: dict[tuple[str, str], int] = {}

    def add(self, other: Sum) -> None:
        """Both together, with their tools."""
        super().add(other)
        if isinstance(other, KeySum):
            for tool, calls in other.tools.items():
                self.count_tool(tool, calls)

    def count_tool(self, tool: tuple[str, str], calls: int = 1) -> None:
        """(server, tool) was called."""
        tools = self.tools
        if tool not in tools and len(tools) >= MAX_TOOLS:
            tool = OTHER_TOOLS
        tools[tool] = tools.get(tool, 0) + calls


def quantiles(bins: Mapping[int, int], shares: Sequence[float]) -> list[int]:
    """The bins in which these shares (0 to 1, ascending) of the durations end; none without any."""
    last = sum(bins.values()) - 1
    found: list[int] = []
    seen = 0
    for key in sorted(bins):
        seen += bins[key]
        while len(found) < len(shares) and seen > shares[len(found)] * last:
            found.append(key)
    return found
