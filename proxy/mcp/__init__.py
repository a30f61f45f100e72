"""What the Model Context Protocol says about bytes: pure functions and tables, no I/O, no await.

    revisions    the protocol revisions and their two eras
    methods      every method: what it may do, what it is aimed at
    strict_json  the only JSON that we decide on: one reading, whoever parses it
    headers      the `Mcp-*` fields, their encoding and when they agree with a body
    envelope     a POST body and its header fields -> messages, or a refusal
    sse          where events end, and the one event that is rewritten

Imports the standard library, orjson and `proxy.errors`; knows nothing of routes, servers, sockets or configuration.
"""
