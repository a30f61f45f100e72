"""Who asks, and what they may do: pure functions and immutable values, no I/O, no await.

    keys            API keys: minting, the offline check, the keyed hash that is stored
    credentials     header fields -> the one credential of a request, and how it is taken out of them
    client_address  the true client behind trusted proxies
    addresses       addresses and networks as numbers
    principal       who asks: identity, scopes, roles
    patterns        what servers and tools a key or a rule names
    records         rows of the database as plain values
    entries         one row compiled into what a request is checked against
    directory       every credential in memory: credential -> principal
    access          `server_access_control`, and the one question: may this principal send this message?
    json_spans      where in a text the members of objects and the items of arrays stand
    list_filter     lists without the items that a principal may not use

Imports the standard library, `proxy.errors` and `proxy.mcp`; knows nothing of sockets, tables or configuration files.
"""
