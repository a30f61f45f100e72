"""The yardstick: the least that a reverse proxy on aiohttp can do, written to be fast, with no policy at all.

python -m benchmarks.bare_aiohttp PORT UPSTREAM_URL
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}
AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


async def main(port: int, upstream: str) -> None:
    """Serve until killed."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def relay(request: web.BaseRequest) -> web.StreamResponse:
            headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
            body = await request.read()
            async with session.request(
                request.method, upstream, data=body, headers=headers, skip_auto_headers=AUTOMATIC, allow_redirects=False
            ) as answer:
                kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        server = web.Server(relay, handler_cancellation=True, access_log=None)
        async with await asyncio.get_running_loop().create_server(server, "127.0.0.1", port):
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
