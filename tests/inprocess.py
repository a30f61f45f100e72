"""The whole proxy inside the test's own event loop, with the lane as a parameter."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import structlog
import yaml

from proxy.app import App
from proxy.batched_stream import BatchedStream
from proxy.config.loader import load
from proxy.dataplane.exchange import Lane, Pipeline
from proxy.dataplane.lane_aiohttp import AiohttpLane
from tests.harness import Plain

#: Every lane there is; data-plane tests run once with each.
LANES: dict[str, Callable[[Pipeline], Lane]] = {"aiohttp": AiohttpLane}


@contextlib.asynccontextmanager
async def running_app(config: dict[str, Any], lane: str = "aiohttp") -> AsyncIterator[tuple[App, int]]:
    """An `App` that serves, and its data port. Logging is global: it is left as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as directory, open(os.devnull, "wb") as sink:
        path = Path(directory, "config.yaml")
        path.write_text(yaml.dump({"listen": {"port": 0}, "admin": {"port": 0}, **config}, Dumper=Plain))
        stream = BatchedStream(sink.fileno())
        app = App(path, load(path, os.environ), stream, LANES[lane])
        try:
            port, _ = await app.start()
            yield app, port
        finally:
            await app.stop()
            stream.close()
            structlog.reset_defaults()
            root.handlers[:] = handlers
            root.setLevel(level)
