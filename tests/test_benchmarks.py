"""The measurements run: each script, in its short form, against a proxy process as an operator starts it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from benchmarks import bench, load, messages, rig

ROOT: Final = Path(__file__).resolve().parent.parent


def last_lines(script: str) -> list[str]:
    """What a script prints in its short form; a failing one fails the test with all that it said."""
    command = [sys.executable, "-m", f"benchmarks.{script}", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.alone
@pytest.mark.parametrize("script", ["latency", "idle_streams", "disconnect"])
def test_a_proof_meets_its_target_in_its_short_form(script: str) -> None:
    """The script ends with `failed: 0`."""
    assert last_lines(script)[-1] == "failed: 0"


def test_the_benchmark_ends_with_the_ratio() -> None:
    """The last line is the one that others read, and the published page is not touched by a short run."""
    before = bench.README.read_text()
    assert re.fullmatch(r"ratio_to_bare_aiohttp: \d\.\d\d", last_lines("bench")[-1])
    assert bench.README.read_text() == before


def test_the_figures_replace_those_between_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing twice leaves one table, and the text around it as it was."""
    page = tmp_path / "README.md"
    page.write_text(bench.README.read_text())
    monkeypatch.setattr(bench, "README", page)
    bench.publish("first")
    bench.publish("second")
    before, figures = page.read_text().split(bench.BEGIN)
    assert figures == f"\nsecond\n{bench.END}\n"
    assert before == Path(bench.__file__).with_name("README.md").read_text().split(bench.BEGIN)[0]


def test_wrong_answers_spoil_a_measurement() -> None:
    """A contender that answers something else is an error, not a fast contender."""
    with rig.start_upstream() as upstream, rig.Load() as generator:
        assert generator.run(load.Order(upstream.port, seconds=0.2)).calls > 10
        order = load.Order(upstream.port, [load.Target("/mcp", headers={"X-Answer": "sse"})], seconds=0.2)
        with pytest.raises(RuntimeError, match="wrong answers"):
            generator.run(order)


def test_many_routes_are_each_reached_by_their_call() -> None:
    """The ten calls go to ten different servers of the crowd, two by each kind of condition."""
    config = bench.many(1000, 1)
    chosen = bench.targets(1000)
    assert len(chosen) == len({(target.path, target.tool, str(target.headers)) for target in chosen}) == 10
    assert len(config["routes"]) == len(config["servers"]) == 1000


def test_a_figure_over_its_target_or_unknown_has_failed() -> None:
    """Equal is enough; a figure that could not be measured is no success."""
    assert not rig.Figure("x", 2.0, 2.0, "ms").failed
    assert rig.Figure("x", 2.1, 2.0, "ms").failed
    assert rig.Figure("x", float("nan"), 2.0, "ms").failed


def test_a_chunked_answer_is_put_together() -> None:
    """However the proxy cut the body into chunks, the same bytes come out."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert load.content(head + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", len(head)) == b"abcde"


def test_percentiles_are_of_the_nearest_rank() -> None:
    """99 of 100 values lie below the 99th percentile."""
    assert load.percentile([float(number) for number in range(100)], 99) == 99.0
    assert load.percentile([1.0], 50) == 1.0


def test_a_modern_call_names_its_tool_in_header_and_body() -> None:
    """The traffic is valid: headers and body agree."""
    headers, body = messages.call("modern", "get_weather")
    assert headers["Mcp-Name"].encode() in body
    assert headers["MCP-Protocol-Version"].encode() in body
