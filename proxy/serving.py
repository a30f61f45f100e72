"""Serving from the command line: the configuration, the log, one proxy, and an exit code.

Owns what an operator reads when it cannot start. What a proxy is made of is `app.py`'s.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from proxy import log
from proxy.app import App
from proxy.batched_stream import BatchedStream
from proxy.config.loader import load
from proxy.config.problems import ConfigError
from proxy.store.accounts import Rejected
from proxy.store.child_server import EmbeddedError
from proxy.store.migrate import MigrationError
from proxy.store.pool import Unavailable
from proxy.tracing import TracingUnavailable

if TYPE_CHECKING:
    from proxy.config.models import Config

_MISUSED: Final = 2


async def _run(path: Path, config: Config, stream: BatchedStream) -> None:
    app = App(path, config, stream)
    try:
        await app.start()
    except BaseException:
        await app.stop()
        raise
    await app.run_until_stopped()


def serve(path: Path) -> int:
    """Run a proxy with the configuration in `path` until SIGTERM or SIGINT. Returns the exit code.

    2 with one line per problem on standard error when the configuration, a port or a file cannot be used.
    """
    try:
        config = load(path, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return _MISUSED
    stream = BatchedStream(sys.stdout.fileno())
    log.configure(config.log.level, config.log.format, stream)
    try:
        uvloop.run(_run(path, config, stream))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"mcp-manager: cannot start: {place}{error.strerror or error}", file=sys.stderr)
        return _MISUSED
    except (EmbeddedError, MigrationError, Rejected, TracingUnavailable, Unavailable) as error:
        print(f"mcp-manager: cannot start: {error}", file=sys.stderr)
        return _MISUSED
    finally:
        stream.close()
    return 0
