"""The official JavaScript clients through the proxy, against our fixture and npm's server-everything.

Each pair of client and server makes one tour (`node/tour.mjs`) that reports what happened; the tests judge the report.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.clients import journal_has
from tests.acceptance.conftest import Stack
from tests.conformance.npm import Node

_TOUR: Final = Path(__file__).resolve().parent / "node" / "tour.mjs"
_TOUR_S: Final = 60


@dataclass(frozen=True, slots=True)
class Pair:
    """One SDK with one server; `route` is the server's name in the proxy."""

    sdk: str
    server: str
    route: str
    modern: bool = False

    @property
    def label(self) -> str:
        """A name for this pair's long calls, unique in the fixture's journal."""
        return f"{self.sdk}-{self.route}"


PAIRS: Final = (
    Pair("sdk-http", "fixture", "fixture"),
    Pair("sdk-http", "everything", "everything"),
    Pair("sdk-sse", "fixture", "fixture-sse"),
    Pair("sdk-sse", "everything", "everything-sse"),
    Pair("client-legacy", "fixture", "fixture"),
    Pair("client-auto", "fixture", "fixture", modern=True),
    Pair("client-auto", "everything", "everything"),
)
TOLD_TO_THE_FIXTURE: Final = [pair for pair in PAIRS if pair.server == "fixture"]


class Tours:
    """Runs each tour once and remembers its report."""

    def __init__(self, node: Node, stack: Stack) -> None:
        self._node = node
        self._stack = stack
        self._reports: dict[Pair, dict[str, Any]] = {}

    def report(self, pair: Pair) -> dict[str, Any]:
        """What happened on the tour of this pair."""
        if pair not in self._reports:
            url = self._stack.url(pair.route)
            command = [str(self._node.binary), str(_TOUR), pair.sdk, url, pair.server, pair.label]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TOUR_S, check=False)
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"
            self._reports[pair] = json.loads(done.stdout.splitlines()[-1])
        return self._reports[pair]

    def step(self, pair: Pair, name: str) -> Any:
        """The result of one step of the tour."""
        return self.report(pair)["steps"][name]


@pytest.fixture(scope="session")
def tours(node: Node, stack: Stack, everything: None) -> Tours:
    """All tours of this session."""
    return Tours(node, stack)


every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.label)


@every_pair
def test_the_client_reaches_the_server_it_asked_for_in_the_era_they_share(tours: Tours, pair: Pair):
    """The handshake passes untouched: name of the server and era of the connection are as without a proxy."""
    report = tours.report(pair)

    expected = {"fixture": "conformance-fixture", "everything": "mcp-servers/everything"}
    assert report["server"] == expected[pair.server]
    assert report["modern"] is pair.modern


@every_pair
def test_tools_resources_and_prompts_come_through_unchanged(tours: Tours, pair: Pair):
    """Lists, calls and reads work, and text outside ASCII survives both directions."""
    assert "echo" in tours.step(pair, "tools")
    assert "grüße, 世界 🦀" in tours.step(pair, "echo")
    assert "42" in tours.step(pair, "resource")
    assert "simple prompt" in tours.step(pair, "prompt")


@every_pair
def test_progress_is_heard_in_order_and_while_the_tool_runs(tours: Tours, pair: Pair):
    """Five notifications over 0.6 s arrive over as long: a hop that buffers would deliver them together."""
    progress = tours.step(pair, "progress")

    # server-everything sends the last one together with the result, and the SDK then drops it, without a proxy, too
    assert progress["order"] in ([1, 2, 3, 4, 5], [1, 2, 3, 4] if pair.server == "everything" else None)
    assert progress["spread_ms"] > 250
    assert progress["result"]


@every_pair
def test_the_server_gets_its_questions_answered(tours: Tours, pair: Pair):
    """Sampling and elicitation reach the client and their answers reach the tool that waits for them."""
    sampled = tours.step(pair, "sampling")
    assert ("The model has answered." if pair.modern else "Paris") in sampled
    elicited = tours.step(pair, "elicitation")
    assert "Alice" in elicited or "alice" in elicited


@every_pair
def test_a_changed_list_is_announced_to_the_client(tours: Tours, pair: Pair):
    """list_changed arrives on the standing stream, or on subscriptions/listen in 2026-07-28."""
    assert tours.step(pair, "change") is True


@every_pair
def test_a_client_that_gives_up_a_call_can_go_on_with_the_next(tours: Tours, pair: Pair):
    """Aborting one call ends that call only."""
    cancelled = tours.step(pair, "cancelled")

    assert "enough" in cancelled["error"]
    assert "still here" in cancelled["alive"]


@pytest.mark.parametrize("pair", TOLD_TO_THE_FIXTURE, ids=lambda pair: pair.label)
async def test_the_tool_is_stopped_at_the_server_when_the_client_gives_up(tours: Tours, stack: Stack, pair: Pair):
    """The cancellation gets all the way: the fixture's journal says that the tool was cancelled."""
    tours.report(pair)

    assert await journal_has(stack, f"cancelled:{pair.label}", within_s=3)


@pytest.mark.parametrize("pair", [p for p in PAIRS if p.route == "fixture" and not p.modern], ids=lambda p: p.label)
def test_a_stream_that_the_server_closed_is_resumed_by_the_client(tours: Tours, pair: Pair):
    """The SDK reconnects with Last-Event-ID after the server's close and gets the answer it still misses."""
    assert tours.step(pair, "resumed") == "Reconnection test completed"


@every_pair
def test_closing_the_client_is_accepted(tours: Tours, pair: Pair):
    """The end of a session raises no error on the client's side."""
    assert tours.step(pair, "closed") is True
