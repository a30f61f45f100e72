"""The walk of one request: every phase in order, on one screen (design section 3).

A phase either adds to the context or raises one refusal. Whatever happens, exactly one record is written.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from proxy.dataplane.authorize import authorize
from proxy.dataplane.bans import turn_away
from proxy.dataplane.classify import classify
from proxy.dataplane.context import RequestContext
from proxy.dataplane.forward import forward
from proxy.dataplane.identity import authenticate
from proxy.dataplane.inspect import read_message
from proxy.dataplane.match import match_route
from proxy.dataplane.origin import check_host_and_origin
from proxy.dataplane.reject import reject
from proxy.dataplane.tokens import take_tokens
from proxy.errors import InternalError, Refusal

if TYPE_CHECKING:
    from proxy.dataplane.bans import Bans
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.parts import Parts
    from proxy.dataplane.recorder import Recorder
    from proxy.dataplane.snapshot import Live


class Handler:
    """Runs each request through the phases. Holds what they need, and whether it is the end."""

    def __init__(self, live: Live, bans: Bans, parts: Parts, recorder: Recorder) -> None:
        self._live = live
        self._bans = bans
        self._parts = parts
        self._recorder = recorder
        self._clock = parts.clock
        #: What is left of the requests is being reset: it is not their clients that leave.
        self.ending = False

    async def __call__(self, exchange: Exchange) -> None:
        snapshot = self._live.snapshot  # read once: a reload never splits a request
        ctx = RequestContext(exchange, snapshot, self._clock(), self._recorder.new_id())
        ctx.snapshot.requests += 1
        self._recorder.begin(ctx)
        try:
            check_host_and_origin(ctx.head, ctx.snapshot.origins)  # 403
            turn_away(ctx, self._live.admission, self._bans)  # 400, 429
            authenticate(ctx, self._live.admission, time.time())  # 400, 401, 403, 503
            ctx.authenticated_s = self._clock() - ctx.started_at
            await read_message(ctx)  # 400, 404, 408, 413, 415
            match_route(ctx)  # 404, 405
            authorize(ctx, self._live.admission, time.time())  # 403, 404
            classify(ctx, self._parts.load)  # 503
            await take_tokens(ctx, self._live.allowance, self._parts)  # 429
            await forward(ctx, self._parts)  # 426, 502, 503, 504; streams
        except Refusal as refusal:
            reject(ctx, refusal)
            self._bans.note(refusal, ctx.client_ip, self._clock(), ctx.path)
        except (asyncio.CancelledError, ConnectionError):
            ctx.outcome = ctx.outcome or ("drained" if self.ending else "client_gone")
            raise
        except Exception as bug:
            reject(ctx, InternalError(type(bug).__name__))
            self._recorder.bug(ctx, bug)
        finally:
            ctx.snapshot.requests -= 1
            self._recorder.record(ctx, self._clock())
